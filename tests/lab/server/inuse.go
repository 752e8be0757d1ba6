package main

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// What is in use is neither destroyed nor renamed onto.

func init() {
	handlers["DistributedVirtualPortgroup.Destroy_Task"] = destroyPortgroup
	handlers["VirtualMachine.Rename_Task"] = serially(renameVM)
}

func destroyPortgroup(c *call) (interface{}, types.BaseMethodFault) {
	c.lab.world.Lock()
	defer c.lab.world.Unlock()
	for _, e := range simulator.Map.All("VirtualMachine") {
		if vm := e.(*simulator.VirtualMachine); simulator.FindReference(vm.Network, c.method.This) != nil {
			return nil, &types.ResourceInUse{Type: c.method.This.Type, Name: networkName(c.method.This)}
		}
	}
	return c.lab.libraryTaskHeld(c)
}

func renameVM(c *call, vm *simulator.VirtualMachine) (interface{}, types.BaseMethodFault) {
	l, name := c.lab, c.method.Body.(*types.Rename_Task).NewName
	l.world.Lock()
	defer l.world.Unlock()
	if other := inFolder(*vm.Parent, name); other != nil && *other != vm.Self {
		return nil, &types.DuplicateName{Name: name, Object: *other}
	}
	old := vm.Name
	l.configChanged(vm, types.PropertyChange{Name: "name", Val: name}, types.PropertyChange{Name: "config.name", Val: name},
		types.PropertyChange{Name: "summary.config.name", Val: name})
	l.event(&types.VmRenamedEvent{VmEvent: vmEvent(vm), OldName: old, NewName: name})
	l.persist(vm)
	return nil, nil
}
