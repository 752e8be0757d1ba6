package main

import (
	"bytes"
	"os"
	"path"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
	"github.com/vmware/govmomi/vim25/xml"
)

// A VM's configuration is in its .vmx after every change of it, so that a VM
// that was unregistered comes back as it was, under a new reference. (The
// format is the API's XML: nobody but the lab reads these files.)

func init() {
	handlers["Folder.RegisterVM_Task"] = func(c *call) (interface{}, types.BaseMethodFault) {
		r := c.method.Body.(*types.RegisterVM_Task)
		if r.Pool == nil {
			return nil, &types.InvalidArgument{InvalidProperty: "pool"}
		}
		return c.lab.register(c, r.This, r.Path, r.Name, *r.Pool, r.Host)
	}
	handlers["VirtualApp.RegisterChildVM_Task"] = registerChildVM
	handlers["ResourcePool.RegisterChildVM_Task"] = registerChildVM
}

func registerChildVM(c *call) (interface{}, types.BaseMethodFault) {
	r := c.method.Body.(*types.RegisterChildVM_Task)
	folder, fault := c.lab.childFolder(r.This)
	if fault != nil {
		return nil, fault
	}
	return c.lab.register(c, folder, r.Path, r.Name, r.This, r.Host)
}

type savedVM struct {
	XMLName xml.Name                       `xml:"vm"`
	Config  types.VirtualMachineConfigInfo `xml:"config"`
}

// persist writes the configuration into the .vmx; the caller holds the world.
func (l *Lab) persist(vm *simulator.VirtualMachine) {
	file, fault := resolve(vm.Config.Files.VmPathName)
	if fault != nil {
		return
	}
	var out bytes.Buffer
	if err := xml.NewEncoder(&out).Encode(&savedVM{Config: *vm.Config}); err != nil {
		l.logf("%s: %v", vm.Name, err)
		return
	}
	if err := os.WriteFile(file+".new", out.Bytes(), 0600); err != nil {
		l.logf("%s: %v", vm.Name, err)
		return
	}
	if err := os.Rename(file+".new", file); err != nil {
		l.logf("%s: %v", vm.Name, err)
	}
}

func readVMX(name string) (*types.VirtualMachineConfigInfo, types.BaseMethodFault) {
	file, fault := resolve(name)
	if fault != nil {
		return nil, fault
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, &types.NotFound{}
	}
	decoder := xml.NewDecoder(bytes.NewReader(text))
	decoder.TypeFunc = decodeType
	var saved savedVM
	if err := decoder.Decode(&saved); err != nil {
		return nil, &types.InvalidVmConfig{Property: name}
	}
	return &saved.Config, nil
}

func (l *Lab) register(c *call, folder types.ManagedObjectReference, vmx, name string,
	pool types.ManagedObjectReference, host *types.ManagedObjectReference) (interface{}, types.BaseMethodFault) {
	config, fault := readVMX(vmx)
	if fault != nil {
		return nil, fault
	}
	if name == "" {
		name = config.Name
	}
	l.world.Lock()
	defer l.world.Unlock()
	if other := inFolder(folder, name); other != nil {
		return nil, &types.DuplicateName{Name: name, Object: *other}
	}
	if other := registered(vmx); other != nil {
		return nil, &types.AlreadyExists{Name: other.Self.Value}
	}
	result, fault := l.libraryTaskHeld(c.with(folder, "RegisterVM_Task",
		&types.RegisterVM_Task{This: folder, Path: vmx, Name: name, Pool: &pool, Host: host}))
	if fault != nil {
		return nil, fault
	}
	ref := result.(types.ManagedObjectReference)
	vm := findVM(ref)
	config.Name = name
	var p object.DatastorePath
	p.FromString(vmx)
	home := (&object.DatastorePath{Datastore: p.Datastore, Path: path.Dir(p.Path)}).String()
	config.Files = types.VirtualMachineFileInfo{VmPathName: vmx, SnapshotDirectory: home, SuspendDirectory: home, LogDirectory: home}
	vm.Config = config
	vm.Summary.Config.Uuid, vm.Summary.Config.InstanceUuid = config.Uuid, config.InstanceUuid
	vm.Summary.Config.NumCpu, vm.Summary.Config.MemorySizeMB = config.Hardware.NumCPU, config.Hardware.MemoryMB
	l.commit(vm, &plan{devices: config.Hardware.Device})
	l.configChanged(vm, types.PropertyChange{Name: "config.extraConfig", Val: config.ExtraConfig})
	l.event(&types.VmRegisteredEvent{VmEvent: vmEvent(vm)})
	return ref, nil
}

func registered(vmx string) *simulator.VirtualMachine {
	for _, e := range simulator.Map.All("VirtualMachine") {
		if vm := e.(*simulator.VirtualMachine); vm.Config != nil && vm.Config.Files.VmPathName == vmx {
			return vm
		}
	}
	return nil
}
