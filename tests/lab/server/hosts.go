package main

import (
	"fmt"
	"net/http"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

func init() {
	controls["POST /lab/hosts"] = controlHost
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
