package main

import (
	"strings"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

func init() {
	handlers["Folder.CreateVM_Task"] = func(c *call) (interface{}, types.BaseMethodFault) {
		r := c.method.Body.(*types.CreateVM_Task)
		return c.lab.createVM(c, r.This, &r.Config, r.Pool, r.Host)
	}
	handlers["VirtualApp.CreateChildVM_Task"] = createChildVM
	handlers["ResourcePool.CreateChildVM_Task"] = createChildVM
}

// createChildVM makes a VM in a pool; its folder is the vApp's, or the datacenter's.
func createChildVM(c *call) (interface{}, types.BaseMethodFault) {
	r := c.method.Body.(*types.CreateChildVM_Task)
	folder, fault := c.lab.childFolder(r.This)
	if fault != nil {
		return nil, fault
	}
	return c.lab.createVM(c, folder, &r.Config, r.This, r.Host)
}

func (l *Lab) childFolder(pool types.ManagedObjectReference) (types.ManagedObjectReference, types.BaseMethodFault) {
	l.world.RLock()
	defer l.world.RUnlock()
	return childFolderHeld(pool)
}

// childFolderHeld is childFolder for a caller that holds the world.
func childFolderHeld(pool types.ManagedObjectReference) (types.ManagedObjectReference, types.BaseMethodFault) {
	if app, ok := simulator.Map.Get(pool).(*simulator.VirtualApp); ok && app.ParentFolder != nil {
		return *app.ParentFolder, nil
	}
	for at := pool; ; {
		e, ok := simulator.Map.Get(at).(mo.Entity)
		if !ok || e.Entity().Parent == nil {
			return at, &types.InvalidArgument{InvalidProperty: "pool"}
		}
		at = *e.Entity().Parent
		if dc, ok := simulator.Map.Get(at).(*simulator.Datacenter); ok {
			return dc.VmFolder, nil
		}
	}
}

// createVM lets the library make a VM with the devices that every VM has, and
// gives it those of the spec. It exists completely or not at all.
func (l *Lab) createVM(c *call, folder types.ManagedObjectReference, spec *types.VirtualMachineConfigSpec,
	pool types.ManagedObjectReference, host *types.ManagedObjectReference) (interface{}, types.BaseMethodFault) {
	devices, options := spec.DeviceChange, spec.ExtraConfig
	spec.DeviceChange, spec.ExtraConfig = nil, nil
	made, fault := l.createBare(c, folder, spec, pool, host)
	if fault != nil {
		return nil, fault
	}
	vm := findVM(made)
	m := l.machines.get(made)
	m.turn.Lock()
	defer m.turn.Unlock()
	l.world.RLock()
	p, fault := l.planDevices(vm, devices)
	l.world.RUnlock()
	if fault == nil {
		fault = l.realize(p)
	}
	if fault != nil {
		l.discard(vm)
		return nil, fault
	}
	l.world.Lock()
	defer l.world.Unlock()
	l.commit(vm, p)
	l.configChanged(vm, types.PropertyChange{Name: "config.extraConfig", Val: mergeExtra(vm.Config.ExtraConfig, options)})
	l.persist(vm)
	return made, nil
}

// createBare checks the name, which is unique in its folder, and creates, in one step.
func (l *Lab) createBare(c *call, folder types.ManagedObjectReference, spec *types.VirtualMachineConfigSpec,
	pool types.ManagedObjectReference, host *types.ManagedObjectReference) (types.ManagedObjectReference, types.BaseMethodFault) {
	l.world.Lock()
	defer l.world.Unlock()
	var none types.ManagedObjectReference
	if fault := checkSpec(folder, spec); fault != nil {
		return none, fault
	}
	for _, id := range []*string{&spec.Uuid, &spec.InstanceUuid} {
		if *id == "" { // the library's are made from the path: a second VM there would be the first
			*id = uuid.New().String()
		}
	}
	result, fault := l.libraryTaskHeld(c.with(folder, "CreateVM_Task",
		&types.CreateVM_Task{This: folder, Config: *spec, Pool: pool, Host: host}))
	if fault != nil {
		return none, fault
	}
	return result.(types.ManagedObjectReference), nil
}

func checkSpec(folder types.ManagedObjectReference, spec *types.VirtualMachineConfigSpec) types.BaseMethodFault {
	if spec.Name == "" {
		return &types.InvalidName{Name: spec.Name}
	}
	if other := inFolder(folder, spec.Name); other != nil {
		return &types.DuplicateName{Name: spec.Name, Object: *other}
	}
	if spec.Files == nil || datastoreOf(spec.Files.VmPathName) == nil {
		return &types.InvalidDatastorePath{DatastorePath: "config.files.vmPathName"}
	}
	if spec.GuestId != "" && !strings.HasSuffix(spec.GuestId, "Guest") && !strings.HasSuffix(spec.GuestId, "Guest64") {
		return &types.InvalidArgument{InvalidProperty: "configSpec.guestId"}
	}
	return nil
}

func inFolder(folder types.ManagedObjectReference, name string) *types.ManagedObjectReference {
	f, ok := simulator.Map.Get(folder).(*simulator.Folder)
	if !ok {
		return nil
	}
	if e := simulator.Map.FindByName(name, f.ChildEntity); e != nil {
		ref := e.Reference()
		return &ref
	}
	return nil
}
