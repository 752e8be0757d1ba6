package main

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// changeSerial makes every change version unique, however fast they follow each other.
var changeSerial int64

func newChangeVersion() string {
	n := atomic.AddInt64(&changeSerial, 1)
	return fmt.Sprintf("%s.%06dZ", time.Now().UTC().Format("2006-01-02T15:04:05"), n%1000000)
}

// mergeExtra applies changes to a VM's options: a key is set, "" deletes it.
func mergeExtra(old []types.BaseOptionValue, changes []types.BaseOptionValue) []types.BaseOptionValue {
	merged := append([]types.BaseOptionValue(nil), old...)
	for _, change := range changes {
		o := change.GetOptionValue()
		kept := merged[:0:0]
		found := false
		for _, have := range merged {
			if have.GetOptionValue().Key != o.Key {
				kept = append(kept, have)
			} else if o.Value != "" && o.Value != nil {
				kept, found = append(kept, &types.OptionValue{Key: o.Key, Value: o.Value}), true
			}
		}
		if !found && o.Value != "" && o.Value != nil {
			kept = append(kept, &types.OptionValue{Key: o.Key, Value: o.Value})
		}
		merged = kept
	}
	return merged
}

// extra is one option as text; "" when it is not there.
func extra(vm *simulator.VirtualMachine, key string) string {
	for _, option := range vm.Config.ExtraConfig {
		if o := option.GetOptionValue(); o.Key == key {
			return fmt.Sprint(o.Value)
		}
	}
	return ""
}

// setExtra changes options outside of a reconfigure: what a guest sets.
func (l *Lab) setExtra(vm *simulator.VirtualMachine, changes ...types.BaseOptionValue) {
	l.world.Lock()
	defer l.world.Unlock()
	l.configChanged(vm, types.PropertyChange{
		Name: "config.extraConfig", Val: mergeExtra(vm.Config.ExtraConfig, changes)})
}

// configChanged publishes changes together with a new change version; the caller holds the world.
func (l *Lab) configChanged(vm *simulator.VirtualMachine, changes ...types.PropertyChange) {
	changes = append(changes, types.PropertyChange{Name: "config.changeVersion", Val: newChangeVersion()},
		types.PropertyChange{Name: "config.modified", Val: time.Now()})
	simulator.Map.Update(vm, changes)
}
