package main

import (
	"strings"
	"sync"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// changes hears of every change in the library's registry and tells the
// waiting collectors. Only names are kept: values are read when they are
// delivered, so a slow reader costs no memory and sees no old value.
type changes struct {
	mo.ManagedEntity // gives it a reference, which the registry wants
	mu               sync.Mutex
	watchers         map[*watcher]bool
}

func newChanges() *changes {
	c := &changes{watchers: map[*watcher]bool{}}
	c.Self = types.ManagedObjectReference{Type: "LabChanges", Value: "lab-changes"}
	return c
}

func (c *changes) watch(w *watcher) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watchers[w] = true
}

func (c *changes) forget(w *watcher) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.watchers, w)
}

// forgetSession ends the watching, and the waiting, of a session that is over.
func (c *changes) forgetSession(key string) {
	forgetPages(key)
	watchers.Range(func(k, w interface{}) bool {
		if strings.HasPrefix(k.(string), key) {
			watchers.Delete(k)
			c.forget(w.(*watcher))
			w.(*watcher).signal()
		}
		return true
	})
}

func (c *changes) each(f func(w *watcher)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for w := range c.watchers {
		f(w)
	}
}

// PutObject is called by the registry for a new object.
func (c *changes) PutObject(o mo.Reference) {
	ref := o.Reference()
	c.each(func(w *watcher) { w.structure(ref) })
}

// UpdateObject is called by the registry for changed properties.
func (c *changes) UpdateObject(o mo.Reference, changed []types.PropertyChange) {
	ref := o.Reference()
	c.each(func(w *watcher) { w.modified(ref, changed) })
}

// RemoveObject is called by the registry for an object that goes.
func (c *changes) RemoveObject(ref types.ManagedObjectReference) {
	c.each(func(w *watcher) { w.structure(ref) })
}
