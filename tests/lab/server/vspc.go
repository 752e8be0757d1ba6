package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"sync"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// A serial port with a proxyURI: the host talks telnet to a virtual serial port
// concentrator, with VMware's option 232 telling it which VM this is.
// (VMware, "Using a Proxy with vSphere Virtual Serial Ports".)

const (
	telnetIAC  = 255
	telnetDONT = 254
	telnetDO   = 253
	telnetWONT = 252
	telnetWILL = 251
	telnetSB   = 250
	telnetSE   = 240

	optionBinary = 0
	optionEcho   = 1
	optionSGA    = 3
	optionVMware = 232

	knownSuboptions1 = 0
	knownSuboptions2 = 1
	vmotionBegin     = 40
	vmotionGoahead   = 41
	vmotionPeer      = 44
	vmotionPeerOK    = 45
	vmotionComplete  = 46
	doProxy          = 70
	willProxy        = 71
	wontProxy        = 73
	vmVCUUID         = 80
	getVMVCUUID      = 81
	vmName           = 82
	getVMName        = 83
)

// vspc is one connection to a concentrator: a net.Conn of the guest's bytes.
type vspc struct {
	net.Conn
	name, uuid string
	backing    *types.VirtualSerialPortURIBackingInfo
	mu         sync.Mutex // writing
	parser     telnetParser
	pending    []byte
	goahead    chan []byte // sequence and secret of a vMotion
	peerOK     chan bool
}

func (p *serialPort) proxyConnector(b *types.VirtualSerialPortURIBackingInfo, stop chan struct{}) (func() (net.Conn, error), error) {
	u, err := url.Parse(b.ProxyURI)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "telnet" && u.Scheme != "tcp" {
		return nil, fmt.Errorf("serial port: proxy scheme %q; the lab has telnet", u.Scheme)
	}
	vm := findVM(p.vm)
	return func() (net.Conn, error) { return dialVSPC(u.Host, vm, b) }, nil
}

func dialVSPC(host string, vm *simulator.VirtualMachine, b *types.VirtualSerialPortURIBackingInfo) (*vspc, error) {
	c, err := net.DialTimeout("tcp", host, 10*time.Second)
	if err != nil {
		return nil, err
	}
	v := &vspc{Conn: c, name: vm.Name, uuid: vmwareSerial(vm.Config.InstanceUuid)[len("VMware-"):], backing: b,
		goahead: make(chan []byte, 1), peerOK: make(chan bool, 1)}
	var hello []byte
	for _, option := range []byte{optionBinary, optionSGA, optionEcho, optionVMware} {
		hello = append(hello, telnetIAC, telnetWILL, option)
	}
	hello = append(hello, telnetIAC, telnetDO, optionBinary, telnetIAC, telnetDO, optionSGA)
	if err := v.send(hello); err != nil {
		c.Close()
		return nil, err
	}
	return v, nil
}

func (v *vspc) send(raw []byte) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	_, err := v.Conn.Write(raw)
	return err
}

// Write sends the guest's bytes.
func (v *vspc) Write(data []byte) (int, error) {
	if err := v.send(bytes.ReplaceAll(data, []byte{telnetIAC}, []byte{telnetIAC, telnetIAC})); err != nil {
		return 0, err
	}
	return len(data), nil
}

func (v *vspc) sub(command byte, data []byte) error {
	message := []byte{telnetIAC, telnetSB, optionVMware, command}
	message = append(message, bytes.ReplaceAll(data, []byte{telnetIAC}, []byte{telnetIAC, telnetIAC})...)
	return v.send(append(message, telnetIAC, telnetSE))
}

// Read receives what is for the guest, and answers what is for the host.
func (v *vspc) Read(into []byte) (int, error) {
	for len(v.pending) == 0 {
		raw := make([]byte, 4096)
		n, err := v.Conn.Read(raw)
		if err != nil {
			return 0, err
		}
		if v.pending, err = v.parser.feed(raw[:n], v.command, v.suboption); err != nil {
			return 0, err
		}
	}
	n := copy(into, v.pending)
	v.pending = v.pending[n:]
	return n, nil
}

// command answers an option request.
func (v *vspc) command(verb, option byte) error {
	switch {
	case verb == telnetDO && option == optionVMware:
		return v.sub(knownSuboptions1, []byte{knownSuboptions1, knownSuboptions2, vmotionBegin, vmotionGoahead, vmotionPeer,
			vmotionPeerOK, vmotionComplete, doProxy, willProxy, wontProxy, vmVCUUID, getVMVCUUID, vmName, getVMName})
	case verb == telnetWILL && option != optionBinary && option != optionSGA:
		return v.send([]byte{telnetIAC, telnetDONT, option})
	case verb == telnetDO && option > optionSGA:
		return v.send([]byte{telnetIAC, telnetWONT, option})
	}
	return nil
}

func (v *vspc) suboption(option byte, data []byte) error {
	if option != optionVMware || len(data) == 0 {
		return nil
	}
	switch data[0] {
	case knownSuboptions2:
		direction := byte('C')
		if v.backing.Direction == "server" {
			direction = 'S'
		}
		return v.sub(doProxy, append([]byte{direction}, v.backing.ServiceURI...))
	case getVMVCUUID:
		return v.sub(vmVCUUID, []byte(v.uuid))
	case getVMName:
		return v.sub(vmName, []byte(v.name))
	case wontProxy:
		return fmt.Errorf("the concentrator does not take %s", v.name)
	case vmotionGoahead:
		v.goahead <- append([]byte(nil), data[1:]...)
	case vmotionPeerOK:
		v.peerOK <- true
	}
	return nil
}

const handOverTime = 10 * time.Second

// heir is the connection of a VM's new host; its input reaches the guest at once.
type heir struct {
	*vspc
	ended chan struct{}
}

// handOver does what vMotion does with a port behind a proxy: the old host
// announces it, the new host connects and names the peer, the old one lets go.
func (p *serialPort) handOver() {
	p.mu.Lock()
	sink := p.sink
	p.mu.Unlock()
	var old *vspc
	switch s := sink.(type) {
	case *vspc:
		old = s
	case *heir:
		old = s.vspc
	default:
		return
	}
	if err := p.handOverFrom(old); err != nil {
		p.lab.logf("vMotion of a serial port: %v", err)
	}
}

func (p *serialPort) handOverFrom(old *vspc) error {
	sequence := make([]byte, 8)
	_, _ = rand.Read(sequence)
	if err := old.sub(vmotionBegin, sequence); err != nil {
		return err
	}
	var cookie []byte
	select {
	case cookie = <-old.goahead:
	case <-time.After(handOverTime):
		return errors.New("the concentrator gives no go-ahead")
	}
	fresh, err := dialVSPC(old.RemoteAddr().String(), findVM(p.vm), old.backing)
	if err != nil {
		return err
	}
	next := &heir{vspc: fresh, ended: make(chan struct{})}
	go func() {
		_, _ = io.Copy(p.guest, fresh)
		close(next.ended)
	}()
	if err := fresh.sub(vmotionPeer, cookie); err != nil {
		fresh.Close()
		return err
	}
	select {
	case <-fresh.peerOK:
	case <-time.After(handOverTime):
		fresh.Close()
		return errors.New("the concentrator does not know the peer")
	}
	p.mu.Lock()
	p.next = next
	p.mu.Unlock()
	err = fresh.sub(vmotionComplete, sequence)
	old.Close()
	return err
}
