package main

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

func init() {
	handlers["DistributedVirtualSwitch.CreateDVPortgroup_Task"] = createPortgroup
	handlers["VmwareDistributedVirtualSwitch.CreateDVPortgroup_Task"] = createPortgroup
	handlers["DistributedVirtualPortgroup.Rename_Task"] = renamePortgroup
	handlers["DistributedVirtualPortgroup.Destroy_Task"] = destroyPortgroup
}

// createPortgroup makes one port group and, other than AddDVPortgroup, says which.
func createPortgroup(c *call) (interface{}, types.BaseMethodFault) {
	r := c.method.Body.(*types.CreateDVPortgroup_Task)
	c.lab.world.Lock()
	defer c.lab.world.Unlock()
	if portgroupByName(r.Spec.Name) != nil {
		return nil, &types.DuplicateName{Name: r.Spec.Name, Object: portgroupByName(r.Spec.Name).Self}
	}
	_, fault := c.lab.libraryTaskHeld(c.with(r.This, "AddDVPortgroup_Task",
		&types.AddDVPortgroup_Task{This: r.This, Spec: []types.DVPortgroupConfigSpec{r.Spec}}))
	if fault != nil {
		return nil, fault
	}
	return portgroupByName(r.Spec.Name).Self, nil
}

func portgroupByName(name string) *simulator.DistributedVirtualPortgroup {
	for _, e := range simulator.Map.All("DistributedVirtualPortgroup") {
		if pg := e.(*simulator.DistributedVirtualPortgroup); pg.Name == name {
			return pg
		}
	}
	return nil
}

func renamePortgroup(c *call) (interface{}, types.BaseMethodFault) {
	name := c.method.Body.(*types.Rename_Task).NewName
	c.lab.world.Lock()
	defer c.lab.world.Unlock()
	if other := portgroupByName(name); other != nil {
		return nil, &types.DuplicateName{Name: name, Object: other.Self}
	}
	pg := simulator.Map.Get(c.method.This).(*simulator.DistributedVirtualPortgroup)
	pg.Entity().Name = name
	simulator.Map.Update(pg, []types.PropertyChange{{Name: "name", Val: name}, {Name: "config.name", Val: name}})
	return nil, nil
}

// destroyPortgroup refuses while a VM has a NIC on it; the library does not care.
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
