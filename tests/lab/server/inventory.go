package main

import (
	"path/filepath"
	"strings"
	"text/template"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// buildInventory makes one datacenter with a cluster of three hosts and a
// standalone one, all with all datastores, and a distributed switch.
func (l *Lab) buildInventory() error {
	m := simulator.VPX()
	m.Machine = 0
	m.Datastore = l.datastores
	m.Portgroup = l.portgroups
	m.ServiceContent.About.ApiVersion = l.apiVersion
	l.model = m
	if err := m.Create(); err != nil {
		return err
	}
	mendEvents()
	return nil
}

// mendEvents replaces the message templates on which the library panics.
func mendEvents() {
	info := simulator.Map.EventManager().Description.EventInfo
	for i := range info {
		if _, err := template.New("").Parse(info[i].FullFormat); err != nil {
			info[i].FullFormat = info[i].Description
		}
	}
}

// description is what a client needs to reach the lab: the line printed when it is ready.
func (l *Lab) description() map[string]interface{} {
	l.world.RLock()
	defer l.world.RUnlock()
	datastores := map[string]string{}
	for _, ds := range allDatastores() {
		datastores[ds.Name] = datastoreRoot(ds)
	}
	return map[string]interface{}{
		"url":        l.server.URL.Scheme + "://" + l.server.URL.Host,
		"user":       l.user,
		"password":   l.password,
		"directory":  l.run.path,
		"datastores": datastores,
		"networks":   l.describeNetworks(),
		"qemu":       l.qemu,
	}
}

func (l *Lab) describeNetworks() map[string]string {
	bridges := map[string]string{}
	for _, e := range simulator.Map.All("DistributedVirtualPortgroup") {
		pg := e.(*simulator.DistributedVirtualPortgroup)
		if !strings.Contains(pg.Name, "DVUplinks") {
			bridges[pg.Name] = l.bridgeName(pg.Key)
		}
	}
	for _, e := range simulator.Map.All("Network") {
		if n, ok := e.(*mo.Network); ok {
			bridges[n.Name] = l.bridgeName(n.Name)
		}
	}
	return bridges
}

func allDatastores() []*simulator.Datastore {
	var all []*simulator.Datastore
	for _, e := range simulator.Map.All("Datastore") {
		all = append(all, e.(*simulator.Datastore))
	}
	return all
}

func datastoreRoot(ds *simulator.Datastore) string {
	return filepath.Clean(ds.Info.GetDatastoreInfo().Url)
}

func findVM(ref types.ManagedObjectReference) *simulator.VirtualMachine {
	vm, _ := simulator.Map.Get(ref).(*simulator.VirtualMachine)
	return vm
}
