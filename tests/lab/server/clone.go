package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// Clones, full, linked and instant. The library's own clone takes the source's
// disks apart and is never called.

func init() {
	handlers["VirtualMachine.CloneVM_Task"] = serially(cloneVM)
	handlers["VirtualMachine.InstantClone_Task"] = serially(instantClone)
}

// cloning is one clone on its way.
type cloning struct {
	source   *simulator.VirtualMachine
	config   *types.VirtualMachineConfigInfo // what is cloned: the present, or a snapshot
	name     string
	folder   types.ManagedObjectReference
	location types.VirtualMachineRelocateSpec
	extra    []types.BaseOptionValue
	changes  []types.BaseVirtualDeviceConfigSpec
	uuid     string
	// disk makes the file of a cloned disk
	disk func(from *types.VirtualDisk, file string) error
}

func cloneVM(c *call, vm *simulator.VirtualMachine) (interface{}, types.BaseMethodFault) {
	l, r := c.lab, c.method.Body.(*types.CloneVM_Task)
	x := &cloning{source: vm, config: vm.Config, name: r.Name, folder: r.Folder, location: r.Spec.Location}
	if r.Spec.Snapshot != nil {
		s, ok := simulator.Map.Get(*r.Spec.Snapshot).(*simulator.VirtualMachineSnapshot)
		if !ok || s.Vm != vm.Self {
			return nil, &types.InvalidArgument{InvalidProperty: "spec.snapshot"}
		}
		x.config = &s.Config
	}
	if r.Spec.Config != nil {
		x.extra, x.changes, x.uuid = r.Spec.Config.ExtraConfig, r.Spec.Config.DeviceChange, r.Spec.Config.Uuid
	}
	x.changes = append(append([]types.BaseVirtualDeviceConfigSpec(nil), r.Spec.Location.DeviceChange...), x.changes...)
	running := vm.Runtime.PowerState != poweredOff && r.Spec.Snapshot == nil
	switch types.VirtualMachineRelocateDiskMoveOptions(r.Spec.Location.DiskMoveType) {
	case "", types.VirtualMachineRelocateDiskMoveOptionsMoveAllDiskBackingsAndAllowSharing,
		types.VirtualMachineRelocateDiskMoveOptionsMoveAllDiskBackingsAndDisallowSharing:
		x.disk = func(from *types.VirtualDisk, file string) error { return l.diskCopy(from, file) }
	case types.VirtualMachineRelocateDiskMoveOptionsCreateNewChildDiskBacking:
		if running {
			return nil, &types.InvalidArgument{InvalidProperty: "spec.snapshot"} // a child's parent must not change
		}
		x.disk = func(from *types.VirtualDisk, file string) error { return l.diskChild(from, file) }
	default:
		return nil, &types.NotSupported{}
	}
	var made *simulator.VirtualMachine
	var fault types.BaseMethodFault
	work := func() error {
		made, fault = l.clone(c, x)
		return nil
	}
	if q := l.machines.get(vm.Self).process(); q != nil && running {
		if err := q.frozen(func() ([]*types.VirtualDisk, error) { return disksOf(vm.Config.Hardware.Device), work() }); err != nil {
			return nil, &types.SystemError{Reason: err.Error()}
		}
	} else if err := work(); err != nil {
		return nil, &types.SystemError{Reason: err.Error()}
	}
	if fault != nil {
		return nil, fault
	}
	if r.Spec.PowerOn {
		body := &types.PowerOnVM_Task{This: made.Self}
		if _, fault := handlers["VirtualMachine.PowerOnVM_Task"](c.with(made.Self, "PowerOnVM_Task", body)); fault != nil {
			return nil, fault
		}
	}
	return made.Self, nil
}

// instantClone makes a running VM of a running VM: both go on from the same
// memory, each on its own child of the same disks.
func instantClone(c *call, vm *simulator.VirtualMachine) (interface{}, types.BaseMethodFault) {
	if fault := requirePower(vm, poweredOn); fault != nil {
		return nil, fault
	}
	l, spec := c.lab, c.method.Body.(*types.InstantClone_Task).Spec
	x := &cloning{source: vm, config: vm.Config, name: spec.Name, folder: *vm.Parent, location: spec.Location,
		extra: spec.Config, changes: spec.Location.DeviceChange, uuid: spec.BiosUuid}
	if spec.Location.Folder != nil {
		x.folder = *spec.Location.Folder
	}
	x.disk = func(from *types.VirtualDisk, file string) error { return l.diskChild(from, file) }
	memory := filepath.Join(l.run.path, c.task.object.Self.Value+".vmem")
	defer os.Remove(memory)
	diverted, err := l.divert(vm, memory)
	if err != nil {
		l.logf("instant clone of %s: %v", vm.Name, err)
		return nil, &types.SystemError{Reason: err.Error()}
	}
	frozen := *vm.Config
	x.config = &frozen
	l.world.Lock()
	l.commit(vm, &plan{devices: replaceDisks(vm.Config.Hardware.Device, diverted)})
	l.configChanged(vm)
	l.persist(vm)
	l.world.Unlock()
	made, fault := l.clone(c, x)
	if fault != nil {
		return nil, fault
	}
	m := l.machines.get(made.Self)
	m.turn.Lock()
	defer m.turn.Unlock()
	if fault := l.resume(c, made, memory); fault != nil {
		return nil, fault
	}
	return made.Self, nil
}

// clone makes the VM, off, with copies of the source's devices. It exists
// completely or not at all.
func (l *Lab) clone(c *call, x *cloning) (*simulator.VirtualMachine, types.BaseMethodFault) {
	pool := x.location.Pool
	if pool == nil {
		pool = x.source.ResourcePool
	}
	store := datastoreOf(x.config.Files.VmPathName).Name
	if x.location.Datastore != nil {
		store = nameOf(*x.location.Datastore)
	}
	spec := &types.VirtualMachineConfigSpec{
		Name: x.name, GuestId: x.config.GuestId, Uuid: x.uuid,
		NumCPUs: x.config.Hardware.NumCPU, MemoryMB: int64(x.config.Hardware.MemoryMB), Annotation: x.config.Annotation,
		Files:       &types.VirtualMachineFileInfo{VmPathName: (&object.DatastorePath{Datastore: store}).String()},
		ExtraConfig: mergeExtra(x.config.ExtraConfig, x.extra),
	}
	var disks []*types.VirtualDisk
	for _, device := range x.config.Hardware.Device {
		if disk, ok := device.(*types.VirtualDisk); ok {
			disks = append(disks, disk)
		} else if copied := cloneDevice(device); copied != nil {
			spec.DeviceChange = append(spec.DeviceChange, &types.VirtualDeviceConfigSpec{
				Operation: types.VirtualDeviceConfigSpecOperationAdd, Device: copied})
		}
	}
	ref, fault := l.createVM(c, x.folder, spec, *pool, x.location.Host)
	if fault != nil {
		return nil, fault
	}
	made := findVM(ref.(types.ManagedObjectReference))
	m := l.machines.get(made.Self)
	m.turn.Lock()
	defer m.turn.Unlock()
	if fault := l.cloneDisks(made, x, disks); fault != nil {
		l.discard(made)
		return nil, fault
	}
	l.world.Lock()
	l.event(&types.VmClonedEvent{VmCloneEvent: types.VmCloneEvent{VmEvent: vmEvent(made)},
		SourceVm: types.VmEventArgument{EntityEventArgument: types.EntityEventArgument{Name: x.source.Name}, Vm: x.source.Self}})
	l.world.Unlock()
	return made, nil
}

// cloneDevice copies what a clone has of its own; nil for what every VM has anyway.
func cloneDevice(device types.BaseVirtualDevice) types.BaseVirtualDevice {
	switch device.(type) {
	case types.BaseVirtualSCSIController, types.BaseVirtualSATAController, *types.VirtualCdrom, *types.VirtualSerialPort:
		return copyDevice(device)
	case types.BaseVirtualEthernetCard:
		copied := copyDevice(device)
		card := copied.(types.BaseVirtualEthernetCard).GetVirtualEthernetCard()
		if card.AddressType != string(types.VirtualEthernetCardMacTypeManual) {
			card.MacAddress = ""
		}
		if b, ok := card.Backing.(*types.VirtualEthernetCardDistributedVirtualPortBackingInfo); ok {
			own := *b
			own.Port.PortKey = ""
			card.Backing = &own
		}
		return copied
	}
	return nil
}

// cloneDisks gives the clone its disks, and the device changes of the clone's spec.
func (l *Lab) cloneDisks(made *simulator.VirtualMachine, x *cloning, disks []*types.VirtualDisk) (fault types.BaseMethodFault) {
	vmx, fault := resolve(made.Config.Files.VmPathName)
	if fault != nil {
		return fault
	}
	var files []string
	defer func() {
		if fault != nil {
			for _, file := range files {
				os.Remove(file)
			}
		}
	}()
	var specs []types.BaseVirtualDeviceConfigSpec
	for i, disk := range disks {
		file := filepath.Join(filepath.Dir(vmx), made.Name+".vmdk")
		if i > 0 {
			file = filepath.Join(filepath.Dir(vmx), fmt.Sprintf("%s_%d.vmdk", made.Name, i))
		}
		files = append(files, file)
		if err := x.disk(disk, file); err != nil {
			l.logf("cloning %s: %v", diskFileName(disk), err)
			return &types.FileFault{File: diskFileName(disk)}
		}
		copied := copyDevice(disk).(*types.VirtualDisk)
		copied.Backing = &types.VirtualDiskFlatVer2BackingInfo{
			VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: datastorePath(file)},
			DiskMode:                     disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo).DiskMode,
		}
		copied.DeviceInfo = nil
		specs = append(specs, &types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationAdd, Device: copied})
	}
	l.world.RLock()
	p, fault := l.planDevices(made, append(specs, x.changes...))
	l.world.RUnlock()
	if fault != nil {
		return fault
	}
	if fault := l.realize(p); fault != nil {
		return fault
	}
	l.world.Lock()
	defer l.world.Unlock()
	l.commit(made, p)
	l.configChanged(made)
	l.persist(made)
	return nil
}

func (l *Lab) diskCopy(from *types.VirtualDisk, file string) error {
	source, fault := resolve(diskFileName(from))
	if fault == nil {
		fault = l.flatten(source, file)
	}
	if fault != nil {
		return faultError(fault)
	}
	return nil
}

func (l *Lab) diskChild(from *types.VirtualDisk, file string) error {
	parent, fault := resolve(diskFileName(from))
	if fault == nil {
		fault = l.createDisk(file, parent, 0)
	}
	if fault != nil {
		return faultError(fault)
	}
	return nil
}
