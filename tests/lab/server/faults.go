package main

import (
	"encoding/json"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// faultRule is what a test wants to go wrong, by method and, if wanted, object.
type faultRule struct {
	ID        int             `json:"id"`
	Method    string          `json:"method"`     // "PowerOnVM_Task"; "" or "*": every method
	Object    string          `json:"object"`     // moref value or name of the called object; "": any
	Skip      int             `json:"skip"`       // let so many matching calls pass first
	Count     int             `json:"count"`      // how often; 0: until removed
	Fault     string          `json:"fault"`      // fault type: "ConcurrentAccess"
	Detail    json.RawMessage `json:"detail"`     // its fields
	After     bool            `json:"after"`      // the task takes effect and fails all the same
	Drop      string          `json:"drop"`       // "before" or "after" the effect: hang up without an answer
	Status    int             `json:"status"`     // answer with this HTTP status and nothing else
	QueuedMs  int             `json:"queued_ms"`  // a task stays queued so long
	LatencyMs int             `json:"latency_ms"` // the call, or the running task, takes so much longer
}

type faults struct {
	mu    sync.Mutex
	next  int
	rules []*faultRule
}

func (f *faults) add(rule *faultRule) error {
	if rule.Fault != "" {
		if _, err := makeFault(rule.Fault, rule.Detail); err != nil {
			return err
		}
	}
	if rule.Drop != "" && rule.Drop != "before" && rule.Drop != "after" {
		return fmt.Errorf("drop %q: before or after", rule.Drop)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next++
	rule.ID = f.next
	f.rules = append(f.rules, rule)
	return nil
}

// remove takes away one rule, or all of them for 0.
func (f *faults) remove(id int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var kept []*faultRule
	for _, r := range f.rules {
		if id != 0 && r.ID != id {
			kept = append(kept, r)
		}
	}
	f.rules = kept
}

func (f *faults) list() []faultRule {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := []faultRule{}
	for _, r := range f.rules {
		all = append(all, *r)
	}
	return all
}

// take uses up the first rule that matches a call; nil when none does.
func (f *faults) take(c *call) *faultRule {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, r := range f.rules {
		if r.Method != "" && r.Method != "*" && r.Method != c.method.Name {
			continue
		}
		if r.Object != "" && r.Object != c.method.This.Value && r.Object != nameOf(c.method.This) {
			continue
		}
		if r.Skip > 0 {
			r.Skip--
			continue
		}
		taken := *r
		if r.Count > 0 {
			if r.Count--; r.Count == 0 {
				f.rules = append(append([]*faultRule(nil), f.rules[:i]...), f.rules[i+1:]...)
			}
		}
		return &taken
	}
	return nil
}

func nameOf(ref types.ManagedObjectReference) string {
	if e, ok := simulator.Map.Get(ref).(mo.Entity); ok {
		return e.Entity().Name
	}
	return ""
}

func (r *faultRule) dropBefore() bool { return r != nil && r.Drop == "before" }
func (r *faultRule) dropAfter() bool  { return r != nil && r.Drop == "after" }

func (r *faultRule) latency() time.Duration {
	if r == nil {
		return 0
	}
	return time.Duration(r.LatencyMs) * time.Millisecond
}

func (r *faultRule) fault() types.BaseMethodFault {
	fault, _ := makeFault(r.Fault, r.Detail) // checked by add
	return fault
}

func makeFault(name string, detail json.RawMessage) (types.BaseMethodFault, error) {
	t, ok := decodeType(name)
	if !ok {
		return nil, fmt.Errorf("no fault type %q", name)
	}
	fault, ok := reflect.New(t).Interface().(types.BaseMethodFault)
	if !ok {
		return nil, fmt.Errorf("%q is not a fault", name)
	}
	if len(detail) > 0 {
		if err := json.Unmarshal(detail, fault); err != nil {
			return nil, fmt.Errorf("detail of %s: %w", name, err)
		}
	}
	return fault, nil
}

// counters count the calls by method: what a test of round trips asks for.
type counters struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *counters) count(method string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[string]int{}
	}
	c.n[method]++
}

// take is what was counted since the last time, when reset.
func (c *counters) take(reset bool) map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	counted := map[string]int{}
	for method, n := range c.n {
		counted[method] = n
	}
	if reset {
		c.n = nil
	}
	return counted
}
