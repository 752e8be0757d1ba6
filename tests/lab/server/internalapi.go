package main

import (
	"reflect"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// Methods that vCenter has and does not document, on the wire as govmomi sends
// them (namespace urn:internalvim25).

type queryVirtualDiskInfoTask struct {
	This           types.ManagedObjectReference  `xml:"_this"`
	Name           string                        `xml:"name"`
	Datacenter     *types.ManagedObjectReference `xml:"datacenter,omitempty"`
	IncludeParents bool                          `xml:"includeParents"`
}

type disabledMethodRequest struct {
	Method string `xml:"method"`
	Reason string `xml:"reasonId"`
}

type disableMethods struct {
	This   types.ManagedObjectReference   `xml:"_this"`
	Entity []types.ManagedObjectReference `xml:"entity"`
	Method []disabledMethodRequest        `xml:"method"`
	Source string                         `xml:"sourceId"`
}

type enableMethods struct {
	This   types.ManagedObjectReference   `xml:"_this"`
	Entity []types.ManagedObjectReference `xml:"entity"`
	Method []string                       `xml:"method"`
	Source string                         `xml:"sourceId"`
}

// ArrayOfVirtualDiskInfo is named as it is on the wire.
type ArrayOfVirtualDiskInfo struct {
	VirtualDiskInfo []object.VirtualDiskInfo `xml:"VirtualDiskInfo,omitempty"`
}

func init() {
	types.Add("QueryVirtualDiskInfo_Task", reflect.TypeOf(queryVirtualDiskInfoTask{}))
	types.Add("DisableMethods", reflect.TypeOf(disableMethods{}))
	types.Add("EnableMethods", reflect.TypeOf(enableMethods{}))
	handlers["VirtualDiskManager.QueryVirtualDiskInfo_Task"] = queryVirtualDiskInfo
	handlers["AuthorizationManager.DisableMethods"] = func(c *call) (interface{}, types.BaseMethodFault) {
		r := c.method.Body.(*disableMethods)
		var names []string
		for _, m := range r.Method {
			names = append(names, m.Method)
		}
		return nil, c.lab.setDisabled(r.Entity, names)
	}
	handlers["AuthorizationManager.EnableMethods"] = func(c *call) (interface{}, types.BaseMethodFault) {
		return nil, c.lab.setDisabled(c.method.Body.(*enableMethods).Entity, nil)
	}
}

// queryVirtualDiskInfo lists a disk's parents, the eldest first, and the disk.
func queryVirtualDiskInfo(c *call) (interface{}, types.BaseMethodFault) {
	r := c.method.Body.(*queryVirtualDiskInfoTask)
	file, fault := resolve(r.Name)
	if fault != nil {
		return nil, fault
	}
	chain, fault := diskChain(file)
	if fault != nil {
		return nil, fault
	}
	var infos ArrayOfVirtualDiskInfo
	for i := len(chain) - 1; i >= 0; i-- {
		if i > 0 && !r.IncludeParents {
			continue
		}
		infos.VirtualDiskInfo = append(infos.VirtualDiskInfo, object.VirtualDiskInfo{
			Name: datastorePath(chain[i].Filename), DiskType: "thin", Parent: datastorePath(chain[i].Parent)})
	}
	return infos, nil
}

func (l *Lab) setDisabled(entities []types.ManagedObjectReference, methods []string) types.BaseMethodFault {
	l.world.Lock()
	defer l.world.Unlock()
	for _, ref := range entities {
		e, ok := simulator.Map.Get(ref).(mo.Entity)
		if !ok {
			return &types.ManagedObjectNotFound{Obj: ref}
		}
		e.Entity().DisabledMethod = methods
	}
	return nil
}
