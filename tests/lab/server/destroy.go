package main

import (
	"os"
	"path/filepath"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

func init() {
	handlers["VirtualMachine.Destroy_Task"] = serially(destroy)
	handlers["VirtualMachine.UnregisterVM"] = serially(unregister)
}

// destroy deletes a VM as vCenter does: with every attached disk, and with the
// parents of those disks. Who wants to keep a disk removes it first.
func destroy(c *call, vm *simulator.VirtualMachine) (interface{}, types.BaseMethodFault) {
	if fault := requirePower(vm, poweredOff, suspended); fault != nil {
		return nil, fault
	}
	l := c.lab
	if fault := l.unregister(vm); fault != nil {
		return nil, fault
	}
	for _, device := range vm.Config.Hardware.Device {
		disk, ok := device.(*types.VirtualDisk)
		if !ok {
			continue
		}
		for b, _ := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo); b != nil; b = b.Parent {
			if file, fault := resolve(b.FileName); fault == nil {
				os.Remove(file)
				l.disks.forget(file)
			}
		}
	}
	removeHome(vm)
	return nil, nil
}

func unregister(c *call, vm *simulator.VirtualMachine) (interface{}, types.BaseMethodFault) {
	if fault := requirePower(vm, poweredOff, suspended); fault != nil {
		return nil, fault
	}
	return nil, c.lab.unregister(vm)
}

func (l *Lab) unregister(vm *simulator.VirtualMachine) types.BaseMethodFault {
	if q := l.machines.get(vm.Self).take(); q != nil {
		q.kill() // suspended
	}
	l.world.Lock()
	defer l.world.Unlock()
	_, fault := l.invoke(l.internalCall(vm.Self, "UnregisterVM", &types.UnregisterVM{This: vm.Self}))
	l.machines.forget(vm.Self)
	return fault
}

// discard takes back a VM whose creation failed half way.
func (l *Lab) discard(vm *simulator.VirtualMachine) {
	if fault := l.unregister(vm); fault != nil {
		l.logf("%s: taking it back: %s", vm.Name, faultText(fault))
	}
	removeHome(vm)
}

// removeHome deletes the files that belong to the VM itself, and its directory
// when nothing else is in it.
func removeHome(vm *simulator.VirtualMachine) {
	vmx, fault := resolve(vm.Config.Files.VmPathName)
	if fault != nil {
		return
	}
	home := filepath.Dir(vmx)
	for _, pattern := range []string{"*.vmx", "*.nvram", "*.vmsd", "*.vmsn", "*.vmss", "vmware*.log"} {
		files, _ := filepath.Glob(filepath.Join(home, pattern))
		for _, file := range files {
			os.Remove(file)
		}
	}
	os.Remove(home)
}
