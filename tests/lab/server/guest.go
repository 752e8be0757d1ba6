package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// How the guest and the host exchange guestinfo. VMware's backdoor has no
// equivalent here, so the same text (RPCI: "info-get K", "info-set K V") goes
// over a virtio-serial port; what is set at power-on is also in fw_cfg.

const (
	guestPort    = "guestinfo"
	guestPrefix  = "guestinfo."
	fwCfgMaxName = 55
	maxGuestLine = 1 << 20
)

func init() {
	controls["POST /lab/guest"] = controlGuest
}

// controlGuest plays the guest of a VM without QEMU: its agent comes or goes,
// it sends a request, it powers itself off.
func controlGuest(l *Lab, _ *http.Request, body []byte) (interface{}, error) {
	var order struct {
		VM       string `json:"vm"`
		Tools    *bool  `json:"tools"`
		Request  string `json:"request"`
		PowerOff bool   `json:"power_off"`
	}
	if err := parse(body, &order); err != nil {
		return nil, err
	}
	vm, err := vmByName(order.VM)
	if err != nil {
		return nil, err
	}
	m := l.machines.get(vm.Self)
	m.turn.Lock()
	defer m.turn.Unlock()
	if vm.Runtime.PowerState != poweredOn {
		return nil, fmt.Errorf("%s is %s", order.VM, vm.Runtime.PowerState)
	}
	if order.Tools != nil {
		l.toolsRunning(vm, *order.Tools)
	}
	answer := ""
	if order.Request != "" {
		answer = l.guestCall(vm, order.Request)
	}
	if order.PowerOff {
		if q := m.take(); q != nil {
			q.kill()
		}
		l.wentOff(vm)
	}
	return map[string]string{"answer": answer}, nil
}

// guestinfo adds the guest's port, and every guestinfo option whose name fits
// as /sys/firmware/qemu_fw_cfg/by_name/opt/KEY/raw.
func (b *launch) guestinfo() error {
	for i, option := range b.vm.Config.ExtraConfig {
		o := option.GetOptionValue()
		if name := "opt/" + o.Key; strings.HasPrefix(o.Key, guestPrefix) && len(name) <= fwCfgMaxName {
			file := filepath.Join(b.directory, fmt.Sprintf("fw%d", i))
			if err := os.WriteFile(file, []byte(fmt.Sprint(o.Value)), 0600); err != nil {
				return err
			}
			b.add("-fw_cfg", "name="+strings.ReplaceAll(name, ",", ",,")+",file="+file)
		}
	}
	connection, err := b.channel("guestinfo")
	if err != nil {
		return err
	}
	b.guest = &guestChannel{lab: b.lab, vm: b.vm, connection: connection}
	b.object("-device", arguments{"driver": "virtio-serial-pci", "id": "ports", "bus": "pcie.0"})
	b.object("-device", arguments{"driver": "virtserialport", "id": guestPort, "bus": "ports.0", "chardev": "guestinfo", "name": "org.lab.guestinfo"})
	return nil
}

type guestChannel struct {
	lab        *Lab
	vm         *simulator.VirtualMachine
	connection net.Conn
}

func (g *guestChannel) run() {
	lines := bufio.NewScanner(g.connection)
	lines.Buffer(nil, maxGuestLine)
	for lines.Scan() {
		if _, err := fmt.Fprintln(g.connection, g.lab.guestCall(g.vm, lines.Text())); err != nil {
			return
		}
	}
}

// push tells the guest something unasked: "! shutdown".
func (g *guestChannel) push(word string) { fmt.Fprintln(g.connection, "! "+word) }

// guestCall answers one RPCI request: "1 value" or "0 reason".
func (l *Lab) guestCall(vm *simulator.VirtualMachine, request string) string {
	words := strings.SplitN(request, " ", 3)
	switch {
	case words[0] == "info-get" && len(words) == 2 && strings.HasPrefix(words[1], guestPrefix):
		l.world.RLock()
		defer l.world.RUnlock()
		if value := extra(vm, words[1]); value != "" {
			return "1 " + value
		}
		return "0 No value found"
	case words[0] == "info-set" && len(words) >= 2 && strings.HasPrefix(words[1], guestPrefix):
		value := strings.Join(words[2:], "")
		l.setExtra(vm, &types.OptionValue{Key: words[1], Value: value})
		if words[1] == "guestinfo.ip" {
			l.update(vm, types.PropertyChange{Name: "guest.ipAddress", Val: value},
				types.PropertyChange{Name: "summary.guest.ipAddress", Val: value})
		}
		return "1 "
	case words[0] == "log":
		l.logf("%s says: %s", vm.Name, strings.Join(words[1:], " "))
		return "1 "
	}
	return "0 Unknown command"
}

// toolsRunning publishes that the guest's agent has come or gone.
func (l *Lab) toolsRunning(vm *simulator.VirtualMachine, running bool) {
	m := l.machines.get(vm.Self)
	m.mu.Lock()
	same := m.tools == running
	m.tools = running
	m.mu.Unlock()
	if same {
		return
	}
	status, state := types.VirtualMachineToolsStatusToolsNotRunning, types.VirtualMachineToolsRunningStatusGuestToolsNotRunning
	guest := types.VirtualMachineGuestStateNotRunning
	if running {
		status, state = types.VirtualMachineToolsStatusToolsOk, types.VirtualMachineToolsRunningStatusGuestToolsRunning
		guest = types.VirtualMachineGuestStateRunning
	}
	l.world.Lock()
	defer l.world.Unlock()
	changes := []types.PropertyChange{
		{Name: "guest.toolsStatus", Val: status},
		{Name: "guest.toolsRunningStatus", Val: string(state)},
		{Name: "guest.guestState", Val: string(guest)},
		{Name: "summary.guest.toolsStatus", Val: status},
		{Name: "summary.guest.toolsRunningStatus", Val: string(state)},
	}
	if running {
		changes = append(changes, types.PropertyChange{Name: "guest.net", Val: guestNICs(vm)})
	}
	simulator.Map.Update(vm, changes)
}

// guestNICs is what tools would report: every card with its network's name.
func guestNICs(vm *simulator.VirtualMachine) []types.GuestNicInfo {
	var all []types.GuestNicInfo
	for _, device := range vm.Config.Hardware.Device {
		if d, ok := device.(types.BaseVirtualEthernetCard); ok {
			card := d.GetVirtualEthernetCard()
			info := types.GuestNicInfo{MacAddress: card.MacAddress, DeviceConfigId: card.Key, Connected: card.Connectable.Connected}
			if network := networkOf(card); network != nil {
				info.Network = networkName(*network)
			}
			all = append(all, info)
		}
	}
	return all
}

func networkName(ref types.ManagedObjectReference) string {
	switch n := simulator.Map.Get(ref).(type) {
	case *mo.Network:
		return n.Name
	case *simulator.DistributedVirtualPortgroup:
		return n.Name
	}
	return ""
}
