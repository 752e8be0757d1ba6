package main

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// persist writes the configuration into the .vmx; the caller holds the world.
func (l *Lab) persist(vm *simulator.VirtualMachine) {}

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
