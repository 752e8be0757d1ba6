package main

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// Snapshots: the library keeps the tree and each snapshot's configuration; the
// disks go on in delta files, and memory is a file beside the .vmx.

func init() {
	handlers["VirtualMachine.CreateSnapshot_Task"] = serially(createSnapshot)
	handlers["VirtualMachine.RevertToCurrentSnapshot_Task"] = serially(revertToCurrent)
	handlers["VirtualMachine.RemoveAllSnapshots_Task"] = serially(removeAllSnapshots)
	handlers["VirtualMachineSnapshot.RevertToSnapshot_Task"] = ofSnapshot(func(c *call, vm *simulator.VirtualMachine, s *simulator.VirtualMachineSnapshot) types.BaseMethodFault {
		return c.lab.revert(c, vm, s)
	})
	handlers["VirtualMachineSnapshot.RemoveSnapshot_Task"] = ofSnapshot(removeSnapshot)
	handlers["VirtualMachineSnapshot.RenameSnapshot"] = ofSnapshot(renameSnapshot)
}

// ofSnapshot runs a snapshot's handler in the turn of its VM.
func ofSnapshot(f func(*call, *simulator.VirtualMachine, *simulator.VirtualMachineSnapshot) types.BaseMethodFault) handler {
	return func(c *call) (interface{}, types.BaseMethodFault) {
		s := simulator.Map.Get(c.method.This).(*simulator.VirtualMachineSnapshot)
		m := c.lab.machines.get(s.Vm)
		m.turn.Lock()
		defer m.turn.Unlock()
		vm := findVM(s.Vm)
		if vm == nil || simulator.Map.Get(c.method.This) == nil {
			return nil, &types.ManagedObjectNotFound{Obj: c.method.This}
		}
		return nil, f(c, vm, s)
	}
}

func memoryFile(vm *simulator.VirtualMachine, snapshot types.ManagedObjectReference) string {
	vmx, _ := resolve(vm.Config.Files.VmPathName) // it has one since it was made
	return filepath.Join(filepath.Dir(vmx), snapshot.Value+".vmem")
}

func createSnapshot(c *call, vm *simulator.VirtualMachine) (interface{}, types.BaseMethodFault) {
	l, r := c.lab, c.method.Body.(*types.CreateSnapshot_Task)
	if vm.Snapshot != nil && depth(vm.Snapshot.RootSnapshotList) >= 32 {
		return nil, &types.SnapshotFault{}
	}
	result, fault := l.libraryTask(c)
	if fault != nil {
		return nil, fault
	}
	ref := result.(types.ManagedObjectReference)
	memory := ""
	if r.Memory && vm.Runtime.PowerState != poweredOff {
		memory = memoryFile(vm, ref)
	}
	disks, err := l.divert(vm, memory)
	if err != nil {
		l.logf("snapshot of %s: %v", vm.Name, err)
		body := &types.RemoveSnapshot_Task{This: ref}
		_, _ = l.libraryTask(c.with(ref, "RemoveSnapshot_Task", body))
		return nil, &types.SnapshotFault{}
	}
	l.world.Lock()
	defer l.world.Unlock()
	state := poweredOff
	if memory != "" {
		state = poweredOn
	}
	tree := copyTree(vm.Snapshot.RootSnapshotList, func(t *types.VirtualMachineSnapshotTree) {
		if t.Snapshot == ref {
			t.State = state
		}
	})
	simulator.Map.Update(vm, []types.PropertyChange{{Name: "snapshot.rootSnapshotList", Val: tree}})
	l.commit(vm, &plan{devices: replaceDisks(vm.Config.Hardware.Device, disks)})
	l.configChanged(vm)
	l.persist(vm)
	return ref, nil
}

func revertToCurrent(c *call, vm *simulator.VirtualMachine) (interface{}, types.BaseMethodFault) {
	if vm.Snapshot == nil || vm.Snapshot.CurrentSnapshot == nil {
		return nil, &types.NotFound{}
	}
	return nil, c.lab.revert(c, vm, simulator.Map.Get(*vm.Snapshot.CurrentSnapshot).(*simulator.VirtualMachineSnapshot))
}

// revert throws the present away: the VM has the snapshot's configuration and
// disks again, and runs if its memory was saved.
func (l *Lab) revert(c *call, vm *simulator.VirtualMachine, s *simulator.VirtualMachineSnapshot) types.BaseMethodFault {
	if vm.Runtime.PowerState != poweredOff {
		if _, fault := powerOff(c, vm); fault != nil {
			return fault
		}
	}
	disks, err := l.deltas(disksOf(s.Config.Hardware.Device))
	if err != nil {
		l.logf("revert %s: %v", vm.Name, err)
		return &types.SnapshotFault{}
	}
	for _, disk := range disksOf(vm.Config.Hardware.Device) {
		if !l.frozenBySnapshot(vm, diskFileName(disk)) && deltaNumber.MatchString(strings.TrimSuffix(diskFileName(disk), ".vmdk")) {
			removeDelta(disk, disks)
		}
	}
	l.world.Lock()
	config := s.Config
	vm.Config = &config
	simulator.Map.Update(vm, append(inPlace(vm), types.PropertyChange{Name: "snapshot.currentSnapshot", Val: s.Self}))
	l.commit(vm, &plan{devices: replaceDisks(config.Hardware.Device, disks)})
	l.configChanged(vm, types.PropertyChange{Name: "config.extraConfig", Val: config.ExtraConfig})
	l.persist(vm)
	l.world.Unlock()
	suppress := false
	if r, ok := c.method.Body.(*types.RevertToSnapshot_Task); ok {
		suppress = r.SuppressPowerOn != nil && *r.SuppressPowerOn
	}
	if _, err := os.Stat(memoryFile(vm, s.Self)); err != nil || suppress {
		return nil
	}
	return l.resume(c, vm, memoryFile(vm, s.Self))
}

// frozenBySnapshot says whether a snapshot of the VM has this file as a disk.
func (l *Lab) frozenBySnapshot(vm *simulator.VirtualMachine, name string) bool {
	found := false
	if vm.Snapshot == nil {
		return false
	}
	copyTree(vm.Snapshot.RootSnapshotList, func(t *types.VirtualMachineSnapshotTree) {
		if s, ok := simulator.Map.Get(t.Snapshot).(*simulator.VirtualMachineSnapshot); ok {
			for _, disk := range disksOf(s.Config.Hardware.Device) {
				found = found || diskFileName(disk) == name
			}
		}
	})
	return found
}

func removeSnapshot(c *call, vm *simulator.VirtualMachine, s *simulator.VirtualMachineSnapshot) types.BaseMethodFault {
	var going []types.ManagedObjectReference
	copyTree(vm.Snapshot.RootSnapshotList, func(t *types.VirtualMachineSnapshotTree) {
		if t.Snapshot == s.Self {
			going = append(going, t.Snapshot)
			if c.method.Body.(*types.RemoveSnapshot_Task).RemoveChildren {
				copyTree(t.ChildSnapshotList, func(child *types.VirtualMachineSnapshotTree) { going = append(going, child.Snapshot) })
			}
		}
	})
	return c.lab.dropSnapshots(c, vm, going)
}

func removeAllSnapshots(c *call, vm *simulator.VirtualMachine) (interface{}, types.BaseMethodFault) {
	if vm.Snapshot == nil {
		return nil, nil
	}
	var going []types.ManagedObjectReference
	copyTree(vm.Snapshot.RootSnapshotList, func(t *types.VirtualMachineSnapshotTree) { going = append(going, t.Snapshot) })
	return nil, c.lab.dropSnapshots(c, vm, going)
}

// dropSnapshots removes snapshots, and merges what no snapshot holds any more.
func (l *Lab) dropSnapshots(c *call, vm *simulator.VirtualMachine, going []types.ManagedObjectReference) types.BaseMethodFault {
	held := map[string]bool{}
	var deltas []string
	for _, ref := range going {
		s, ok := simulator.Map.Get(ref).(*simulator.VirtualMachineSnapshot)
		if !ok {
			continue
		}
		for _, disk := range disksOf(s.Config.Hardware.Device) {
			held[diskFileName(disk)] = true
			deltas = append(deltas, diskFileName(disk))
		}
		os.Remove(memoryFile(vm, ref))
	}
	for i := len(going) - 1; i >= 0; i-- { // children first
		body := &types.RemoveSnapshot_Task{This: going[i]}
		if _, fault := l.libraryTask(c.with(going[i], "RemoveSnapshot_Task", body)); fault != nil {
			return fault
		}
	}
	if err := l.consolidate(vm, held); err != nil {
		l.logf("consolidating %s: %v", vm.Name, err)
		return &types.SnapshotFault{}
	}
	l.removeUnused(vm, deltas)
	return nil
}

func renameSnapshot(c *call, vm *simulator.VirtualMachine, s *simulator.VirtualMachineSnapshot) types.BaseMethodFault {
	r := c.method.Body.(*types.RenameSnapshot)
	c.lab.world.Lock()
	defer c.lab.world.Unlock()
	tree := copyTree(vm.Snapshot.RootSnapshotList, func(t *types.VirtualMachineSnapshotTree) {
		if t.Snapshot == s.Self {
			if r.Name != "" {
				t.Name = r.Name
			}
			if r.Description != "" {
				t.Description = r.Description
			}
		}
	})
	simulator.Map.Update(vm, []types.PropertyChange{{Name: "snapshot.rootSnapshotList", Val: tree}})
	return nil
}
