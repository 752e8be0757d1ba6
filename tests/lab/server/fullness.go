package main

import (
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// fullness knows the datastores that a test has filled.
type fullness struct {
	mu     sync.Mutex
	stores map[types.ManagedObjectReference]bool
}

func init() {
	controls["POST /lab/datastores"] = controlDatastore
}

func (f *fullness) full(ds *simulator.Datastore) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return ds != nil && f.stores[ds.Self]
}

// controlDatastore fills a datastore, or frees it again.
func controlDatastore(l *Lab, _ *http.Request, body []byte) (interface{}, error) {
	var order struct {
		Name string `json:"name"`
		Full *bool  `json:"full"`
	}
	if err := parse(body, &order); err != nil {
		return nil, err
	}
	ds := datastoreOf("[" + order.Name + "]")
	if ds == nil {
		return nil, fmt.Errorf("no datastore %q", order.Name)
	}
	if order.Full == nil {
		return nil, errors.New("full: true or false")
	}
	l.fullness.mu.Lock()
	if l.fullness.stores == nil {
		l.fullness.stores = map[types.ManagedObjectReference]bool{}
	}
	l.fullness.stores[ds.Self] = *order.Full
	l.fullness.mu.Unlock()
	free := int64(0)
	if !*order.Full {
		free = ds.Summary.Capacity / 2
	}
	l.update(ds, types.PropertyChange{Name: "summary.freeSpace", Val: free})
	return order, nil
}
