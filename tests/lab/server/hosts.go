package main

import (
	"sync"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// hostStates are the failures of hosts and datastores that a test has ordered.
type hostStates struct {
	mu         sync.Mutex
	fullStores map[types.ManagedObjectReference]bool
}

func (s *hostStates) full(ds *simulator.Datastore) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return ds != nil && s.fullStores[ds.Self]
}

func (l *Lab) checkHost(c *call) types.BaseMethodFault { return nil }
