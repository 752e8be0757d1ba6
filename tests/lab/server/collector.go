package main

import (
	"reflect"
	"strconv"
	"sync"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

// Waiting for updates is ours: the library's polls four times a second, reads
// every object of every filter for each single change, and panics when two wait.

func init() {
	handlers["PropertyCollector.WaitForUpdatesEx"] = waitForUpdatesEx
	handlers["PropertyCollector.WaitForUpdates"] = waitForUpdates
	handlers["PropertyCollector.CheckForUpdates"] = checkForUpdates
	handlers["PropertyCollector.CancelWaitForUpdates"] = cancelWaitForUpdates
	handlers["PropertyCollector.DestroyPropertyCollector"] = destroyPropertyCollector
}

var watchers sync.Map // session key + collector -> *watcher

func (c *call) watcher() *watcher {
	fresh := &watcher{wake: make(chan struct{}, 1), cancel: make(chan struct{}, 1),
		changed: map[types.ManagedObjectReference]map[string]bool{}}
	w, loaded := watchers.LoadOrStore(c.session.Key+c.method.This.Value, fresh)
	if !loaded {
		c.lab.changes.watch(fresh)
	}
	return w.(*watcher)
}

func waitForUpdatesEx(c *call) (interface{}, types.BaseMethodFault) {
	r := c.method.Body.(*types.WaitForUpdatesEx)
	limit, size := time.Duration(-1), int32(0)
	if r.Options != nil {
		size = r.Options.MaxObjectUpdates
		if r.Options.MaxWaitSeconds != nil {
			limit = time.Duration(*r.Options.MaxWaitSeconds) * time.Second
		}
	}
	set, fault := c.wait(r.Version, limit, pageSize(size))
	return &types.WaitForUpdatesExResponse{Returnval: set}, fault
}

func waitForUpdates(c *call) (interface{}, types.BaseMethodFault) {
	set, fault := c.wait(c.method.Body.(*types.WaitForUpdates).Version, -1, largestPage)
	if fault != nil {
		return nil, fault
	}
	return &types.WaitForUpdatesResponse{Returnval: *set}, nil
}

func checkForUpdates(c *call) (interface{}, types.BaseMethodFault) {
	set, fault := c.wait(c.method.Body.(*types.CheckForUpdates).Version, 0, largestPage)
	return &types.CheckForUpdatesResponse{Returnval: set}, fault
}

// wait answers with the changes since a version, nil when there is none in time.
// Version "" begins anew with everything. More than size objects are truncated;
// the next call has the rest.
func (c *call) wait(version string, limit time.Duration, size int) (*types.UpdateSet, types.BaseMethodFault) {
	w := c.watcher()
	w.turn.Lock()
	defer w.turn.Unlock()
	select {
	case <-w.cancel:
	default:
	}
	if version == "" {
		w.known, w.rest = map[types.ManagedObjectReference]map[types.ManagedObjectReference]bool{}, nil
	} else if version != strconv.Itoa(w.version) {
		return nil, new(types.InvalidCollectorVersion)
	}
	var expired <-chan time.Time
	if limit >= 0 {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		expired = timer.C
	}
	for {
		filters := w.rest
		if len(filters) == 0 {
			var fault types.BaseMethodFault
			if filters, fault = c.collect(w); fault != nil {
				return nil, fault
			}
		}
		if len(filters) > 0 || version == "" {
			w.version++
			set := &types.UpdateSet{Version: strconv.Itoa(w.version)}
			set.FilterSet, w.rest = truncate(filters, size)
			set.Truncated = types.NewBool(len(w.rest) > 0)
			return set, nil
		}
		select {
		case <-w.wake:
		case <-w.cancel:
			return nil, new(types.RequestCanceled)
		case <-c.request.Context().Done():
			return nil, new(types.RequestCanceled)
		case <-expired:
			return nil, nil
		}
		if c.lab.sessions.find(c.request) == nil {
			return nil, new(types.NotAuthenticated)
		}
	}
}

// collect makes the updates of all filters of the collector.
func (c *call) collect(w *watcher) ([]types.PropertyFilterUpdate, types.BaseMethodFault) {
	c.lab.world.RLock()
	defer c.lab.world.RUnlock()
	dirty, changed := w.take()
	var updates []types.PropertyFilterUpdate
	for _, ref := range c.filters() {
		filter, ok := c.session.Get(ref).(*simulator.PropertyFilter)
		if !ok {
			continue
		}
		update := types.PropertyFilterUpdate{Filter: ref}
		fresh := w.known[ref] == nil
		if fresh || dirty {
			objects, fault := c.retrieve(filter.Spec)
			if fault != nil {
				return nil, fault
			}
			update.ObjectSet = w.compare(ref, objects)
		}
		if !fresh {
			for object, names := range changed {
				if w.known[ref][object] && !entered(update.ObjectSet, object) {
					update.ObjectSet = append(update.ObjectSet, c.modification(filter.Spec, object, names)...)
				}
			}
		}
		if len(update.ObjectSet) > 0 {
			updates = append(updates, update)
		}
	}
	return updates, nil
}

// filters of the called collector: its "filter" property.
func (c *call) filters() []types.ManagedObjectReference {
	collector := reflect.ValueOf(c.session.Get(c.method.This)).Elem()
	filters, _ := collector.FieldByName("Filter").Interface().([]types.ManagedObjectReference)
	return filters
}

// modification shows the changed properties of one object that a filter wants.
func (c *call) modification(spec types.PropertyFilterSpec, object types.ManagedObjectReference, names map[string]bool) []types.ObjectUpdate {
	wanted := wantedPaths(spec, object, names)
	if len(wanted) == 0 {
		return nil
	}
	objects, fault := c.retrieve(types.PropertyFilterSpec{
		PropSet:   []types.PropertySpec{{Type: object.Type, PathSet: wanted}},
		ObjectSet: []types.ObjectSpec{{Obj: object}},
	})
	if fault != nil || len(objects) == 0 {
		return nil
	}
	values := map[string]types.AnyType{}
	for _, p := range objects[0].PropSet {
		values[p.Name] = p.Val
	}
	update := types.ObjectUpdate{Obj: object, Kind: types.ObjectUpdateKindModify}
	for _, path := range wanted {
		update.ChangeSet = append(update.ChangeSet, types.PropertyChange{Name: path, Op: types.PropertyChangeOpAssign, Val: values[path]})
	}
	return []types.ObjectUpdate{update}
}

// retrieve reads properties through the library; the caller holds the world.
func (c *call) retrieve(spec types.PropertyFilterSpec) ([]types.ObjectContent, types.BaseMethodFault) {
	collector := simulator.Map.Get(serviceInstance).(*simulator.ServiceInstance).Content.PropertyCollector
	answer, fault := c.lab.invoke(c.with(collector, "RetrievePropertiesEx",
		&types.RetrievePropertiesEx{This: collector, SpecSet: []types.PropertyFilterSpec{spec}}))
	if _, gone := fault.(*types.ManagedObjectNotFound); gone {
		return nil, nil // the only object of the filter was deleted
	}
	if fault != nil {
		return nil, fault
	}
	return answer.(*methods.RetrievePropertiesExBody).Res.Returnval.Objects, nil
}

func cancelWaitForUpdates(c *call) (interface{}, types.BaseMethodFault) {
	select {
	case c.watcher().cancel <- struct{}{}:
	default:
	}
	return nil, nil
}

func destroyPropertyCollector(c *call) (interface{}, types.BaseMethodFault) {
	if w, ok := watchers.LoadAndDelete(c.session.Key + c.method.This.Value); ok {
		c.lab.changes.forget(w.(*watcher))
		select {
		case w.(*watcher).cancel <- struct{}{}:
		default:
		}
	}
	return c.lab.library(c)
}

// fetch reads one property of any object; the library's panics on an unset one.
func fetch(c *call) (interface{}, types.BaseMethodFault) {
	request := reflect.ValueOf(c.method.Body).Elem()
	path := request.FieldByName("Prop").String()
	c.lab.world.RLock()
	defer c.lab.world.RUnlock()
	objects, fault := c.retrieve(types.PropertyFilterSpec{
		PropSet:   []types.PropertySpec{{Type: c.method.This.Type, PathSet: []string{path}}},
		ObjectSet: []types.ObjectSpec{{Obj: c.method.This}},
	})
	if fault != nil {
		return nil, fault
	}
	if len(objects) == 0 {
		return nil, &types.ManagedObjectNotFound{Obj: c.method.This}
	}
	if len(objects[0].PropSet) == 0 {
		return nil, nil
	}
	return objects[0].PropSet[0].Val, nil
}
