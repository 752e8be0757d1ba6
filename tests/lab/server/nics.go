package main

import (
	"crypto/rand"
	"fmt"
	"net"
	"strconv"
	"sync/atomic"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

var portSerial int64

// planNIC checks a card's network and gives it an address and a port.
func (l *Lab) planNIC(card *types.VirtualEthernetCard, invalid *types.InvalidDeviceSpec) types.BaseMethodFault {
	network := networkOf(card)
	if network == nil {
		return &types.InvalidDeviceBacking{InvalidDeviceSpec: *invalid}
	}
	switch b := card.Backing.(type) {
	case *types.VirtualEthernetCardNetworkBackingInfo:
		b.Network = network
	case *types.VirtualEthernetCardDistributedVirtualPortBackingInfo:
		if b.Port.PortKey == "" {
			b.Port.PortKey = strconv.FormatInt(atomic.AddInt64(&portSerial, 1), 10)
		}
	}
	if card.MacAddress == "" {
		card.AddressType = string(types.VirtualEthernetCardMacTypeAssigned)
		card.MacAddress = newMAC()
		return nil
	}
	address, err := net.ParseMAC(card.MacAddress)
	if err != nil || len(address) != 6 || address[0]&1 == 1 {
		return invalid
	}
	card.MacAddress = address.String()
	return nil
}

// networkOf finds the network that a card's backing names; nil for none.
func networkOf(card *types.VirtualEthernetCard) *types.ManagedObjectReference {
	switch b := card.Backing.(type) {
	case *types.VirtualEthernetCardNetworkBackingInfo:
		for _, e := range simulator.Map.All("Network") {
			if n, ok := e.(*mo.Network); ok && n.Name == b.DeviceName {
				return &n.Self
			}
		}
	case *types.VirtualEthernetCardDistributedVirtualPortBackingInfo:
		ref := types.ManagedObjectReference{Type: "DistributedVirtualPortgroup", Value: b.Port.PortgroupKey}
		if simulator.Map.Get(ref) != nil {
			return &ref
		}
	}
	return nil
}

// newMAC is an unused address of the range that vCenter assigns from.
func newMAC() string {
	used := map[string]bool{}
	for _, e := range simulator.Map.All("VirtualMachine") {
		for _, device := range e.(*simulator.VirtualMachine).Config.Hardware.Device {
			if card, ok := device.(types.BaseVirtualEthernetCard); ok {
				used[card.GetVirtualEthernetCard().MacAddress] = true
			}
		}
	}
	for {
		b := make([]byte, 3)
		_, _ = rand.Read(b)
		mac := fmt.Sprintf("00:50:56:%02x:%02x:%02x", 0x80|b[0]&0x3f, b[1], b[2])
		if !used[mac] && !reservedMAC(mac) {
			return mac
		}
	}
}
