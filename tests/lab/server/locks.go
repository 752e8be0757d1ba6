package main

import (
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// Disk files are locked by powered-on VMs, as VMFS does it: the one who writes
// a file excludes all others, the parents of its chain can only be read.

func writes(backing *types.VirtualDiskFlatVer2BackingInfo) bool {
	return !strings.HasSuffix(backing.DiskMode, "nonpersistent")
}

// lockedBy is another running VM that keeps us from a file: with write from
// writing or deleting it, without from reading it. The caller holds the world.
func lockedBy(vm *simulator.VirtualMachine, name string, write bool) *simulator.VirtualMachine {
	for _, e := range simulator.Map.All("VirtualMachine") {
		other := e.(*simulator.VirtualMachine)
		if other == vm || other.Config == nil || other.Runtime.PowerState == poweredOff {
			continue
		}
		for _, device := range other.Config.Hardware.Device {
			disk, ok := device.(*types.VirtualDisk)
			if !ok {
				continue
			}
			top, _ := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
			for b := top; b != nil; b = b.Parent {
				if b.FileName == name && (write || b == top && writes(b)) {
					return other
				}
			}
		}
	}
	return nil
}

// checkLocks refuses a VM to open its disks while another has them.
func checkLocks(vm *simulator.VirtualMachine, devices []types.BaseVirtualDevice) types.BaseMethodFault {
	for _, device := range devices {
		disk, ok := device.(*types.VirtualDisk)
		if !ok {
			continue
		}
		if b, ok := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo); ok && lockedBy(vm, b.FileName, writes(b)) != nil {
			return &types.FileLocked{FileFault: types.FileFault{File: b.FileName}}
		}
	}
	return nil
}
