package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// plan is a device change worked out in full before anything is touched: the
// new list, and what is different in it.
type plan struct {
	devices []types.BaseVirtualDevice
	added   []types.BaseVirtualDevice
	edited  []types.BaseVirtualDevice
	removed []types.BaseVirtualDevice
	create  []diskFile // in order: a child may follow its parent
	replace []string   // files to delete first
	destroy []string   // files to delete last
}

type diskFile struct {
	disk         *types.VirtualDisk
	file, parent string
}

// planDevices checks the changes of a spec against a VM's devices.
func (l *Lab) planDevices(vm *simulator.VirtualMachine, changes []types.BaseVirtualDeviceConfigSpec) (*plan, types.BaseMethodFault) {
	p := &plan{devices: append([]types.BaseVirtualDevice(nil), vm.Config.Hardware.Device...)}
	for i, change := range changes {
		spec := change.GetVirtualDeviceConfigSpec()
		invalid := &types.InvalidDeviceSpec{DeviceIndex: int32(i)}
		if spec.Device == nil {
			return nil, invalid
		}
		var fault types.BaseMethodFault
		switch spec.Operation {
		case types.VirtualDeviceConfigSpecOperationAdd:
			fault = l.planAdd(p, vm, spec, changes, invalid)
		case types.VirtualDeviceConfigSpecOperationEdit:
			fault = l.planEdit(p, spec, invalid)
		case types.VirtualDeviceConfigSpecOperationRemove:
			fault = l.planRemove(p, spec, invalid)
		default:
			fault = invalid
		}
		if fault != nil {
			return nil, fault
		}
	}
	return p, nil
}

func (p *plan) find(key int32) (int, types.BaseVirtualDevice) {
	for i, d := range p.devices {
		if d.GetVirtualDevice().Key == key {
			return i, d
		}
	}
	return -1, nil
}

func (l *Lab) planAdd(p *plan, vm *simulator.VirtualMachine, spec *types.VirtualDeviceConfigSpec,
	changes []types.BaseVirtualDeviceConfigSpec, invalid *types.InvalidDeviceSpec) types.BaseMethodFault {
	d := spec.Device.GetVirtualDevice()
	if _, ok := spec.Device.(types.BaseVirtualController); ok && d.Key > 0 {
		if _, there := p.find(d.Key); there != nil && d.ControllerKey == 0 {
			return nil // a base controller that every VM has
		}
	}
	if fault := p.place(spec.Device, invalid); fault != nil {
		return fault
	}
	old := d.Key
	d.Key = p.newKey(spec.Device)
	if old < 0 {
		for _, other := range changes { // devices that name their controller by its temporary key
			if o := other.GetVirtualDeviceConfigSpec().Device.GetVirtualDevice(); o.ControllerKey == old {
				o.ControllerKey = d.Key
			}
		}
	}
	switch device := spec.Device.(type) {
	case *types.VirtualDisk:
		if fault := l.planDisk(p, vm, spec, device, invalid); fault != nil {
			return fault
		}
	case types.BaseVirtualEthernetCard:
		if fault := l.planNIC(device.GetVirtualEthernetCard(), invalid); fault != nil {
			return fault
		}
	}
	describe(p, spec.Device)
	p.devices = append(p.devices, spec.Device)
	p.added = append(p.added, spec.Device)
	return nil
}

func (l *Lab) planEdit(p *plan, spec *types.VirtualDeviceConfigSpec, invalid *types.InvalidDeviceSpec) types.BaseMethodFault {
	d := spec.Device.GetVirtualDevice()
	i, old := p.find(d.Key)
	if old == nil {
		return invalid
	}
	before := old.GetVirtualDevice()
	if d.ControllerKey == 0 {
		d.ControllerKey = before.ControllerKey
	}
	if d.UnitNumber == nil {
		d.UnitNumber = before.UnitNumber
	}
	if d.Backing == nil {
		d.Backing = before.Backing
	}
	if d.Connectable == nil {
		d.Connectable = before.Connectable
	}
	if card, ok := spec.Device.(types.BaseVirtualEthernetCard); ok {
		c := card.GetVirtualEthernetCard()
		if c.MacAddress == "" {
			c.MacAddress = old.(types.BaseVirtualEthernetCard).GetVirtualEthernetCard().MacAddress
		}
		if fault := l.planNIC(c, invalid); fault != nil {
			return fault
		}
	}
	describe(p, spec.Device)
	p.devices[i] = spec.Device
	p.edited = append(p.edited, spec.Device)
	return nil
}

func (l *Lab) planRemove(p *plan, spec *types.VirtualDeviceConfigSpec, invalid *types.InvalidDeviceSpec) types.BaseMethodFault {
	i, old := p.find(spec.Device.GetVirtualDevice().Key)
	if old == nil {
		return invalid
	}
	for _, other := range p.devices {
		if other.GetVirtualDevice().ControllerKey == old.GetVirtualDevice().Key {
			return invalid // it still carries devices
		}
	}
	if disk, ok := old.(*types.VirtualDisk); ok && spec.FileOperation == types.VirtualDeviceConfigSpecFileOperationDestroy {
		file, fault := resolve(diskFileName(disk))
		if fault != nil {
			return fault
		}
		p.destroy = append(p.destroy, file)
	}
	p.devices = append(append([]types.BaseVirtualDevice(nil), p.devices[:i]...), p.devices[i+1:]...)
	p.removed = append(p.removed, old)
	return nil
}

// planDisk decides the disk's file: made anew, a child, or one that exists.
func (l *Lab) planDisk(p *plan, vm *simulator.VirtualMachine, spec *types.VirtualDeviceConfigSpec, disk *types.VirtualDisk, invalid *types.InvalidDeviceSpec) types.BaseMethodFault {
	backing, ok := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
	if !ok {
		return invalid
	}
	if fault := p.nameDisk(vm, backing); fault != nil {
		return fault
	}
	file, fault := resolve(backing.FileName)
	if fault != nil {
		return fault
	}
	backing.Datastore = &datastoreOf(backing.FileName).Self
	backing.Uuid = l.disks.get(file)
	if backing.ThinProvisioned == nil {
		backing.ThinProvisioned = types.NewBool(false)
	}
	if backing.DiskMode == "" {
		backing.DiskMode = string(types.VirtualDiskModePersistent)
	}
	switch spec.FileOperation {
	case types.VirtualDeviceConfigSpecFileOperationCreate, types.VirtualDeviceConfigSpecFileOperationReplace:
		made := diskFile{disk: disk, file: file}
		if spec.FileOperation == types.VirtualDeviceConfigSpecFileOperationReplace {
			p.replace = append(p.replace, file)
		} else if _, err := os.Stat(file); err == nil {
			return &types.FileAlreadyExists{FileFault: types.FileFault{File: backing.FileName}}
		}
		if backing.Parent != nil {
			if made.parent, fault = resolve(backing.Parent.FileName); fault != nil {
				return fault
			}
		} else if diskBytes(disk) <= 0 {
			return invalid
		}
		p.create = append(p.create, made)
	case "":
		if _, err := os.Stat(file); err != nil {
			return &types.FileNotFound{FileFault: types.FileFault{File: backing.FileName}}
		}
	default:
		return invalid
	}
	return nil
}

// nameDisk completes "" and "[datastore]" to a file in the VM's directory.
func (p *plan) nameDisk(vm *simulator.VirtualMachine, backing *types.VirtualDiskFlatVer2BackingInfo) types.BaseMethodFault {
	var path object.DatastorePath
	if backing.FileName != "" && !path.FromString(backing.FileName) {
		return &types.InvalidDatastorePath{DatastorePath: backing.FileName}
	}
	if strings.HasSuffix(path.Path, ".vmdk") {
		return nil
	}
	var home object.DatastorePath
	home.FromString(vm.Config.Files.VmPathName)
	if path.Datastore == "" {
		path.Datastore = home.Datastore
	}
	directory := path.Path
	if directory == "" {
		directory = filepath.Dir(home.Path)
	}
	for n := 0; ; n++ {
		name := vm.Config.Name
		if n > 0 {
			name = fmt.Sprintf("%s_%d", name, n)
		}
		path.Path = directory + "/" + name + ".vmdk"
		file, fault := resolve(path.String())
		if fault != nil {
			return fault
		}
		if _, err := os.Stat(file); err != nil && !p.creates(file) {
			backing.FileName = path.String()
			return nil
		}
	}
}

func (p *plan) creates(file string) bool {
	for _, c := range p.create {
		if c.file == file {
			return true
		}
	}
	return false
}

func diskFileName(disk *types.VirtualDisk) string {
	if b, ok := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo); ok {
		return b.FileName
	}
	return ""
}

func diskBytes(disk *types.VirtualDisk) int64 {
	if disk.CapacityInBytes != 0 {
		return disk.CapacityInBytes
	}
	return disk.CapacityInKB * 1024
}

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
