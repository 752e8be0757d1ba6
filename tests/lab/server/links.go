package main

import (
	"fmt"
	"hash/fnv"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"github.com/vmware/govmomi/vim25/types"
)

// Every port group is a Linux bridge, made when the first NIC needs it. A NIC
// is a tap that lives exactly as long as the QEMU that holds it.
type networks struct {
	mu      sync.Mutex
	bridges map[string]bool
}

var macs sync.Map // addresses given out and not yet in the inventory

// reservedMAC reserves an address, and says whether somebody else has it.
func reservedMAC(mac string) bool {
	_, taken := macs.LoadOrStore(mac, true)
	return taken
}

func (l *Lab) bridgeName(network string) string {
	h := fnv.New32a()
	fmt.Fprint(h, l.run.path, "\x00", network)
	return fmt.Sprintf("lab%08x", h.Sum32())
}

func networkKey(backing types.BaseVirtualDeviceBackingInfo) string {
	switch b := backing.(type) {
	case *types.VirtualEthernetCardDistributedVirtualPortBackingInfo:
		return b.Port.PortgroupKey
	case *types.VirtualEthernetCardNetworkBackingInfo:
		return b.DeviceName
	}
	return ""
}

// openBridge makes sure that a network's bridge exists.
func (l *Lab) openBridge(network string) (string, error) {
	name := l.bridgeName(network)
	n := &l.networks
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.bridges[name] || ipTool("link", "show", name) == nil {
		return name, nil // ours, or whoever made it before us uses it as that network's uplink
	}
	if err := l.run.noteLink(name); err != nil {
		return "", err
	}
	if err := ipTool("link", "add", name, "type", "bridge"); err != nil {
		return "", err
	}
	if err := ipTool("link", "set", name, "up"); err != nil {
		return "", err
	}
	if n.bridges == nil {
		n.bridges = map[string]bool{}
	}
	n.bridges[name] = true
	return name, nil
}

func (n *networks) removeAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for name := range n.bridges {
		deleteLink(name)
	}
	n.bridges = nil
}

func deleteLink(name string) { _ = ipTool("link", "del", name) }

func ipTool(arguments ...string) error {
	out, err := exec.Command("ip", arguments...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %s", strings.Join(arguments, " "), strings.TrimSpace(string(out)))
	}
	return nil
}

const (
	tunSetIff  = 0x400454ca
	tunGetIff  = 0x800454d2
	iffTap     = 0x0002
	iffNoPI    = 0x1000
	iffVnetHdr = 0x4000
)

// openTap makes a tap in the network's bridge. It is gone when the last
// descriptor is closed. A distributed port whose key is the name of a tap is
// that tap: the port layer on this host has made it, with its own bridge and rules.
func (l *Lab) openTap(backing types.BaseVirtualDeviceBackingInfo) (*os.File, error) {
	if port := localPort(backing); port != "" {
		return attachTap(port)
	}
	bridge, err := l.openBridge(networkKey(backing))
	if err != nil {
		return nil, err
	}
	f, err := attachTap("labtap%d")
	if err != nil {
		return nil, err
	}
	if err := ipTool("link", "set", tapName(f), "master", bridge, "up"); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func localPort(backing types.BaseVirtualDeviceBackingInfo) string {
	b, ok := backing.(*types.VirtualEthernetCardDistributedVirtualPortBackingInfo)
	if !ok || b.Port.PortKey == "" {
		return ""
	}
	if ipTool("link", "show", b.Port.PortKey) != nil {
		return ""
	}
	return b.Port.PortKey
}

func tapName(f *os.File) string {
	var request [40]byte
	_, _, _ = syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), tunGetIff, uintptr(unsafe.Pointer(&request[0])))
	return strings.TrimRight(string(request[:16]), "\x00")
}

// attachTap opens the tap of that name, made if it does not exist.
func attachTap(name string) (*os.File, error) {
	fd, err := syscall.Open("/dev/net/tun", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/net/tun: %w", err)
	}
	f := os.NewFile(uintptr(fd), "tap")
	var request [40]byte
	copy(request[:15], name)
	*(*uint16)(unsafe.Pointer(&request[16])) = iffTap | iffNoPI | iffVnetHdr
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), tunSetIff, uintptr(unsafe.Pointer(&request[0]))); e != 0 {
		f.Close()
		return nil, fmt.Errorf("TUNSETIFF: %w", e)
	}
	return f, nil
}
