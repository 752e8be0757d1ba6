package main

import (
	"fmt"
	"os"
	"time"

	"github.com/vmware/govmomi/vim25/types"
)

const unplugTimeout = 30 * time.Second

// replug brings a running machine to the devices of a plan. After an error what
// had been plugged in is out again.
func (q *qemu) replug(p *plan) (err error) {
	var plugged []types.BaseVirtualDevice
	defer func() {
		if err != nil {
			for _, device := range plugged {
				_ = q.unplug(device)
			}
		}
	}()
	for _, device := range p.added {
		if err := q.plug(device); err != nil {
			return fmt.Errorf("adding %s: %w", label(device), err)
		}
		plugged = append(plugged, device)
	}
	for _, device := range p.edited {
		if err := q.edit(device); err != nil {
			return fmt.Errorf("changing %s: %w", label(device), err)
		}
	}
	for _, device := range p.removed {
		if err := q.unplug(device); err != nil {
			return fmt.Errorf("removing %s: %w", label(device), err)
		}
	}
	return nil
}

func (q *qemu) plug(device types.BaseVirtualDevice) error {
	switch d := device.(type) {
	case *types.VirtualDisk:
		node, err := diskNode(d, q.directory)
		if err != nil {
			return err
		}
		if _, err := q.monitor.run("blockdev-add", node); err != nil {
			return err
		}
		if _, err := q.monitor.run("device_add", diskDevice(d, uuidsEnabled(extra(q.vm, "disk.EnableUUID")))); err != nil {
			_, _ = q.monitor.run("blockdev-del", arguments{"node-name": nodeName(d.Key)})
			return err
		}
		return nil
	case types.BaseVirtualEthernetCard:
		return q.plugNIC(d.GetVirtualEthernetCard())
	}
	return fmt.Errorf("%T cannot be added to a running VM", device)
}

func (q *qemu) plugNIC(card *types.VirtualEthernetCard) error {
	tap, err := q.lab.openTap(card.Backing)
	if err != nil {
		return err
	}
	defer tap.Close()
	name := nodeName(card.Key)
	if _, err := q.monitor.run("getfd", arguments{"fdname": name}, tap); err != nil {
		return err
	}
	if _, err := q.monitor.run("netdev_add", arguments{"type": "tap", "id": name, "fd": name}); err != nil {
		return err
	}
	if _, err := q.monitor.run("device_add", nicDevice(card)); err != nil {
		_, _ = q.monitor.run("netdev_del", arguments{"id": name})
		return err
	}
	return nil
}

func (q *qemu) edit(device types.BaseVirtualDevice) error {
	switch d := device.(type) {
	case *types.VirtualSerialPort:
		if port := q.serial[d.Key]; port != nil {
			return port.back(d)
		}
	case types.BaseVirtualEthernetCard:
		card := d.GetVirtualEthernetCard()
		_, err := q.monitor.run("set_link", arguments{"name": deviceID(card.Key), "up": card.Connectable.Connected})
		return err
	case *types.VirtualCdrom:
		return nil // the guest boots from it and does not look again
	}
	return fmt.Errorf("%T cannot be changed in a running VM", device)
}

func (q *qemu) unplug(device types.BaseVirtualDevice) error {
	d := device.GetVirtualDevice()
	switch device.(type) {
	case *types.VirtualDisk, types.BaseVirtualEthernetCard:
	default:
		return fmt.Errorf("%T cannot be removed from a running VM", device)
	}
	gone := q.monitor.expect("DEVICE_DELETED", deviceID(d.Key))
	if _, err := q.monitor.run("device_del", arguments{"id": deviceID(d.Key)}); err != nil {
		return err
	}
	select {
	case <-gone:
	case <-q.ended:
		return nil
	case <-time.After(unplugTimeout):
		return fmt.Errorf("the guest does not let go of %s", label(device))
	}
	if _, ok := device.(*types.VirtualDisk); !ok {
		_, err := q.monitor.run("netdev_del", arguments{"id": nodeName(d.Key)})
		return err
	}
	if _, err := q.monitor.run("blockdev-del", arguments{"node-name": nodeName(d.Key)}); err != nil {
		return err
	}
	_ = os.Remove(overlayFile(q.directory, d.Key))
	return nil
}
