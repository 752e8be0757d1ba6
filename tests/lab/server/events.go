package main

import (
	"reflect"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

func init() {
	handlers["EventManager.QueryEvents"] = queryEvents
}

const maxEvents = 1000

// queryEvents gives the newest thousand events; the library's gives ten.
func queryEvents(c *call) (interface{}, types.BaseMethodFault) {
	r := c.method.Body.(*types.QueryEvents)
	c.lab.world.Lock()
	defer c.lab.world.Unlock()
	answer, fault := c.lab.invoke(c.with(r.This, "CreateCollectorForEvents", &types.CreateCollectorForEvents{This: r.This, Filter: r.Filter}))
	if fault != nil {
		return nil, fault
	}
	ref := answer.(*methods.CreateCollectorForEventsBody).Res.Returnval
	collector := c.session.Get(ref).(*simulator.EventHistoryCollector)
	if _, fault := c.lab.invoke(c.with(ref, "SetCollectorPageSize", &types.SetCollectorPageSize{This: ref, MaxCount: maxEvents})); fault != nil {
		return nil, fault
	}
	page := collector.GetLatestPage()
	_, fault = c.lab.invoke(c.with(ref, "DestroyCollector", &types.DestroyCollector{This: ref}))
	return &types.QueryEventsResponse{Returnval: page}, fault
}

// vmEvent is the part that all events of a VM share.
func vmEvent(vm *simulator.VirtualMachine) types.VmEvent {
	event := types.VmEvent{Event: types.Event{
		CreatedTime: time.Now(),
		Vm:          &types.VmEventArgument{EntityEventArgument: types.EntityEventArgument{Name: vm.Name}, Vm: vm.Self},
	}}
	if vm.Runtime.Host != nil {
		event.Host = &types.HostEventArgument{EntityEventArgument: types.EntityEventArgument{Name: nameOf(*vm.Runtime.Host)}, Host: *vm.Runtime.Host}
	}
	for at := vm.Self; ; {
		e, ok := simulator.Map.Get(at).(mo.Entity)
		if !ok || e.Entity().Parent == nil {
			return event
		}
		if at = *e.Entity().Parent; at.Type == "Datacenter" {
			event.Datacenter = &types.DatacenterEventArgument{EntityEventArgument: types.EntityEventArgument{Name: nameOf(at)}, Datacenter: at}
			return event
		}
	}
}

// copyDevice copies one level: enough to change a field of a shared device.
func copyDevice(device types.BaseVirtualDevice) types.BaseVirtualDevice {
	old := reflect.ValueOf(device).Elem()
	made := reflect.New(old.Type())
	made.Elem().Set(old)
	return made.Interface().(types.BaseVirtualDevice)
}
