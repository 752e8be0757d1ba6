package main

import (
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// The delta files in which disks go on after a snapshot, and the tree of snapshots.

// divert lets a VM's disks go on in new delta files. With memory, a file, it
// saves the running machine's state in between.
func (l *Lab) divert(vm *simulator.VirtualMachine, memory string) ([]*types.VirtualDisk, error) {
	var diverted []*types.VirtualDisk
	work := func() ([]*types.VirtualDisk, error) {
		q := l.machines.get(vm.Self).process()
		if memory != "" && q != nil {
			if err := q.saveMemory(memory); err != nil {
				return nil, err
			}
		} else if memory != "" {
			if err := os.WriteFile(memory, nil, 0600); err != nil {
				return nil, err
			}
		}
		var err error
		diverted, err = l.deltas(disksOf(vm.Config.Hardware.Device))
		return diverted, err
	}
	var err error
	if q := l.machines.get(vm.Self).process(); q != nil {
		err = q.frozen(work)
	} else {
		_, err = work()
	}
	return diverted, err
}

// deltas makes a child for every dependent disk and returns the disks as they go on.
func (l *Lab) deltas(disks []*types.VirtualDisk) ([]*types.VirtualDisk, error) {
	var made []*types.VirtualDisk
	for _, disk := range disks {
		backing := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
		if backing.DiskMode != string(types.VirtualDiskModePersistent) {
			made = append(made, disk)
			continue
		}
		child, err := l.delta(disk)
		if err != nil {
			for _, d := range made {
				removeDelta(d, disks)
			}
			return nil, err
		}
		made = append(made, child)
	}
	return made, nil
}

func (l *Lab) delta(disk *types.VirtualDisk) (*types.VirtualDisk, error) {
	backing := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
	parent, fault := resolve(backing.FileName)
	if fault != nil {
		return nil, faultError(fault)
	}
	file := nextDelta(parent)
	if fault := l.createDisk(file, parent, 0); fault != nil {
		return nil, faultError(fault)
	}
	l.disks.set(file, l.disks.get(parent)) // for the guest it is the same disk
	child := copyDevice(disk).(*types.VirtualDisk)
	made := *backing
	made.FileName, made.Parent = datastorePath(file), backing
	child.Backing = &made
	return child, nil
}

var deltaNumber = regexp.MustCompile(`-\d{6}$`)

// nextDelta names the next delta of a disk: x.vmdk, x-000001.vmdk, …
func nextDelta(file string) string {
	base := deltaNumber.ReplaceAllString(strings.TrimSuffix(file, ".vmdk"), "")
	for n := 1; ; n++ {
		name := fmt.Sprintf("%s-%06d.vmdk", base, n)
		if _, err := os.Stat(name); err != nil {
			return name
		}
	}
}

// removeDelta deletes a disk's file unless it is one of the given disks'.
func removeDelta(disk *types.VirtualDisk, keep []*types.VirtualDisk) {
	for _, k := range keep {
		if diskFileName(k) == diskFileName(disk) {
			return
		}
	}
	if file, fault := resolve(diskFileName(disk)); fault == nil {
		os.Remove(file)
	}
}

func replaceDisks(devices []types.BaseVirtualDevice, disks []*types.VirtualDisk) []types.BaseVirtualDevice {
	replaced := append([]types.BaseVirtualDevice(nil), devices...)
	for i, device := range replaced {
		for _, disk := range disks {
			if device.GetVirtualDevice().Key == disk.Key {
				replaced[i] = disk
			}
		}
	}
	return replaced
}

// copyTree copies a snapshot tree and lets f see, and change, every node.
func copyTree(tree []types.VirtualMachineSnapshotTree, f func(*types.VirtualMachineSnapshotTree)) []types.VirtualMachineSnapshotTree {
	made := append([]types.VirtualMachineSnapshotTree(nil), tree...)
	for i := range made {
		f(&made[i])
		made[i].ChildSnapshotList = copyTree(made[i].ChildSnapshotList, f)
	}
	return made
}

func depth(tree []types.VirtualMachineSnapshotTree) int {
	deepest := 0
	for _, t := range tree {
		if d := 1 + depth(t.ChildSnapshotList); d > deepest {
			deepest = d
		}
	}
	return deepest
}
