package main

import (
	"reflect"
	"strconv"
	"strings"
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

// watcher is one collector's view of what has changed since its last answer.
type watcher struct {
	mu      sync.Mutex
	dirty   bool // objects have come or gone
	changed map[types.ManagedObjectReference]map[string]bool
	wake    chan struct{}

	turn    sync.Mutex // one wait at a time
	cancel  chan struct{}
	version int
	known   map[types.ManagedObjectReference]map[types.ManagedObjectReference]bool // filter -> objects shown
}

func (w *watcher) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// transient objects come and go with every call, and only filters that name them see them.
var transient = map[string]bool{"Task": true, "PropertyFilter": true, "PropertyCollector": true, "TaskManager": true,
	"EventManager": true, "EventHistoryCollector": true}

func (w *watcher) structure(ref types.ManagedObjectReference) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !transient[ref.Type] {
		w.dirty = true
		w.signal()
	}
}

func (w *watcher) modified(ref types.ManagedObjectReference, changes []types.PropertyChange) {
	w.mu.Lock()
	defer w.mu.Unlock()
	names := w.changed[ref]
	if names == nil {
		names = map[string]bool{}
		w.changed[ref] = names
	}
	for _, change := range changes {
		names[change.Name] = true
	}
	if ref.Type != "VirtualMachine" && !transient[ref.Type] {
		w.dirty = true // a folder, pool or view: other objects may be reached now
	}
	w.signal()
}

func (w *watcher) take() (bool, map[types.ManagedObjectReference]map[string]bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	dirty, changed := w.dirty, w.changed
	w.dirty, w.changed = false, map[types.ManagedObjectReference]map[string]bool{}
	return dirty, changed
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
	limit := time.Duration(-1)
	if r.Options != nil && r.Options.MaxWaitSeconds != nil {
		limit = time.Duration(*r.Options.MaxWaitSeconds) * time.Second
	}
	set, fault := c.wait(r.Version, limit)
	return &types.WaitForUpdatesExResponse{Returnval: set}, fault
}

func waitForUpdates(c *call) (interface{}, types.BaseMethodFault) {
	set, fault := c.wait(c.method.Body.(*types.WaitForUpdates).Version, -1)
	if fault != nil {
		return nil, fault
	}
	return &types.WaitForUpdatesResponse{Returnval: *set}, nil
}

func checkForUpdates(c *call) (interface{}, types.BaseMethodFault) {
	set, fault := c.wait(c.method.Body.(*types.CheckForUpdates).Version, 0)
	return &types.CheckForUpdatesResponse{Returnval: set}, fault
}

// wait answers with the changes since a version, nil when there is none in time.
// Version "" begins anew with everything.
func (c *call) wait(version string, limit time.Duration) (*types.UpdateSet, types.BaseMethodFault) {
	w := c.watcher()
	w.turn.Lock()
	defer w.turn.Unlock()
	select {
	case <-w.cancel:
	default:
	}
	if version == "" {
		w.known = map[types.ManagedObjectReference]map[types.ManagedObjectReference]bool{}
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
		filters, fault := c.collect(w)
		if fault != nil {
			return nil, fault
		}
		if len(filters) > 0 || version == "" {
			w.version++
			return &types.UpdateSet{Version: strconv.Itoa(w.version), FilterSet: filters}, nil
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

func entered(set []types.ObjectUpdate, object types.ManagedObjectReference) bool {
	for _, u := range set {
		if u.Obj == object {
			return true
		}
	}
	return false
}

// filters of the called collector: its "filter" property.
func (c *call) filters() []types.ManagedObjectReference {
	collector := reflect.ValueOf(c.session.Get(c.method.This)).Elem()
	filters, _ := collector.FieldByName("Filter").Interface().([]types.ManagedObjectReference)
	return filters
}

// compare shows who has come and who has gone since the last time.
func (w *watcher) compare(filter types.ManagedObjectReference, objects []types.ObjectContent) []types.ObjectUpdate {
	var set []types.ObjectUpdate
	now := map[types.ManagedObjectReference]bool{}
	for _, o := range objects {
		now[o.Obj] = true
		if w.known[filter][o.Obj] {
			continue
		}
		update := types.ObjectUpdate{Obj: o.Obj, Kind: types.ObjectUpdateKindEnter}
		for _, p := range o.PropSet {
			update.ChangeSet = append(update.ChangeSet, types.PropertyChange{Name: p.Name, Op: types.PropertyChangeOpAssign, Val: p.Val})
		}
		set = append(set, update)
	}
	for object := range w.known[filter] {
		if !now[object] {
			set = append(set, types.ObjectUpdate{Obj: object, Kind: types.ObjectUpdateKindLeave})
		}
	}
	w.known[filter] = now
	return set
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

// wantedPaths are the filter's paths that the changed names touch; for
// "all properties" the names themselves.
func wantedPaths(spec types.PropertyFilterSpec, object types.ManagedObjectReference, names map[string]bool) []string {
	var wanted []string
	for _, p := range spec.PropSet {
		if p.Type != object.Type && p.Type != "ManagedEntity" {
			continue
		}
		if p.All != nil && *p.All {
			for name := range names {
				wanted = append(wanted, name)
			}
			continue
		}
		for _, path := range p.PathSet {
			for name := range names {
				if name == path || strings.HasPrefix(name, path+".") || strings.HasPrefix(path, name+".") {
					wanted = append(wanted, path)
					break
				}
			}
		}
	}
	return wanted
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
