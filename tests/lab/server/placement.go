package main

import (
	"fmt"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"
)

const (
	scsiReserved = 7 // the controller's own place on its bus
	maxSCSI      = 4
	firstNICUnit = 7
	maxNICs      = 10
)

// place checks or chooses a device's controller and unit number.
func (p *plan) place(device types.BaseVirtualDevice, invalid *types.InvalidDeviceSpec) types.BaseMethodFault {
	d := device.GetVirtualDevice()
	switch x := device.(type) {
	case types.BaseVirtualSCSIController:
		return p.placeSCSI(x.GetVirtualSCSIController(), invalid)
	case types.BaseVirtualController:
		return nil
	case types.BaseVirtualEthernetCard:
		d.ControllerKey = 100
		return p.placeUnit(d, firstNICUnit, firstNICUnit+maxNICs-1, -1, invalid)
	case *types.VirtualSerialPort:
		d.ControllerKey = 400
		return p.placeUnit(d, 0, 31, -1, invalid)
	case *types.VirtualDisk, *types.VirtualCdrom:
		_, controller := p.find(d.ControllerKey)
		switch controller.(type) {
		case *types.ParaVirtualSCSIController:
			return p.placeUnit(d, 0, 63, scsiReserved, invalid)
		case types.BaseVirtualSCSIController:
			return p.placeUnit(d, 0, 15, scsiReserved, invalid)
		case *types.VirtualIDEController:
			return p.placeUnit(d, 0, 1, -1, invalid)
		case types.BaseVirtualSATAController:
			return p.placeUnit(d, 0, 29, -1, invalid)
		}
		return invalid
	}
	return nil
}

func (p *plan) placeSCSI(c *types.VirtualSCSIController, invalid *types.InvalidDeviceSpec) types.BaseMethodFault {
	n := 0
	for _, other := range p.devices {
		if o, ok := other.(types.BaseVirtualSCSIController); ok {
			n++
			if o.GetVirtualSCSIController().BusNumber == c.BusNumber {
				return invalid
			}
		}
	}
	if n >= maxSCSI || c.BusNumber < 0 || c.BusNumber >= maxSCSI {
		return invalid
	}
	c.ControllerKey = 100
	c.ScsiCtlrUnitNumber = scsiReserved
	c.HotAddRemove = types.NewBool(true)
	return nil
}

// placeUnit takes the wanted number, or the lowest free one for none or -1.
func (p *plan) placeUnit(d *types.VirtualDevice, first, last, reserved int32, invalid *types.InvalidDeviceSpec) types.BaseMethodFault {
	taken := map[int32]bool{reserved: true}
	for _, other := range p.devices {
		o := other.GetVirtualDevice()
		if o.ControllerKey == d.ControllerKey && o.UnitNumber != nil {
			taken[*o.UnitNumber] = true
		}
	}
	if d.UnitNumber != nil && *d.UnitNumber >= 0 {
		if taken[*d.UnitNumber] || *d.UnitNumber < first || *d.UnitNumber > last {
			return invalid
		}
		return nil
	}
	for unit := first; unit <= last; unit++ {
		if !taken[unit] {
			d.UnitNumber = types.NewInt32(unit)
			return nil
		}
	}
	return invalid
}

// newKey gives a device the key that ESXi would.
func (p *plan) newKey(device types.BaseVirtualDevice) int32 {
	d := device.GetVirtualDevice()
	key := int32(12100)
	switch x := device.(type) {
	case types.BaseVirtualSCSIController:
		key = 1000 + x.GetVirtualSCSIController().BusNumber
	case types.BaseVirtualSATAController:
		key = 15000
	case types.BaseVirtualEthernetCard:
		key = 4000 + *d.UnitNumber - firstNICUnit
	case *types.VirtualSerialPort:
		key = 9000 + *d.UnitNumber
	case *types.VirtualCdrom:
		key = 3000 + (d.ControllerKey-200)*2 + *d.UnitNumber
		if d.ControllerKey >= 15000 {
			key = 16000 + *d.UnitNumber
		}
	case *types.VirtualDisk:
		key = 2000 + *d.UnitNumber
		if d.ControllerKey >= 1000 && d.ControllerKey < 1000+maxSCSI {
			key += (d.ControllerKey - 1000) * 64
		} else {
			key += 10000
		}
	}
	for {
		if _, there := p.find(key); there == nil {
			return key
		}
		key++
	}
}

// describe fills in label, summary and connection state where the client gave none.
func describe(p *plan, device types.BaseVirtualDevice) {
	d := device.GetVirtualDevice()
	if d.DeviceInfo == nil {
		d.DeviceInfo = &types.Description{}
	}
	info := d.DeviceInfo.GetDescription()
	if info.Label == "" {
		info.Label = label(device)
	}
	if info.Summary == "" {
		info.Summary = object.VirtualDeviceList(p.devices).Type(device)
	}
	switch device.(type) {
	case types.BaseVirtualEthernetCard, *types.VirtualCdrom, *types.VirtualSerialPort:
		if d.Connectable == nil {
			d.Connectable = &types.VirtualDeviceConnectInfo{StartConnected: true, Connected: true, AllowGuestControl: true}
		}
	}
}

func label(device types.BaseVirtualDevice) string {
	d := device.GetVirtualDevice()
	switch x := device.(type) {
	case *types.VirtualDisk:
		return fmt.Sprintf("Hard disk %d", d.Key-1999)
	case types.BaseVirtualEthernetCard:
		return fmt.Sprintf("Network adapter %d", d.Key-3999)
	case *types.VirtualSerialPort:
		return fmt.Sprintf("Serial port %d", d.Key-8999)
	case *types.VirtualCdrom:
		return fmt.Sprintf("CD/DVD drive %d", *d.UnitNumber+1)
	case types.BaseVirtualSCSIController:
		return fmt.Sprintf("SCSI controller %d", x.GetVirtualSCSIController().BusNumber)
	}
	return fmt.Sprintf("device %d", d.Key)
}
