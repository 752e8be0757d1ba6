package main

import (
	"strings"
	"sync"

	"github.com/vmware/govmomi/vim25/types"
)

// watcher is one collector's view of what has changed since its last answer.
type watcher struct {
	mu      sync.Mutex
	dirty   bool // objects have come or gone
	changed map[types.ManagedObjectReference]map[string]bool
	wake    chan struct{}

	turn    sync.Mutex // one wait at a time
	cancel  chan struct{}
	version int
	rest    []types.PropertyFilterUpdate                                           // of a truncated answer
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

func entered(set []types.ObjectUpdate, object types.ManagedObjectReference) bool {
	for _, u := range set {
		if u.Obj == object {
			return true
		}
	}
	return false
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
