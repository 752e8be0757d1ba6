package main

import (
	"reflect"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// Which privilege a call needs, on which object (vSphere's documentation of
// the methods, "Required Privileges").

type need struct {
	privilege string
	entity    types.ManagedObjectReference
}

// onTarget are the methods that need one privilege on the object they are called on.
var onTarget = map[string]string{
	"VirtualMachine.PowerOnVM_Task":                "VirtualMachine.Interact.PowerOn",
	"VirtualMachine.PowerOffVM_Task":               "VirtualMachine.Interact.PowerOff",
	"VirtualMachine.TerminateVM":                   "VirtualMachine.Interact.PowerOff",
	"VirtualMachine.ShutdownGuest":                 "VirtualMachine.Interact.PowerOff",
	"VirtualMachine.ResetVM_Task":                  "VirtualMachine.Interact.Reset",
	"VirtualMachine.RebootGuest":                   "VirtualMachine.Interact.Reset",
	"VirtualMachine.SuspendVM_Task":                "VirtualMachine.Interact.Suspend",
	"VirtualMachine.Rename_Task":                   "VirtualMachine.Config.Rename",
	"VirtualMachine.Destroy_Task":                  "VirtualMachine.Inventory.Delete",
	"VirtualMachine.UnregisterVM":                  "VirtualMachine.Inventory.Unregister",
	"VirtualMachine.CreateSnapshot_Task":           "VirtualMachine.State.CreateSnapshot",
	"VirtualMachine.RevertToCurrentSnapshot_Task":  "VirtualMachine.State.RevertToSnapshot",
	"VirtualMachine.RemoveAllSnapshots_Task":       "VirtualMachine.State.RemoveSnapshot",
	"VirtualMachineSnapshot.RevertToSnapshot_Task": "VirtualMachine.State.RevertToSnapshot",
	"VirtualMachineSnapshot.RemoveSnapshot_Task":   "VirtualMachine.State.RemoveSnapshot",
	"VirtualMachineSnapshot.RenameSnapshot":        "VirtualMachine.State.RenameSnapshot",
	"VirtualMachine.MigrateVM_Task":                "Resource.HotMigrate",
	"VirtualMachine.RelocateVM_Task":               "Resource.ColdMigrate",
	"Folder.CreateFolder":                          "Folder.Create",
	"Folder.Destroy_Task":                          "Folder.Delete",
	"Folder.Rename_Task":                           "Folder.Rename",
	"Folder.RegisterVM_Task":                       "VirtualMachine.Inventory.Register",
	"ResourcePool.CreateResourcePool":              "Resource.CreatePool",
	"ResourcePool.UpdateConfig":                    "Resource.EditPool",
	"ResourcePool.Destroy_Task":                    "Resource.DeletePool",
	"ResourcePool.CreateVApp":                      "VApp.Create",
	"VirtualApp.Destroy_Task":                      "VApp.Delete",
	"VirtualApp.CreateChildVM_Task":                "VApp.AssignVM",
	"VirtualApp.RegisterChildVM_Task":              "VApp.AssignVM",
	"DistributedVirtualPortgroup.Destroy_Task":     "DVPortgroup.Delete",

	"DistributedVirtualPortgroup.ReconfigureDVPortgroup_Task": "DVPortgroup.Modify",
	"DistributedVirtualSwitch.AddDVPortgroup_Task":            "DVPortgroup.Create",
	"VmwareDistributedVirtualSwitch.AddDVPortgroup_Task":      "DVPortgroup.Create",
}

// onRoot are the methods of managers that need a privilege on the root folder.
var onRoot = map[string]string{
	"AuthorizationManager.AddAuthorizationRole":    "Authorization.ModifyRoles",
	"AuthorizationManager.UpdateAuthorizationRole": "Authorization.ModifyRoles",
	"AuthorizationManager.RemoveAuthorizationRole": "Authorization.ModifyRoles",
	"AuthorizationManager.DisableMethods":          "Global.DisableMethods",
	"AuthorizationManager.EnableMethods":           "Global.EnableMethods",
	"SessionManager.TerminateSession":              "Sessions.TerminateSession",
	"OptionManager.UpdateOptions":                  "Global.Settings",
	"HostFirewallSystem.EnableRuleset":             "Host.Config.NetService",
	"HostFirewallSystem.DisableRuleset":            "Host.Config.NetService",
	"HostNetworkSystem.AddPortGroup":               "Host.Config.Network",
	"HostNetworkSystem.RemovePortGroup":            "Host.Config.Network",
	"Task.CancelTask":                              "Global.CancelTask",
}

// needs are the privileges of a call; the caller holds the world.
func needs(c *call) []need {
	target := c.method.This
	if s, ok := simulator.Map.Get(target).(*simulator.VirtualMachineSnapshot); ok {
		target = s.Vm
	}
	var all []need
	want := func(privilege string, entity types.ManagedObjectReference) {
		all = append(all, need{privilege, entity})
	}
	if p := onTarget[c.key()]; p != "" {
		want(p, target)
	}
	if p := onRoot[c.key()]; p != "" {
		want(p, c.lab.rootFolder())
	}
	switch r := c.method.Body.(type) {
	case *types.CreateVM_Task:
		want("VirtualMachine.Inventory.Create", target)
		want("Resource.AssignVMToPool", r.Pool)
		specNeeds(nil, &r.Config, want)
	case *types.CreateChildVM_Task:
		if folder, fault := childFolderHeld(r.This); fault == nil {
			want("VirtualMachine.Inventory.Create", folder)
		}
		specNeeds(nil, &r.Config, want)
	case *types.RegisterVM_Task:
		if r.Pool != nil {
			want("Resource.AssignVMToPool", *r.Pool)
		}
	case *types.ReconfigVM_Task:
		specNeeds(&target, &r.Spec, want)
	case *types.CloneVM_Task:
		want("VirtualMachine.Provisioning.Clone", target)
		want("VirtualMachine.Inventory.CreateFromExisting", r.Folder)
	case *types.InstantClone_Task:
		want("VirtualMachine.Provisioning.Clone", target)
	case *types.MoveIntoFolder_Task:
		for _, ref := range r.List {
			if ref.Type == "VirtualMachine" {
				want("VirtualMachine.Inventory.Move", ref)
			} else {
				want("Folder.Move", ref)
			}
		}
	case *types.SetEntityPermissions:
		want("Authorization.ModifyPermissions", r.Entity)
	case *types.SearchDatastore_Task, *types.SearchDatastoreSubFolders_Task:
		pathNeeds(c.method.Body, "Datastore.Browse", want)
	default:
		if target.Type == "FileManager" || target.Type == "VirtualDiskManager" && !strings.HasPrefix(c.method.Name, "Query") {
			pathNeeds(c.method.Body, "Datastore.FileManagement", want)
		}
	}
	return all
}

// pathNeeds wants a privilege on every datastore that a request names.
func pathNeeds(body types.AnyType, privilege string, want func(string, types.ManagedObjectReference)) {
	value := reflect.ValueOf(body).Elem()
	for i := 0; i < value.NumField(); i++ {
		if f := value.Field(i); f.Kind() == reflect.String {
			if ds := datastoreOf(f.String()); ds != nil {
				want(privilege, ds.Self)
			}
		}
	}
}

// specNeeds are the privileges of a VM's configuration: on the VM when it
// exists, and on what it comes to use.
func specNeeds(vm *types.ManagedObjectReference, spec *types.VirtualMachineConfigSpec, want func(string, types.ManagedObjectReference)) {
	onVM := func(privilege string, asked bool) {
		if asked && vm != nil {
			want(privilege, *vm)
		}
	}
	onVM("VirtualMachine.Config.Rename", spec.Name != "")
	onVM("VirtualMachine.Config.AdvancedConfig", len(spec.ExtraConfig) > 0)
	onVM("VirtualMachine.Config.Memory", spec.MemoryMB != 0)
	onVM("VirtualMachine.Config.CPUCount", spec.NumCPUs != 0)
	onVM("VirtualMachine.Config.Annotation", spec.Annotation != "")
	onVM("VirtualMachine.Config.Resource", spec.CpuAllocation != nil || spec.MemoryAllocation != nil)
	if vm == nil && spec.Files != nil {
		if ds := datastoreOf(spec.Files.VmPathName); ds != nil {
			want("Datastore.AllocateSpace", ds.Self)
		}
	}
	for _, change := range spec.DeviceChange {
		s := change.GetVirtualDeviceConfigSpec()
		add, remove := s.Operation == types.VirtualDeviceConfigSpecOperationAdd, s.Operation == types.VirtualDeviceConfigSpecOperationRemove
		switch d := s.Device.(type) {
		case *types.VirtualDisk:
			onVM("VirtualMachine.Config.AddNewDisk", add && s.FileOperation != "")
			onVM("VirtualMachine.Config.AddExistingDisk", add && s.FileOperation == "")
			onVM("VirtualMachine.Config.RemoveDisk", remove)
			if ds := datastoreOf(diskFileName(d)); ds != nil && add && s.FileOperation != "" {
				want("Datastore.AllocateSpace", ds.Self)
			}
		case types.BaseVirtualEthernetCard:
			onVM("VirtualMachine.Config.AddRemoveDevice", add || remove)
			if network := networkOf(d.GetVirtualEthernetCard()); network != nil && !remove {
				want("Network.Assign", *network)
			}
		default:
			onVM("VirtualMachine.Config.AddRemoveDevice", add || remove)
		}
		onVM("VirtualMachine.Config.EditDevice", !add && !remove)
	}
}
