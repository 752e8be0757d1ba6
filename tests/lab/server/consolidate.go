package main

import (
	"errors"
	"os"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

func faultError(fault types.BaseMethodFault) error { return errors.New(faultText(fault)) }

// consolidate merges the deltas of a VM's disks into files that only removed
// snapshots held.
func (l *Lab) consolidate(vm *simulator.VirtualMachine, held map[string]bool) error {
	var merged []*types.VirtualDisk
	work := func() ([]*types.VirtualDisk, error) {
		for _, disk := range disksOf(vm.Config.Hardware.Device) {
			for {
				backing := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
				parent := backing.Parent
				if parent == nil || !held[parent.FileName] || l.frozenBySnapshot(vm, parent.FileName) || l.hasOtherChild(vm, parent.FileName) {
					break
				}
				if err := mergeDown(backing.FileName); err != nil {
					return nil, err
				}
				next := copyDevice(disk).(*types.VirtualDisk)
				next.Backing = parent
				disk = next
			}
			merged = append(merged, disk)
		}
		return merged, nil
	}
	var err error
	if q := l.machines.get(vm.Self).process(); q != nil {
		err = q.frozen(work)
	} else {
		_, err = work()
	}
	if err != nil {
		return err
	}
	l.world.Lock()
	defer l.world.Unlock()
	l.commit(vm, &plan{devices: replaceDisks(vm.Config.Hardware.Device, merged)})
	l.configChanged(vm)
	l.persist(vm)
	return nil
}

// mergeDown writes a child's content into its parent and deletes the child.
func mergeDown(name string) error {
	file, fault := resolve(name)
	if fault != nil {
		return faultError(fault)
	}
	if _, err := imageTool("commit", "-q", "-f", "vmdk", "-d", file); err != nil {
		return err
	}
	return os.Remove(file)
}

// hasOtherChild says whether a disk of another VM builds on a file.
func (l *Lab) hasOtherChild(vm *simulator.VirtualMachine, name string) bool {
	l.world.RLock()
	defer l.world.RUnlock()
	for _, e := range simulator.Map.All("VirtualMachine") {
		other := e.(*simulator.VirtualMachine)
		if other == vm {
			continue
		}
		for _, disk := range disksOf(other.Config.Hardware.Device) {
			for b, _ := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo); b != nil; b = b.Parent {
				if b.FileName == name {
					return true
				}
			}
		}
	}
	return false
}

// removeUnused deletes the deltas of removed snapshots that no chain contains.
func (l *Lab) removeUnused(vm *simulator.VirtualMachine, names []string) {
	used := map[string]bool{}
	note := func(devices []types.BaseVirtualDevice) {
		for _, disk := range disksOf(devices) {
			for b, _ := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo); b != nil; b = b.Parent {
				used[b.FileName] = true
			}
		}
	}
	note(vm.Config.Hardware.Device)
	if vm.Snapshot != nil {
		copyTree(vm.Snapshot.RootSnapshotList, func(t *types.VirtualMachineSnapshotTree) {
			if s, ok := simulator.Map.Get(t.Snapshot).(*simulator.VirtualMachineSnapshot); ok {
				note(s.Config.Hardware.Device)
			}
		})
	}
	for _, name := range names {
		if used[name] || l.hasOtherChild(vm, name) || !deltaNumber.MatchString(strings.TrimSuffix(name, ".vmdk")) {
			continue
		}
		if file, fault := resolve(name); fault == nil {
			os.Remove(file)
		}
	}
}
