package main

import (
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// task is a running asynchronous call. It can be cancelled until its effect
// begins; with an injected latency that is the time of the latency.
type task struct {
	lab    *Lab
	object *simulator.Task
	cancel chan struct{}
	once   sync.Once
}

var running sync.Map // types.ManagedObjectReference -> *task

func init() {
	handlers["Task.CancelTask"] = cancelTask
}

// startTask makes the task object and runs the call behind it.
func (l *Lab) startTask(c *call, rule *faultRule) types.ManagedObjectReference {
	base := strings.TrimSuffix(c.method.Name, "_Task")
	l.world.Lock()
	object := simulator.CreateTask(c.method.This, strings.ToLower(base[:1])+base[1:], nil)
	object.Info.Name = c.method.Name
	object.Info.Cancelable = true
	object.Info.Reason = &types.TaskReasonUser{UserName: c.session.UserName}
	if e, ok := simulator.Map.Get(c.method.This).(mo.Entity); ok {
		object.Info.EntityName = e.Entity().Name
	}
	l.world.Unlock()
	c.task = &task{lab: l, object: object, cancel: make(chan struct{})}
	running.Store(object.Self, c.task)
	go c.task.run(c, rule)
	return object.Self
}

func (t *task) run(c *call, rule *faultRule) {
	var value interface{}
	var fault types.BaseMethodFault
	defer func() {
		if e := recover(); e != nil {
			t.lab.logf("task %s: %v\n%s", c.key(), e, debug.Stack())
			value, fault = nil, &types.SystemError{Reason: fmt.Sprint(e)}
		}
		t.finish(value, fault)
	}()
	if rule != nil && rule.QueuedMs > 0 && !t.wait(time.Duration(rule.QueuedMs)*time.Millisecond, false) {
		fault = new(types.RequestCanceled)
		return
	}
	t.update(types.PropertyChange{Name: "info.startTime", Val: time.Now()},
		types.PropertyChange{Name: "info.state", Val: types.TaskInfoStateRunning})
	if rule != nil && !t.wait(rule.latency(), true) {
		fault = new(types.RequestCanceled)
		return
	}
	if rule != nil && rule.Fault != "" && !rule.After {
		fault = rule.fault()
		return
	}
	t.update(types.PropertyChange{Name: "info.cancelable", Val: false})
	value, fault = c.perform()
	if fault == nil && rule != nil && rule.Fault != "" {
		value, fault = nil, rule.fault()
	}
}

// wait passes the time in ten steps of progress; false when the task was cancelled.
func (t *task) wait(d time.Duration, progress bool) bool {
	const steps = 10
	for i := 0; i < steps && d > 0; i++ {
		select {
		case <-t.cancel:
			return false
		case <-time.After(d / steps):
		}
		if progress {
			t.progress(int32((i + 1) * 90 / steps))
		}
	}
	select {
	case <-t.cancel:
		return false
	default:
		return true
	}
}

func (t *task) progress(percent int32) {
	t.update(types.PropertyChange{Name: "info.progress", Val: percent})
}

func (t *task) update(changes ...types.PropertyChange) { t.lab.update(t.object, changes...) }

func (t *task) finish(value interface{}, fault types.BaseMethodFault) {
	running.Delete(t.object.Self)
	changes := []types.PropertyChange{
		{Name: "info.completeTime", Val: time.Now()},
		{Name: "info.cancelable", Val: false},
		{Name: "info.result", Val: value},
	}
	if fault != nil {
		failure := types.LocalizedMethodFault{Fault: fault, LocalizedMessage: faultText(fault)}
		changes = append(changes, types.PropertyChange{Name: "info.error", Val: failure},
			types.PropertyChange{Name: "info.state", Val: types.TaskInfoStateError})
	} else {
		changes = append(changes, types.PropertyChange{Name: "info.progress", Val: int32(100)},
			types.PropertyChange{Name: "info.state", Val: types.TaskInfoStateSuccess})
	}
	t.update(changes...)
	finished.add(t.lab, t.object.Self)
}

// ring remembers the newest finished tasks; older ones vanish, as they do on vCenter.
type ring struct {
	mu   sync.Mutex
	refs []types.ManagedObjectReference
}

const keptTasks = 1000

var finished ring

func (r *ring) add(l *Lab, ref types.ManagedObjectReference) {
	r.mu.Lock()
	r.refs = append(r.refs, ref)
	var gone []types.ManagedObjectReference
	if n := len(r.refs) - keptTasks; n > 0 {
		gone, r.refs = r.refs[:n:n], r.refs[n:]
	}
	r.mu.Unlock()
	l.world.Lock()
	defer l.world.Unlock()
	for _, old := range gone {
		forgetTask(old)
	}
}

func cancelTask(c *call) (interface{}, types.BaseMethodFault) {
	object := simulator.Map.Get(c.method.This).(*simulator.Task)
	c.lab.world.RLock()
	cancelable := object.Info.Cancelable
	c.lab.world.RUnlock()
	t, ok := running.Load(c.method.This)
	if !ok || !cancelable {
		return nil, new(types.InvalidState)
	}
	t.(*task).once.Do(func() {
		close(t.(*task).cancel)
		t.(*task).update(types.PropertyChange{Name: "info.cancelled", Val: true})
	})
	return nil, nil
}

// forgetTask removes a task that only the library knows; the caller holds the world.
func forgetTask(ref types.ManagedObjectReference) {
	simulator.Map.Remove(ref)
	manager := simulator.Map.Get(*simulator.Map.Get(serviceInstance).(*simulator.ServiceInstance).Content.TaskManager).(*simulator.TaskManager)
	simulator.RemoveReference(&manager.RecentTask, ref)
}
