package main

import (
	"fmt"
	"os"
	"sort"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// realize makes the files of a plan and completes the disks from what is in
// them. After a fault no file of it is left.
func (l *Lab) realize(p *plan) (fault types.BaseMethodFault) {
	for _, file := range p.replace {
		os.Remove(file)
	}
	var made []string
	defer func() {
		if fault != nil {
			for _, file := range made {
				os.Remove(file)
			}
		}
	}()
	for _, c := range p.create {
		if fault := l.createDisk(c.file, c.parent, diskBytes(c.disk)); fault != nil {
			return fault
		}
		made = append(made, c.file)
	}
	for _, device := range p.added {
		if disk, ok := device.(*types.VirtualDisk); ok {
			if fault := l.completeDisk(disk); fault != nil {
				return fault
			}
		}
	}
	return nil
}

// unrealize takes back what realize made.
func (p *plan) unrealize() {
	for _, c := range p.create {
		os.Remove(c.file)
	}
}

// completeDisk reads size and parents from the disk's file, as ESXi shows them.
func (l *Lab) completeDisk(disk *types.VirtualDisk) types.BaseMethodFault {
	backing := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
	file, fault := resolve(backing.FileName)
	if fault != nil {
		return fault
	}
	chain, fault := diskChain(file)
	if fault != nil {
		return fault
	}
	disk.CapacityInBytes, disk.CapacityInKB = chain[0].Size, chain[0].Size/1024
	disk.DeviceInfo.GetDescription().Summary = fmt.Sprintf("%d KB", disk.CapacityInKB)
	backing.Parent = nil
	for at, i := backing, 1; i < len(chain); i++ {
		at.Parent = &types.VirtualDiskFlatVer2BackingInfo{DiskMode: backing.DiskMode,
			VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: datastorePath(chain[i].Filename)}}
		at.Parent.Uuid = l.disks.get(chain[i].Filename)
		at = at.Parent
	}
	return nil
}

// commit publishes the devices of a realized plan; the caller holds the world.
func (l *Lab) commit(vm *simulator.VirtualMachine, p *plan) {
	var disks, nics int32
	var networks []types.ManagedObjectReference
	datastores := map[types.ManagedObjectReference]bool{}
	if home := datastoreOf(vm.Config.Files.VmPathName); home != nil {
		datastores[home.Self] = true
	}
	for _, device := range p.devices {
		switch d := device.(type) {
		case *types.VirtualDisk:
			disks++
			if ds := datastoreOf(diskFileName(d)); ds != nil {
				datastores[ds.Self] = true
			}
		case types.BaseVirtualEthernetCard:
			nics++
			if network := networkOf(d.GetVirtualEthernetCard()); network != nil {
				networks = append(networks, *network)
			}
		}
	}
	var stores []types.ManagedObjectReference
	for ref := range datastores {
		stores = append(stores, ref)
	}
	sort.Slice(stores, func(i, j int) bool { return stores[i].Value < stores[j].Value })
	simulator.Map.Update(vm, []types.PropertyChange{
		{Name: "config.hardware.device", Val: p.devices},
		{Name: "summary.config.numVirtualDisks", Val: disks},
		{Name: "summary.config.numEthernetCards", Val: nics},
		{Name: "network", Val: networks},
		{Name: "datastore", Val: stores},
	})
	for _, ref := range stores {
		ds := simulator.Map.Get(ref).(*simulator.Datastore)
		if simulator.FindReference(ds.Vm, vm.Self) == nil {
			ds.Vm = append(ds.Vm, vm.Self)
		}
	}
}
