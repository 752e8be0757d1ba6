package main

import (
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// hostStates are the failures of datastores that a test has ordered.
type hostStates struct {
	mu         sync.Mutex
	fullStores map[types.ManagedObjectReference]bool
}

func init() {
	controls["POST /lab/datastores"] = controlDatastore
	controls["POST /lab/hosts"] = controlHost
	handlers["VirtualMachine.MigrateVM_Task"] = serially(migrate)
	handlers["VirtualMachine.RelocateVM_Task"] = serially(relocate)
}

func (s *hostStates) full(ds *simulator.Datastore) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return ds != nil && s.fullStores[ds.Self]
}

// controlDatastore fills a datastore, or frees it again.
func controlDatastore(l *Lab, _ *http.Request, body []byte) (interface{}, error) {
	var order struct {
		Name string `json:"name"`
		Full *bool  `json:"full"`
	}
	if err := parse(body, &order); err != nil {
		return nil, err
	}
	ds := datastoreOf("[" + order.Name + "]")
	if ds == nil {
		return nil, fmt.Errorf("no datastore %q", order.Name)
	}
	if order.Full == nil {
		return nil, errors.New("full: true or false")
	}
	l.states.mu.Lock()
	if l.states.fullStores == nil {
		l.states.fullStores = map[types.ManagedObjectReference]bool{}
	}
	l.states.fullStores[ds.Self] = *order.Full
	l.states.mu.Unlock()
	free := int64(0)
	if !*order.Full {
		free = ds.Summary.Capacity / 2
	}
	l.update(ds, types.PropertyChange{Name: "summary.freeSpace", Val: free})
	return order, nil
}

func hostByName(name string) *simulator.HostSystem {
	for _, e := range simulator.Map.All("HostSystem") {
		if h := e.(*simulator.HostSystem); h.Name == name || h.Self.Value == name {
			return h
		}
	}
	return nil
}

// controlHost lets a host fail: it stops answering (its VMs run on, out of
// reach), or it loses its power, and with "ha" its VMs start on another host.
func controlHost(l *Lab, _ *http.Request, body []byte) (interface{}, error) {
	var order struct {
		Name  string `json:"name"`
		State string `json:"state"`
		HA    bool   `json:"ha"`
	}
	if err := parse(body, &order); err != nil {
		return nil, err
	}
	host := hostByName(order.Name)
	if host == nil {
		return nil, fmt.Errorf("no host %q", order.Name)
	}
	switch order.State {
	case "connected":
		l.hostReturns(host)
	case "notResponding":
		l.hostLost(host)
	case "crashed":
		l.hostLost(host)
		l.hostCrashed(host, order.HA)
	default:
		return nil, fmt.Errorf("state %q: connected, notResponding or crashed", order.State)
	}
	return order, nil
}

func (l *Lab) setHost(host *simulator.HostSystem, state types.HostSystemConnectionState, vmState types.VirtualMachineConnectionState) {
	l.world.Lock()
	defer l.world.Unlock()
	simulator.Map.Update(host, []types.PropertyChange{
		{Name: "runtime.connectionState", Val: state},
		{Name: "summary.runtime.connectionState", Val: state},
	})
	for _, vm := range vmsOn(host.Self) {
		simulator.Map.Update(vm, []types.PropertyChange{
			{Name: "runtime.connectionState", Val: vmState},
			{Name: "summary.runtime.connectionState", Val: vmState},
		})
	}
}

func vmsOn(host types.ManagedObjectReference) []*simulator.VirtualMachine {
	var vms []*simulator.VirtualMachine
	for _, e := range simulator.Map.All("VirtualMachine") {
		if vm := e.(*simulator.VirtualMachine); vm.Runtime.Host != nil && *vm.Runtime.Host == host {
			vms = append(vms, vm)
		}
	}
	return vms
}

func (l *Lab) hostLost(host *simulator.HostSystem) {
	l.setHost(host, types.HostSystemConnectionStateNotResponding, types.VirtualMachineConnectionStateDisconnected)
}

func (l *Lab) hostReturns(host *simulator.HostSystem) {
	l.setHost(host, types.HostSystemConnectionStateConnected, types.VirtualMachineConnectionStateConnected)
	for _, vm := range vmsOn(host.Self) {
		m := l.machines.get(vm.Self)
		m.turn.Lock()
		if vm.Runtime.PowerState == poweredOn && l.qemu && m.process() == nil {
			l.wentOff(vm) // it crashed with its host, and only now anybody knows
		}
		m.turn.Unlock()
	}
}

// hostCrashed ends the host's processes without a word.
func (l *Lab) hostCrashed(host *simulator.HostSystem, ha bool) {
	for _, vm := range vmsOn(host.Self) {
		m := l.machines.get(vm.Self)
		m.turn.Lock()
		running := vm.Runtime.PowerState == poweredOn
		if q := m.take(); q != nil {
			q.kill()
		}
		if running && ha {
			l.restartElsewhere(vm, host)
		}
		m.turn.Unlock()
	}
}

// restartElsewhere is what vSphere HA does with a VM of a dead host.
func (l *Lab) restartElsewhere(vm *simulator.VirtualMachine, dead *simulator.HostSystem) {
	other := l.otherHost(dead)
	if other == nil {
		l.logf("%s: no host is left", vm.Name)
		return
	}
	l.wentOff(vm)
	l.move(vm, other.Self)
	l.update(vm, types.PropertyChange{Name: "runtime.connectionState", Val: types.VirtualMachineConnectionStateConnected})
	body := &types.PowerOnVM_Task{This: vm.Self}
	if _, fault := powerOn(l.internalCall(vm.Self, "PowerOnVM_Task", body), vm); fault != nil {
		l.logf("%s: restart: %s", vm.Name, faultText(fault))
		return
	}
	l.world.Lock()
	l.event(&types.VmRestartedOnAlternateHostEvent{VmPoweredOnEvent: types.VmPoweredOnEvent{VmEvent: vmEvent(vm)},
		SourceHost: types.HostEventArgument{EntityEventArgument: types.EntityEventArgument{Name: dead.Name}, Host: dead.Self}})
	l.world.Unlock()
}

func (l *Lab) otherHost(dead *simulator.HostSystem) *simulator.HostSystem {
	cluster, ok := simulator.Map.Get(*dead.Parent).(*simulator.ClusterComputeResource)
	if !ok {
		return nil
	}
	for _, ref := range cluster.Host {
		if h := simulator.Map.Get(ref).(*simulator.HostSystem); h != dead && h.Runtime.ConnectionState == types.HostSystemConnectionStateConnected {
			return h
		}
	}
	return nil
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

// checkHost refuses to change a VM whose host is out of reach.
func (l *Lab) checkHost(c *call) types.BaseMethodFault {
	vm := findVM(c.method.This)
	if vm == nil || vm.Runtime.Host == nil || !c.isTask() {
		return nil
	}
	if h, ok := simulator.Map.Get(*vm.Runtime.Host).(*simulator.HostSystem); ok &&
		h.Runtime.ConnectionState != types.HostSystemConnectionStateConnected {
		return new(types.HostNotConnected)
	}
	return nil
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
