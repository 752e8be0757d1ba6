package main

import (
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// hostStates are the failures of datastores that a test has ordered.
type hostStates struct {
	mu         sync.Mutex
	fullStores map[types.ManagedObjectReference]bool
}

func init() {
	controls["POST /lab/datastores"] = controlDatastore
}

func (s *hostStates) full(ds *simulator.Datastore) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return ds != nil && s.fullStores[ds.Self]
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
	l.states.mu.Lock()
	if l.states.fullStores == nil {
		l.states.fullStores = map[types.ManagedObjectReference]bool{}
	}
	l.states.fullStores[ds.Self] = *order.Full
	l.states.mu.Unlock()
	free := int64(0)
	if !*order.Full {
		free = ds.Summary.Capacity / 2
	}
	l.update(ds, types.PropertyChange{Name: "summary.freeSpace", Val: free})
	return order, nil
}

func (l *Lab) checkHost(c *call) types.BaseMethodFault { return nil }
