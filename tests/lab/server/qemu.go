package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// qemu is the running process of a powered-on VM.
type qemu struct {
	lab       *Lab
	vm        *simulator.VirtualMachine
	directory string
	pid       int
	command   *exec.Cmd
	monitor   *monitor
	serial    map[int32]*serialPort // by device key
	guest     *guestChannel
	ended     chan struct{}
}

// launch is a command line under construction with what it needs open.
type launch struct {
	lab       *Lab
	vm        *simulator.VirtualMachine
	directory string
	words     []string
	files     []*os.File
	serial    map[int32]*serialPort
	guest     *guestChannel
	qmp       *net.UnixConn

	connections []net.Conn // the lab's ends
}

func (b *launch) add(words ...string) { b.words = append(b.words, words...) }

// object adds an option whose value is JSON.
func (b *launch) object(option string, value arguments) {
	text, _ := json.Marshal(value) // plain maps
	b.add(option, string(text))
}

// pass hands a file to the process and returns the number it has there.
func (b *launch) pass(f *os.File) int {
	b.files = append(b.files, f)
	return 2 + len(b.files)
}

// close lets go of what the process has now; after a failure of what the lab would have used, too.
func (b *launch) close(failed bool) {
	for _, f := range b.files {
		f.Close()
	}
	if failed {
		for _, c := range b.connections {
			c.Close()
		}
	}
}

// start boots a VM; incoming is the file of a memory state to go on from, or "".
func (l *Lab) start(vm *simulator.VirtualMachine, incoming string) (started *qemu, err error) {
	directory := l.run.vm(vm.Self.Value)
	if err := os.RemoveAll(directory); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(directory, 0700); err != nil {
		return nil, err
	}
	b := &launch{lab: l, vm: vm, directory: directory, serial: map[int32]*serialPort{}}
	defer func() { b.close(started == nil) }()
	if err := b.build(incoming); err != nil {
		return nil, err
	}
	q := &qemu{lab: l, vm: vm, directory: directory, serial: b.serial, guest: b.guest, ended: make(chan struct{})}
	output, err := os.Create(filepath.Join(directory, "qemu.log"))
	if err != nil {
		return nil, err
	}
	defer output.Close()
	q.command = exec.Command("qemu-system-x86_64", b.words...)
	q.command.ExtraFiles = b.files
	q.command.Stdout, q.command.Stderr = output, output
	if err := l.spawner.start(q.command); err != nil {
		return nil, err
	}
	q.pid = q.command.Process.Pid
	go func() {
		_ = q.command.Wait()
		close(q.ended)
	}()
	b.close(false) // so that QEMU's end is the end of its sockets
	b.files = nil
	q.monitor = openMonitor(b.qmp, q.onEvent)
	_, err = q.monitor.run("qmp_capabilities", nil)
	if err == nil && incoming != "" {
		err = q.loadMemory(incoming)
	}
	if err != nil {
		_ = q.command.Process.Kill()
		<-q.ended
		said, _ := os.ReadFile(filepath.Join(directory, "qemu.log"))
		q.cleanUp()
		return nil, fmt.Errorf("%w: %s", err, strings.TrimSpace(string(said)))
	}
	go q.guest.run()
	for _, port := range q.serial {
		go port.run()
	}
	return q, nil
}

// kill ends the process and waits for its end.
func (q *qemu) kill() {
	_ = q.command.Process.Kill()
	<-q.ended
	q.cleanUp()
}

func (q *qemu) cleanUp() {
	for _, port := range q.serial {
		port.unback()
		port.guest.Close()
	}
	q.guest.connection.Close()
	q.monitor.connection.Close()
	_ = os.RemoveAll(q.directory)
}

func (q *qemu) onEvent(event string, data json.RawMessage) {
	if event == "VSERPORT_CHANGE" {
		var port struct {
			ID   string
			Open bool
		}
		if json.Unmarshal(data, &port) == nil && port.ID == guestPort {
			q.lab.toolsRunning(q.vm, port.Open)
		}
	}
}

const machineType = "q35,smm=off,vmport=off,dump-guest-core=off"

// build writes the command line. ESXi's IDE and SATA CD-ROMs both sit on the
// chipset's AHCI here: loading an initramfs through emulated IDE takes seconds.
func (b *launch) build(incoming string) error {
	vm := b.vm
	b.add("-name", "lab-"+vm.Self.Value, "-uuid", vm.Config.Uuid, "-nodefaults", "-no-user-config",
		"-display", "none", "-vga", "none", "-machine", machineType, "-boot", "order=dc",
		// without erms: emulated byte by byte, fast string moves are the slow ones
		"-accel", "tcg,tb-size=64", "-cpu", "max,-erms",
		"-m", fmt.Sprintf("%dM", vm.Config.Hardware.MemoryMB), "-smp", fmt.Sprint(vm.Config.Hardware.NumCPU),
		"-action", "panic=shutdown", "-pidfile", filepath.Join(b.directory, "pid"),
		"-smbios", "type=1,manufacturer=VMware,, Inc.,product=VMware Virtual Platform,serial="+vmwareSerial(vm.Config.Uuid))
	var err error
	if b.qmp, err = b.channel("qmp"); err != nil {
		return err
	}
	b.add("-mon", "chardev=qmp,mode=control")
	b.object("-device", arguments{"driver": "pci-bridge", "id": "hot", "bus": "pcie.0", "chassis_nr": 1})
	if err := b.guestinfo(); err != nil {
		return err
	}
	cdroms, controllers := 0, 0
	for _, device := range vm.Config.Hardware.Device { // controllers come before what they carry
		if c, ok := device.(types.BaseVirtualSCSIController); ok {
			controllers++
			if err := b.scsi(c, controllers); err != nil {
				return err
			}
		}
	}
	for _, device := range vm.Config.Hardware.Device {
		var err error
		switch d := device.(type) {
		case *types.VirtualCdrom:
			err = b.cdrom(d, cdroms)
			cdroms++
		case *types.VirtualDisk:
			err = b.disk(d)
		case types.BaseVirtualEthernetCard:
			err = b.nic(d.GetVirtualEthernetCard())
		case *types.VirtualSerialPort:
			err = b.serialPort(d)
		}
		if err != nil {
			return err
		}
	}
	if incoming != "" {
		b.add("-incoming", "defer")
	}
	return nil
}

// vmwareSerial writes a UUID as VMware's firmware does: "VMware-56 4d …-…".
func vmwareSerial(uuid string) string {
	h := strings.ReplaceAll(uuid, "-", "")
	var pairs []string
	for i := 0; i+1 < len(h); i += 2 {
		pairs = append(pairs, h[i:i+2])
	}
	half := len(pairs) / 2
	return "VMware-" + strings.Join(pairs[:half], " ") + "-" + strings.Join(pairs[half:], " ")
}
