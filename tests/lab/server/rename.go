package main

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

func init() {
	handlers["VirtualMachine.Rename_Task"] = serially(renameVM)
}

// renameVM keeps names unique in their folder. The files keep their names.
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
