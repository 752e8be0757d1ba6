package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// frozen stops a running machine and takes its disks away while f works on
// their files; then it goes on with the disks that f returned. QEMU saves no
// memory while a VMDK is open, hence the placeholder in the disk's stead.
func (q *qemu) frozen(f func() ([]*types.VirtualDisk, error)) (err error) {
	running := q.vm.Runtime.PowerState == poweredOn // a suspended one stays so
	if _, err := q.monitor.run("stop", nil); err != nil {
		return err
	}
	before := disksOf(q.vm.Config.Hardware.Device)
	after := before
	for _, disk := range before {
		if err := q.takeDisk(disk); err != nil {
			return err
		}
	}
	changed, err := f()
	if err == nil {
		after = changed
	}
	for _, disk := range after {
		if e := q.giveDisk(disk); e != nil {
			return e
		}
	}
	if running {
		if _, e := q.monitor.run("cont", nil); err == nil {
			err = e
		}
	}
	return err
}

func disksOf(devices []types.BaseVirtualDevice) []*types.VirtualDisk {
	var disks []*types.VirtualDisk
	for _, device := range devices {
		if disk, ok := device.(*types.VirtualDisk); ok {
			disks = append(disks, disk)
		}
	}
	return disks
}

func placeholder(key int32) string { return fmt.Sprintf("placeholder%d", key) }

func (q *qemu) takeDisk(disk *types.VirtualDisk) error {
	if _, err := q.monitor.run("blockdev-add", arguments{"driver": "null-co", "node-name": placeholder(disk.Key), "size": diskBytes(disk), "read-zeroes": true}); err != nil {
		return err
	}
	if err := q.setDrive(disk.Key, placeholder(disk.Key)); err != nil {
		return err
	}
	_, err := q.monitor.run("blockdev-del", arguments{"node-name": nodeName(disk.Key)})
	return err
}

func (q *qemu) giveDisk(disk *types.VirtualDisk) error {
	node, err := diskNode(disk, q.directory)
	if err != nil {
		return err
	}
	if _, err := q.monitor.run("blockdev-add", node); err != nil {
		return err
	}
	if err := q.setDrive(disk.Key, nodeName(disk.Key)); err != nil {
		return err
	}
	_, err = q.monitor.run("blockdev-del", arguments{"node-name": placeholder(disk.Key)})
	return err
}

func (q *qemu) setDrive(key int32, node string) error {
	_, err := q.monitor.run("qom-set", arguments{"path": "/machine/peripheral/" + deviceID(key), "property": "drive", "value": node})
	return err
}

// saveMemory writes the machine's state to a file; it must stand still, without disks.
func (q *qemu) saveMemory(file string) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := q.monitor.run("getfd", arguments{"fdname": "memory"}, f); err != nil {
		return err
	}
	if _, err := q.monitor.run("migrate-set-parameters", arguments{"max-bandwidth": int64(1) << 40}); err != nil {
		return err
	}
	if _, err := q.monitor.run("migrate", arguments{"uri": "fd:memory"}); err != nil {
		return err
	}
	return q.migrated()
}

// loadMemory brings a machine that was started for it into a saved state, and lets it run.
func (q *qemu) loadMemory(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := q.monitor.run("getfd", arguments{"fdname": "memory"}, f); err != nil {
		return err
	}
	if _, err := q.monitor.run("migrate-incoming", arguments{"uri": "fd:memory"}); err != nil {
		return err
	}
	if err := q.migrated(); err != nil {
		return err
	}
	_, err = q.monitor.run("cont", nil)
	return err
}

// migrated waits for the end of a migration, in either direction.
func (q *qemu) migrated() error {
	for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		answer, err := q.monitor.run("query-migrate", nil)
		if err != nil {
			return err
		}
		var state struct {
			Status string
			Error  string `json:"error-desc"`
		}
		if err := json.Unmarshal(answer, &state); err != nil {
			return err
		}
		switch state.Status {
		case "completed":
			return nil
		case "failed", "cancelled":
			return fmt.Errorf("memory: %s %s", state.Status, state.Error)
		}
	}
	return fmt.Errorf("memory: no end of saving it")
}

// guestIsThere asks whether the guest holds its guestinfo port: nobody tells of
// that after a restore.
func (q *qemu) guestIsThere() bool {
	answer, err := q.monitor.run("query-chardev", nil)
	if err != nil {
		return false
	}
	var ports []struct {
		Label string
		Open  bool `json:"frontend-open"`
	}
	_ = json.Unmarshal(answer, &ports)
	for _, port := range ports {
		if port.Label == "guestinfo" {
			return port.Open
		}
	}
	return false
}

// resume starts a VM from a saved state and publishes that it runs.
func (l *Lab) resume(c *call, vm *simulator.VirtualMachine, memory string) types.BaseMethodFault {
	l.connectDevices(vm, true)
	if l.qemu {
		q, err := l.start(vm, memory)
		if err != nil {
			l.logf("%s does not go on: %v", vm.Name, err)
			return &types.GenericVmConfigFault{Reason: err.Error()}
		}
		l.attend(vm, q)
		if q.guestIsThere() {
			l.toolsRunning(vm, true)
		}
	}
	_, fault := l.libraryTask(c.with(vm.Self, "PowerOnVM_Task", &types.PowerOnVM_Task{This: vm.Self}))
	return fault
}
