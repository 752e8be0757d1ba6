package main

import (
	"sync"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// machine is what the lab keeps of one VM beside the library's object.
// Configuration and power changes of one VM take turns.
type machine struct {
	turn  sync.Mutex
	mu    sync.Mutex
	qemu  *qemu // nil when no process runs
	tools bool  // the guest's agent is there
}

type machines struct {
	mu  sync.Mutex
	all map[types.ManagedObjectReference]*machine
}

func (m *machines) get(ref types.ManagedObjectReference) *machine {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.all == nil {
		m.all = map[types.ManagedObjectReference]*machine{}
	}
	if m.all[ref] == nil {
		m.all[ref] = &machine{}
	}
	return m.all[ref]
}

func (m *machines) forget(ref types.ManagedObjectReference) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.all, ref)
}

func (m *machines) killAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, one := range m.all {
		if q := one.take(); q != nil {
			q.kill()
		}
	}
}

func (m *machine) process() *qemu {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.qemu
}

func (m *machine) set(q *qemu) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.qemu = q
}

func (m *machine) toolsAreRunning() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.tools
}

// take detaches the process: its end is no longer the guest's doing.
func (m *machine) take() *qemu {
	m.mu.Lock()
	defer m.mu.Unlock()
	q := m.qemu
	m.qemu = nil
	return q
}

// takeIf detaches the process if it still is this one.
func (m *machine) takeIf(q *qemu) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.qemu != q {
		return false
	}
	m.qemu = nil
	return true
}

// serially runs a VM's handler in its turn, with the VM as it is then.
func serially(f func(c *call, vm *simulator.VirtualMachine) (interface{}, types.BaseMethodFault)) handler {
	return func(c *call) (interface{}, types.BaseMethodFault) {
		m := c.lab.machines.get(c.method.This)
		m.turn.Lock()
		defer m.turn.Unlock()
		vm := findVM(c.method.This)
		if vm == nil {
			return nil, &types.ManagedObjectNotFound{Obj: c.method.This}
		}
		return f(c, vm)
	}
}
