package main

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// plan is a device change worked out in full before anything is touched: the
// new list, and what is different in it.
type plan struct {
	devices []types.BaseVirtualDevice
	added   []types.BaseVirtualDevice
	edited  []types.BaseVirtualDevice
	removed []types.BaseVirtualDevice
	create  []diskFile // in order: a child may follow its parent
	replace []string   // files to delete first
	destroy []string   // files to delete last
}

// planDevices checks the changes of a spec against a VM's devices.
func (l *Lab) planDevices(vm *simulator.VirtualMachine, changes []types.BaseVirtualDeviceConfigSpec) (*plan, types.BaseMethodFault) {
	p := &plan{devices: append([]types.BaseVirtualDevice(nil), vm.Config.Hardware.Device...)}
	for i, change := range changes {
		spec := change.GetVirtualDeviceConfigSpec()
		invalid := &types.InvalidDeviceSpec{DeviceIndex: int32(i)}
		if spec.Device == nil {
			return nil, invalid
		}
		var fault types.BaseMethodFault
		switch spec.Operation {
		case types.VirtualDeviceConfigSpecOperationAdd:
			fault = l.planAdd(p, vm, spec, changes, invalid)
		case types.VirtualDeviceConfigSpecOperationEdit:
			fault = l.planEdit(p, spec, invalid)
		case types.VirtualDeviceConfigSpecOperationRemove:
			fault = l.planRemove(p, spec, invalid)
		default:
			fault = invalid
		}
		if fault != nil {
			return nil, fault
		}
	}
	return p, nil
}

func (p *plan) find(key int32) (int, types.BaseVirtualDevice) {
	for i, d := range p.devices {
		if d.GetVirtualDevice().Key == key {
			return i, d
		}
	}
	return -1, nil
}

func (l *Lab) planAdd(p *plan, vm *simulator.VirtualMachine, spec *types.VirtualDeviceConfigSpec,
	changes []types.BaseVirtualDeviceConfigSpec, invalid *types.InvalidDeviceSpec) types.BaseMethodFault {
	d := spec.Device.GetVirtualDevice()
	if _, ok := spec.Device.(types.BaseVirtualController); ok && d.Key > 0 {
		if _, there := p.find(d.Key); there != nil && d.ControllerKey == 0 {
			return nil // a base controller that every VM has
		}
	}
	if fault := p.place(spec.Device, invalid); fault != nil {
		return fault
	}
	old := d.Key
	d.Key = p.newKey(spec.Device)
	if old < 0 {
		for _, other := range changes { // devices that name their controller by its temporary key
			if o := other.GetVirtualDeviceConfigSpec().Device.GetVirtualDevice(); o.ControllerKey == old {
				o.ControllerKey = d.Key
			}
		}
	}
	switch device := spec.Device.(type) {
	case *types.VirtualDisk:
		if fault := l.planDisk(p, vm, spec, device, invalid); fault != nil {
			return fault
		}
	case types.BaseVirtualEthernetCard:
		if fault := l.planNIC(device.GetVirtualEthernetCard(), invalid); fault != nil {
			return fault
		}
	}
	describe(p, spec.Device)
	p.devices = append(p.devices, spec.Device)
	p.added = append(p.added, spec.Device)
	return nil
}

func (l *Lab) planEdit(p *plan, spec *types.VirtualDeviceConfigSpec, invalid *types.InvalidDeviceSpec) types.BaseMethodFault {
	d := spec.Device.GetVirtualDevice()
	i, old := p.find(d.Key)
	if old == nil {
		return invalid
	}
	before := old.GetVirtualDevice()
	if d.ControllerKey == 0 {
		d.ControllerKey = before.ControllerKey
	}
	if d.UnitNumber == nil {
		d.UnitNumber = before.UnitNumber
	}
	if d.Backing == nil {
		d.Backing = before.Backing
	}
	if d.Connectable == nil {
		d.Connectable = before.Connectable
	}
	if card, ok := spec.Device.(types.BaseVirtualEthernetCard); ok {
		c := card.GetVirtualEthernetCard()
		if c.MacAddress == "" {
			c.MacAddress = old.(types.BaseVirtualEthernetCard).GetVirtualEthernetCard().MacAddress
		}
		if fault := l.planNIC(c, invalid); fault != nil {
			return fault
		}
	}
	describe(p, spec.Device)
	p.devices[i] = spec.Device
	p.edited = append(p.edited, spec.Device)
	return nil
}

func (l *Lab) planRemove(p *plan, spec *types.VirtualDeviceConfigSpec, invalid *types.InvalidDeviceSpec) types.BaseMethodFault {
	i, old := p.find(spec.Device.GetVirtualDevice().Key)
	if old == nil {
		return invalid
	}
	for _, other := range p.devices {
		if other.GetVirtualDevice().ControllerKey == old.GetVirtualDevice().Key {
			return invalid // it still carries devices
		}
	}
	if disk, ok := old.(*types.VirtualDisk); ok && spec.FileOperation == types.VirtualDeviceConfigSpecFileOperationDestroy {
		file, fault := resolve(diskFileName(disk))
		if fault != nil {
			return fault
		}
		p.destroy = append(p.destroy, file)
	}
	p.devices = append(append([]types.BaseVirtualDevice(nil), p.devices[:i]...), p.devices[i+1:]...)
	p.removed = append(p.removed, old)
	return nil
}
