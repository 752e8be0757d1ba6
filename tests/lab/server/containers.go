package main

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// Folders and vApps act on the VMs in them; the library forgets those VMs.

func init() {
	handlers["Folder.Destroy_Task"] = destroyFolder
	handlers["VirtualApp.Destroy_Task"] = destroyVApp
	handlers["VirtualApp.PowerOnVApp_Task"] = func(c *call) (interface{}, types.BaseMethodFault) {
		return nil, c.eachVM(vAppVMs(c), poweredOff, "PowerOnVM_Task", func(vm types.ManagedObjectReference) types.AnyType {
			return &types.PowerOnVM_Task{This: vm}
		})
	}
	handlers["VirtualApp.PowerOffVApp_Task"] = func(c *call) (interface{}, types.BaseMethodFault) {
		return nil, c.eachVM(vAppVMs(c), poweredOn, "PowerOffVM_Task", func(vm types.ManagedObjectReference) types.AnyType {
			return &types.PowerOffVM_Task{This: vm}
		})
	}
}

func vAppVMs(c *call) []types.ManagedObjectReference {
	c.lab.world.RLock()
	defer c.lab.world.RUnlock()
	return append([]types.ManagedObjectReference(nil), simulator.Map.Get(c.method.This).(*simulator.VirtualApp).Vm...)
}

// eachVM calls a method on every VM in a power state, until one fails.
func (c *call) eachVM(vms []types.ManagedObjectReference, in types.VirtualMachinePowerState, method string,
	body func(types.ManagedObjectReference) types.AnyType) types.BaseMethodFault {
	for _, ref := range vms {
		vm := findVM(ref)
		if vm == nil || in != "" && vm.Runtime.PowerState != in {
			continue
		}
		one := c.with(ref, method, body(ref))
		if fault := c.lab.admit(one); fault != nil {
			return fault
		}
		if _, fault := one.perform(); fault != nil {
			return fault
		}
	}
	return nil
}

func destroyBody(ref types.ManagedObjectReference) types.AnyType {
	return &types.Destroy_Task{This: ref}
}

// destroyFolder destroys what is in the folder, and the folder when nothing is left.
func destroyFolder(c *call) (interface{}, types.BaseMethodFault) {
	c.lab.world.RLock()
	children := append([]types.ManagedObjectReference(nil), simulator.Map.Get(c.method.This).(*simulator.Folder).ChildEntity...)
	c.lab.world.RUnlock()
	for _, child := range children {
		switch child.Type {
		case "VirtualMachine":
			if fault := c.eachVM([]types.ManagedObjectReference{child}, "", "Destroy_Task", destroyBody); fault != nil {
				return nil, fault
			}
		case "Folder", "VirtualApp":
			if _, fault := c.with(child, "Destroy_Task", destroyBody(child)).perform(); fault != nil {
				return nil, fault
			}
		}
	}
	return c.lab.libraryTask(c)
}

func destroyVApp(c *call) (interface{}, types.BaseMethodFault) {
	if fault := c.eachVM(vAppVMs(c), "", "Destroy_Task", destroyBody); fault != nil {
		return nil, fault
	}
	return c.lab.libraryTask(c)
}
