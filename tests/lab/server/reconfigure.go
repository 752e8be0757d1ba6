package main

import (
	"os"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

func init() {
	handlers["VirtualMachine.ReconfigVM_Task"] = serially(reconfigure)
}

// reconfigure applies a spec whole or not at all: everything is checked and
// made first (files, then the running machine), published last.
func reconfigure(c *call, vm *simulator.VirtualMachine) (interface{}, types.BaseMethodFault) {
	l, spec := c.lab, c.method.Body.(*types.ReconfigVM_Task).Spec
	if spec.ChangeVersion != "" && spec.ChangeVersion != vm.Config.ChangeVersion {
		return nil, new(types.ConcurrentAccess)
	}
	if fault := checkHotAdd(vm, &spec); fault != nil {
		return nil, fault
	}
	l.world.RLock()
	other := inFolder(*vm.Parent, spec.Name)
	p, fault := l.planDevices(vm, spec.DeviceChange)
	if fault == nil && vm.Runtime.PowerState != poweredOff {
		fault = checkLocks(vm, p.added)
	}
	l.world.RUnlock()
	if fault != nil {
		return nil, fault
	}
	if spec.Name != "" && other != nil && *other != vm.Self {
		return nil, &types.DuplicateName{Name: spec.Name, Object: *other}
	}
	if fault := l.realize(p); fault != nil {
		return nil, fault
	}
	if q := l.machines.get(vm.Self).process(); q != nil {
		if err := q.replug(p); err != nil {
			p.unrealize()
			l.logf("%s: %v", vm.Name, err)
			return nil, &types.GenericVmConfigFault{Reason: err.Error()}
		}
	}
	for _, file := range p.destroy {
		os.Remove(file)
		l.disks.forget(file)
	}
	return nil, l.publish(c, vm, spec, p)
}

// checkHotAdd refuses what only a VM prepared for it takes while it runs.
func checkHotAdd(vm *simulator.VirtualMachine, spec *types.VirtualMachineConfigSpec) types.BaseMethodFault {
	enabled := func(flag *bool) bool { return flag != nil && *flag }
	hardware := vm.Config.Hardware
	switch {
	case vm.Runtime.PowerState == poweredOff:
		return nil
	case spec.MemoryMB != 0 && spec.MemoryMB != int64(hardware.MemoryMB) && !enabled(vm.Config.MemoryHotAddEnabled):
		return &types.MemoryHotPlugNotSupported{}
	case spec.NumCPUs != 0 && spec.NumCPUs != hardware.NumCPU && !enabled(vm.Config.CpuHotAddEnabled):
		return &types.CpuHotPlugNotSupported{}
	}
	return nil
}

func (l *Lab) publish(c *call, vm *simulator.VirtualMachine, spec types.VirtualMachineConfigSpec, p *plan) types.BaseMethodFault {
	l.world.Lock()
	defer l.world.Unlock()
	options := spec.ExtraConfig
	spec.DeviceChange, spec.ExtraConfig = nil, nil
	if _, fault := l.libraryTaskHeld(c.with(vm.Self, "ReconfigVM_Task", &types.ReconfigVM_Task{This: vm.Self, Spec: spec})); fault != nil {
		return fault
	}
	l.commit(vm, p)
	changes := append(inPlace(vm), types.PropertyChange{
		Name: "config.extraConfig", Val: mergeExtra(vm.Config.ExtraConfig, options)})
	if l.machines.get(vm.Self).toolsAreRunning() {
		changes = append(changes, types.PropertyChange{Name: "guest.net", Val: guestNICs(vm)})
	}
	if spec.Name != "" {
		changes = append(changes, types.PropertyChange{Name: "name", Val: spec.Name})
	}
	l.configChanged(vm, changes...)
	l.persist(vm)
	return nil
}

// inPlace are the properties that the library's reconfigure changes without telling anybody.
func inPlace(vm *simulator.VirtualMachine) []types.PropertyChange {
	return []types.PropertyChange{
		{Name: "config.hardware.memoryMB", Val: vm.Config.Hardware.MemoryMB},
		{Name: "config.hardware.numCPU", Val: vm.Config.Hardware.NumCPU},
		{Name: "config.annotation", Val: vm.Config.Annotation},
		{Name: "config.memoryAllocation", Val: vm.Config.MemoryAllocation},
		{Name: "config.cpuAllocation", Val: vm.Config.CpuAllocation},
	}
}
