package main

import (
	"context"
	"fmt"
	"reflect"
	"runtime/debug"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// handler is our own implementation of a method. A *_Task handler runs inside
// the task; its value becomes the task's result.
type handler func(c *call) (interface{}, types.BaseMethodFault)

// handlers has the methods that the library lacks, or gets wrong, by
// "Type.Method"; everything else is the library's. Filled by init functions
// beside the implementations.
var handlers = map[string]handler{}

// anonymous methods need no session.
var anonymous = map[string]bool{
	"RetrieveServiceContent": true, "Fetch": true, "Login": true, "RetrieveProperties": true,
	"RetrievePropertiesEx": true, "CloneSession": true, "CurrentTime": true,
}

// answer runs one call: session, object, privilege, then ours or the library's.
func (l *Lab) answer(c *call, rule *faultRule) (value interface{}, fault types.BaseMethodFault) {
	defer func() {
		if e := recover(); e != nil {
			l.logf("%s: %v\n%s", c.key(), e, debug.Stack())
			fault = &types.SystemError{Reason: fmt.Sprint(e)}
		}
	}()
	if l.trace {
		l.logf("call %s %s", c.key(), c.method.This.Value)
	}
	if c.session == nil && !anonymous[c.method.Name] {
		denied := &types.NotAuthenticated{}
		denied.Object, denied.PrivilegeId = c.method.This, "System.View"
		return nil, denied
	}
	if fault := l.admit(c); fault != nil {
		return nil, fault
	}
	if c.isTask() {
		return l.startTask(c, rule), nil
	}
	if rule != nil && rule.Fault != "" {
		return nil, rule.fault()
	}
	return c.perform()
}

// admit checks what the server checks before it starts anything.
func (l *Lab) admit(c *call) types.BaseMethodFault {
	l.world.RLock()
	defer l.world.RUnlock()
	if l.target(c) == nil {
		return &types.ManagedObjectNotFound{Obj: c.method.This}
	}
	if entity, ok := simulator.Map.Get(c.method.This).(mo.Entity); ok {
		for _, disabled := range entity.Entity().DisabledMethod {
			if disabled == c.method.Name {
				return new(types.MethodDisabled)
			}
		}
	}
	if fault := l.checkPrivileges(c); fault != nil {
		return fault
	}
	return l.checkHost(c)
}

func (l *Lab) target(c *call) mo.Reference {
	if c.session != nil {
		return c.session.Get(c.method.This)
	}
	return simulator.Map.Get(c.method.This)
}

// perform runs ours if there is one, else the library's.
func (c *call) perform() (interface{}, types.BaseMethodFault) {
	if h := handlers[c.key()]; h != nil {
		return h(c)
	}
	if c.method.Name == "Fetch" {
		return fetch(c) // one property, of an object of any type
	}
	if c.isTask() {
		return c.lab.libraryTask(c)
	}
	return c.lab.library(c)
}

// with makes a call of the lab's own on the way of this one, for handlers that
// build on the library's methods.
func (c *call) with(this types.ManagedObjectReference, name string, body types.AnyType) *call {
	return &call{lab: c.lab, session: c.session, request: c.request, task: c.task,
		method: &simulator.Method{Name: name, This: this, Body: body}}
}

// internalCall is one that nobody asked for: a guest powering itself off.
func (l *Lab) internalCall(this types.ManagedObjectReference, name string, body types.AnyType) *call {
	return &call{lab: l, session: l.system, method: &simulator.Method{Name: name, This: this, Body: body}}
}

func (c *call) context() *simulator.Context {
	ctx := &simulator.Context{Map: simulator.Map, Context: context.Background(), Caller: &c.method.This}
	if c.session != nil {
		ctx.Session = c.session.Session
	}
	return ctx
}

// invoke calls the library's method by reflection; the caller holds the world.
func (l *Lab) invoke(c *call) (soap.HasFault, types.BaseMethodFault) {
	object := l.target(c)
	if object == nil {
		return nil, &types.ManagedObjectNotFound{Obj: c.method.This}
	}
	name := strings.ToUpper(c.method.Name[:1]) + c.method.Name[1:]
	if c.isTask() {
		name = strings.TrimSuffix(name, "_Task") + "Task"
	}
	function := reflect.ValueOf(object).MethodByName(name)
	if !function.IsValid() {
		l.logf("%s: not implemented", c.key())
		return nil, &types.MethodNotFound{Receiver: c.method.This, Method: c.method.Name}
	}
	var arguments []reflect.Value
	if function.Type().NumIn() == 2 {
		arguments = append(arguments, reflect.ValueOf(c.context()))
	}
	arguments = append(arguments, reflect.ValueOf(c.method.Body))
	var results []reflect.Value
	simulator.Map.WithLock(object, func() { results = function.Call(arguments) })
	answer := results[0].Interface().(soap.HasFault)
	if f := answer.Fault(); f != nil {
		if fault, ok := f.Detail.Fault.(types.BaseMethodFault); ok {
			return nil, fault
		}
		return nil, &types.SystemError{Reason: f.String}
	}
	return answer, nil
}

var readers = map[string]bool{"RetrieveProperties": true, "RetrievePropertiesEx": true, "Fetch": true}

func (l *Lab) library(c *call) (interface{}, types.BaseMethodFault) {
	if readers[c.method.Name] {
		l.world.RLock()
		defer l.world.RUnlock()
	} else {
		l.world.Lock()
		defer l.world.Unlock()
	}
	answer, fault := l.invoke(c)
	if fault != nil {
		return nil, fault
	}
	return reflect.ValueOf(answer).Elem().FieldByName("Res").Interface(), nil
}

// libraryTask runs a library's task method, which ends before it returns, and
// takes the task's result; the task itself is not shown to anybody.
func (l *Lab) libraryTask(c *call) (interface{}, types.BaseMethodFault) {
	l.world.Lock()
	defer l.world.Unlock()
	return l.libraryTaskHeld(c)
}

// libraryTaskHeld is libraryTask for a caller that holds the world.
func (l *Lab) libraryTaskHeld(c *call) (interface{}, types.BaseMethodFault) {
	answer, fault := l.invoke(c)
	if fault != nil {
		return nil, fault
	}
	result := reflect.ValueOf(answer).Elem().FieldByName("Res").Elem().FieldByName("Returnval")
	ref := result.Interface().(types.ManagedObjectReference)
	inner := simulator.Map.Get(ref).(*simulator.Task)
	forgetTask(ref)
	if inner.Info.Error != nil {
		return nil, inner.Info.Error.Fault
	}
	return inner.Info.Result, nil
}

// update changes properties of an object and tells the property collectors.
func (l *Lab) update(object mo.Reference, changes ...types.PropertyChange) {
	l.world.Lock()
	defer l.world.Unlock()
	simulator.Map.Update(object, changes)
}

// event posts an event; the caller holds the world.
func (l *Lab) event(events ...types.BaseEvent) {
	manager := simulator.Map.EventManager()
	ctx := l.internalCall(manager.Self, "PostEvent", nil).context()
	for _, e := range events {
		if f := manager.PostEvent(ctx, &types.PostEvent{EventToPost: e}).(*methods.PostEventBody).Fault(); f != nil {
			l.logf("event %T: %s", e, f.String)
		}
	}
}
