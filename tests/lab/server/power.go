package main

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// Power. A task ends when QEMU has done what was asked; QEMU's failure is the task's fault.

func init() {
	handlers["VirtualMachine.PowerOnVM_Task"] = serially(powerOn)
	handlers["VirtualMachine.PowerOffVM_Task"] = serially(powerOff)
	handlers["VirtualMachine.ResetVM_Task"] = serially(reset)
	handlers["VirtualMachine.SuspendVM_Task"] = serially(suspend)
	handlers["VirtualMachine.ShutdownGuest"] = serially(shutdownGuest)
	handlers["VirtualMachine.RebootGuest"] = serially(rebootGuest)
	handlers["VirtualMachine.TerminateVM"] = serially(terminate)
	handlers["Datacenter.PowerOnMultiVM_Task"] = powerOnMulti
}

func requirePower(vm *simulator.VirtualMachine, wanted ...types.VirtualMachinePowerState) types.BaseMethodFault {
	for _, state := range wanted {
		if vm.Runtime.PowerState == state {
			return nil
		}
	}
	return &types.InvalidPowerState{RequestedState: wanted[0], ExistingState: vm.Runtime.PowerState}
}

const (
	poweredOn  = types.VirtualMachinePowerStatePoweredOn
	poweredOff = types.VirtualMachinePowerStatePoweredOff
	suspended  = types.VirtualMachinePowerStateSuspended
)

func powerOn(c *call, vm *simulator.VirtualMachine) (interface{}, types.BaseMethodFault) {
	if vm.Runtime.PowerState == poweredOn {
		return nil, &types.InvalidPowerState{RequestedState: poweredOn, ExistingState: poweredOn}
	}
	c.lab.world.RLock()
	fault := checkLocks(vm, vm.Config.Hardware.Device)
	c.lab.world.RUnlock()
	if fault != nil {
		return nil, fault
	}
	c.lab.connectDevices(vm, true)
	if fault := c.lab.runProcess(vm); fault != nil {
		c.lab.connectDevices(vm, false)
		return nil, fault
	}
	return c.lab.libraryTask(c)
}

// runProcess makes the VM's process run: a new one, or the suspended one.
func (l *Lab) runProcess(vm *simulator.VirtualMachine) types.BaseMethodFault {
	if !l.qemu {
		return nil
	}
	m := l.machines.get(vm.Self)
	if q := m.process(); q != nil {
		if _, err := q.monitor.run("cont", nil); err != nil {
			return &types.GenericVmConfigFault{Reason: err.Error()}
		}
		return nil
	}
	q, err := l.start(vm, "")
	if err != nil {
		l.logf("%s does not start: %v", vm.Name, err)
		return &types.GenericVmConfigFault{Reason: err.Error()}
	}
	l.attend(vm, q)
	return nil
}

// attend makes the end of a process the VM's power-off, whoever caused it.
func (l *Lab) attend(vm *simulator.VirtualMachine, q *qemu) {
	m := l.machines.get(vm.Self)
	m.set(q)
	go func() {
		<-q.ended
		m.turn.Lock()
		defer m.turn.Unlock()
		if !m.takeIf(q) {
			return // a power-off of ours
		}
		q.cleanUp()
		l.wentOff(vm)
	}()
}

// wentOff publishes a power-off that no task asked for: its event names no user.
func (l *Lab) wentOff(vm *simulator.VirtualMachine) {
	l.publishOff(vm, l.system)
}

// publishOff makes the VM powered off in the name of a session's user.
func (l *Lab) publishOff(vm *simulator.VirtualMachine, by *session) {
	l.toolsRunning(vm, false)
	off := l.internalCall(vm.Self, "PowerOffVM_Task", &types.PowerOffVM_Task{This: vm.Self})
	off.session = by
	if _, fault := l.libraryTask(off); fault != nil {
		l.logf("%s: power-off: %s", vm.Name, faultText(fault))
	}
	l.connectDevices(vm, false)
}

func powerOff(c *call, vm *simulator.VirtualMachine) (interface{}, types.BaseMethodFault) {
	if vm.Runtime.PowerState == poweredOff {
		return nil, &types.InvalidPowerState{RequestedState: poweredOff, ExistingState: poweredOff}
	}
	if q := c.lab.machines.get(vm.Self).take(); q != nil {
		q.kill()
	}
	c.lab.publishOff(vm, c.session)
	return nil, nil
}

func reset(c *call, vm *simulator.VirtualMachine) (interface{}, types.BaseMethodFault) {
	if fault := requirePower(vm, poweredOn); fault != nil {
		return nil, fault
	}
	return nil, c.lab.resetGuest(vm, &types.VmResettingEvent{VmEvent: vmEvent(vm)})
}

func (l *Lab) resetGuest(vm *simulator.VirtualMachine, event types.BaseEvent) types.BaseMethodFault {
	l.toolsRunning(vm, false)
	if q := l.machines.get(vm.Self).process(); q != nil {
		if _, err := q.monitor.run("system_reset", nil); err != nil {
			return &types.SystemError{Reason: err.Error()}
		}
	}
	l.world.Lock()
	defer l.world.Unlock()
	l.event(event)
	return nil
}

func suspend(c *call, vm *simulator.VirtualMachine) (interface{}, types.BaseMethodFault) {
	if fault := requirePower(vm, poweredOn); fault != nil {
		return nil, fault
	}
	if q := c.lab.machines.get(vm.Self).process(); q != nil {
		if _, err := q.monitor.run("stop", nil); err != nil {
			return nil, &types.SystemError{Reason: err.Error()}
		}
	}
	return c.lab.libraryTask(c)
}

// shutdownGuest asks the guest; without running tools nobody listens.
func shutdownGuest(c *call, vm *simulator.VirtualMachine) (interface{}, types.BaseMethodFault) {
	return nil, c.lab.askGuest(vm, "shutdown", func(q *qemu) error {
		_, err := q.monitor.run("system_powerdown", nil) // for guests without an agent of ours
		return err
	})
}

func rebootGuest(c *call, vm *simulator.VirtualMachine) (interface{}, types.BaseMethodFault) {
	return nil, c.lab.askGuest(vm, "reboot", func(*qemu) error { return nil })
}

func (l *Lab) askGuest(vm *simulator.VirtualMachine, word string, also func(*qemu) error) types.BaseMethodFault {
	if fault := requirePower(vm, poweredOn); fault != nil {
		return fault
	}
	m := l.machines.get(vm.Self)
	if !m.toolsAreRunning() {
		return new(types.ToolsUnavailable)
	}
	q := m.process()
	if q == nil { // without QEMU a guest with tools does as it is told
		if word == "shutdown" {
			l.world.Lock()
			l.event(&types.VmGuestShutdownEvent{VmEvent: vmEvent(vm)})
			l.world.Unlock()
			l.wentOff(vm)
			return nil
		}
		return l.resetGuest(vm, &types.VmGuestRebootEvent{VmEvent: vmEvent(vm)})
	}
	q.guest.push(word)
	if err := also(q); err != nil {
		return &types.SystemError{Reason: err.Error()}
	}
	return nil
}

// terminate ends the process at once, as killing a vmx does: the power-off follows by itself.
func terminate(c *call, vm *simulator.VirtualMachine) (interface{}, types.BaseMethodFault) {
	if fault := requirePower(vm, poweredOn, suspended); fault != nil {
		return nil, fault
	}
	if q := c.lab.machines.get(vm.Self).process(); q != nil {
		_ = q.command.Process.Kill()
		return nil, nil
	}
	c.lab.wentOff(vm)
	return nil, nil
}

// powerOnMulti is how a cluster powers on: one attempt for each VM.
func powerOnMulti(c *call) (interface{}, types.BaseMethodFault) {
	result := &types.ClusterPowerOnVmResult{}
	for _, ref := range c.method.Body.(*types.PowerOnMultiVM_Task).Vm {
		one := c.with(ref, "PowerOnVM_Task", &types.PowerOnVM_Task{This: ref})
		if fault := c.lab.admit(one); fault != nil {
			result.NotAttempted = append(result.NotAttempted, types.ClusterNotAttemptedVmInfo{Vm: ref,
				Fault: types.LocalizedMethodFault{Fault: fault, LocalizedMessage: faultText(fault)}})
			continue
		}
		task := c.lab.startTask(one, nil)
		result.Attempted = append(result.Attempted, types.ClusterAttemptedVmInfo{Vm: ref, Task: &task})
	}
	return *result, nil
}

// connectDevices sets what of a VM's devices is connected: with the power on,
// those that start connected.
func (l *Lab) connectDevices(vm *simulator.VirtualMachine, on bool) {
	l.world.Lock()
	defer l.world.Unlock()
	changed := false
	devices := append([]types.BaseVirtualDevice(nil), vm.Config.Hardware.Device...)
	for i, device := range devices {
		c := device.GetVirtualDevice().Connectable
		if c == nil || c.Connected == (on && c.StartConnected) {
			continue
		}
		changed = true
		devices[i] = copyDevice(device)
		state := *c
		state.Connected = on && c.StartConnected
		devices[i].GetVirtualDevice().Connectable = &state
	}
	if changed {
		simulator.Map.Update(vm, []types.PropertyChange{{Name: "config.hardware.device", Val: devices}})
	}
}
