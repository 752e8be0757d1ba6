package main

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// VMs that move: to another host, pool or folder.

func init() {
	handlers["VirtualMachine.MigrateVM_Task"] = serially(migrate)
	handlers["VirtualMachine.RelocateVM_Task"] = serially(relocate)
}

// move changes the host that a VM belongs to.
func (l *Lab) move(vm *simulator.VirtualMachine, to types.ManagedObjectReference) {
	l.world.Lock()
	defer l.world.Unlock()
	from := simulator.Map.Get(*vm.Runtime.Host).(*simulator.HostSystem)
	simulator.RemoveReference(&from.Vm, vm.Self)
	host := simulator.Map.Get(to).(*simulator.HostSystem)
	host.Vm = append(host.Vm, vm.Self)
	simulator.Map.Update(vm, []types.PropertyChange{{Name: "runtime.host", Val: &to}, {Name: "summary.runtime.host", Val: &to}})
}

func migrate(c *call, vm *simulator.VirtualMachine) (interface{}, types.BaseMethodFault) {
	r := c.method.Body.(*types.MigrateVM_Task)
	if r.Host == nil {
		return nil, &types.InvalidArgument{InvalidProperty: "host"}
	}
	return nil, c.lab.vMotion(vm, *r.Host)
}

// vMotion moves a VM to another host. Its QEMU does not notice; network-backed
// serial ports behind a proxy are handed over.
func (l *Lab) vMotion(vm *simulator.VirtualMachine, to types.ManagedObjectReference) types.BaseMethodFault {
	host, ok := simulator.Map.Get(to).(*simulator.HostSystem)
	if !ok || host.Runtime.ConnectionState != types.HostSystemConnectionStateConnected {
		return &types.InvalidArgument{InvalidProperty: "host"}
	}
	from := simulator.Map.Get(*vm.Runtime.Host).(*simulator.HostSystem)
	if q := l.machines.get(vm.Self).process(); q != nil {
		for _, port := range q.serial {
			port.handOver()
		}
	}
	l.move(vm, to)
	l.world.Lock()
	defer l.world.Unlock()
	l.event(&types.VmMigratedEvent{VmEvent: vmEvent(vm), SourceHost: types.HostEventArgument{
		EntityEventArgument: types.EntityEventArgument{Name: from.Name}, Host: from.Self}})
	return nil
}

// relocate moves a VM between hosts, pools and folders; its files stay where they are.
func relocate(c *call, vm *simulator.VirtualMachine) (interface{}, types.BaseMethodFault) {
	l, spec := c.lab, c.method.Body.(*types.RelocateVM_Task).Spec
	if spec.Datastore != nil && *spec.Datastore != datastoreOf(vm.Config.Files.VmPathName).Self || len(spec.Disk) > 0 {
		return nil, new(types.NotSupported)
	}
	if spec.Host != nil {
		if fault := l.vMotion(vm, *spec.Host); fault != nil {
			return nil, fault
		}
	}
	if spec.Pool != nil {
		l.world.Lock()
		movePool(vm, *spec.Pool)
		l.world.Unlock()
	}
	if spec.Folder != nil {
		body := &types.MoveIntoFolder_Task{This: *spec.Folder, List: []types.ManagedObjectReference{vm.Self}}
		return l.libraryTask(c.with(*spec.Folder, "MoveIntoFolder_Task", body))
	}
	return nil, nil
}

func movePool(vm *simulator.VirtualMachine, to types.ManagedObjectReference) {
	for _, change := range []struct {
		pool *types.ManagedObjectReference
		f    func(*[]types.ManagedObjectReference)
	}{
		{vm.ResourcePool, func(vms *[]types.ManagedObjectReference) { simulator.RemoveReference(vms, vm.Self) }},
		{&to, func(vms *[]types.ManagedObjectReference) { *vms = append(*vms, vm.Self) }},
	} {
		switch pool := simulator.Map.Get(*change.pool).(type) {
		case *simulator.ResourcePool:
			change.f(&pool.Vm)
		case *simulator.VirtualApp:
			change.f(&pool.Vm)
		}
	}
	simulator.Map.Update(vm, []types.PropertyChange{{Name: "resourcePool", Val: &to}})
}
