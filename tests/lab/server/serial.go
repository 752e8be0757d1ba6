package main

import (
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/vmware/govmomi/vim25/types"
)

// serialPort joins a guest's serial port to what backs it. QEMU's end is a
// socket whose other end the lab holds; as on ESXi it is the host, not the VM,
// that connects to the network or writes the file, and it can be told otherwise
// while the VM runs. What a port without a backing sends is lost.
type serialPort struct {
	lab   *Lab
	vm    types.ManagedObjectReference
	guest net.Conn
	mu    sync.Mutex
	sink  io.WriteCloser
	stop  chan struct{} // closes when the present backing ends

	next *heir // what carries on after a hand-over
}

// socketPair is a stream between QEMU (the file) and the lab (the connection).
func socketPair() (*os.File, *net.UnixConn, error) {
	ends, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	theirs, ours := os.NewFile(uintptr(ends[0]), "qemu"), os.NewFile(uintptr(ends[1]), "lab")
	defer ours.Close()
	c, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return theirs, c.(*net.UnixConn), nil
}

// channel adds a character device that is a socket to the lab.
func (b *launch) channel(id string) (*net.UnixConn, error) {
	theirs, ours, err := socketPair()
	if err != nil {
		return nil, err
	}
	b.connections = append(b.connections, ours)
	b.add("-chardev", fmt.Sprintf("socket,id=%s,fd=%d", id, b.pass(theirs)))
	return ours, nil
}

func (b *launch) serialPort(d *types.VirtualSerialPort) error {
	index := len(b.serial)
	if index >= 4 {
		return fmt.Errorf("serial port %d: the lab boots with four at most", index+1)
	}
	guest, err := b.channel(nodeName(d.Key))
	if err != nil {
		return err
	}
	b.object("-device", arguments{"driver": "isa-serial", "id": deviceID(d.Key), "chardev": nodeName(d.Key), "index": index})
	port := &serialPort{lab: b.lab, vm: b.vm.Self, guest: guest}
	b.serial[d.Key] = port
	return port.back(d)
}

// run carries what the guest sends, until QEMU ends.
func (p *serialPort) run() {
	buffer := make([]byte, 64<<10)
	for {
		n, err := p.guest.Read(buffer)
		if n > 0 {
			p.mu.Lock()
			sink := p.sink
			p.mu.Unlock()
			if sink != nil {
				_, _ = sink.Write(buffer[:n]) // a dead peer is noticed by the one who reads from it
			}
		}
		if err != nil {
			p.unback()
			return
		}
	}
}

func (p *serialPort) setSink(sink io.WriteCloser) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sink != nil {
		p.sink.Close()
	}
	p.sink = sink
}

func (p *serialPort) unback() {
	p.mu.Lock()
	if p.stop != nil {
		close(p.stop)
		p.stop = nil
	}
	p.mu.Unlock()
	p.setSink(nil)
}

// back gives the port the backing that the device now describes.
func (p *serialPort) back(d *types.VirtualSerialPort) error {
	p.unback()
	if !d.Connectable.Connected {
		return nil
	}
	stop := make(chan struct{})
	switch b := d.Backing.(type) {
	case *types.VirtualSerialPortFileBackingInfo:
		file, fault := resolve(b.FileName)
		if fault != nil {
			return fmt.Errorf("serial port: %s", faultText(fault))
		}
		f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0600)
		if err != nil {
			return err
		}
		p.setSink(f)
	case *types.VirtualSerialPortURIBackingInfo:
		connect, err := p.connector(b, stop)
		if err != nil {
			return err
		}
		go p.serve(connect, stop)
	default:
		return fmt.Errorf("serial port: the lab has no %T", b)
	}
	p.mu.Lock()
	p.stop = stop
	p.mu.Unlock()
	return nil
}

// connector makes the function that waits for the next connection of a network backing.
func (p *serialPort) connector(b *types.VirtualSerialPortURIBackingInfo, stop chan struct{}) (func() (net.Conn, error), error) {
	if b.ProxyURI != "" {
		return p.proxyConnector(b, stop)
	}
	u, err := url.Parse(b.ServiceURI)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "tcp" {
		return nil, fmt.Errorf("serial port: URI scheme %q; the lab has tcp", u.Scheme)
	}
	switch types.VirtualDeviceURIBackingOptionDirection(b.Direction) {
	case types.VirtualDeviceURIBackingOptionDirectionClient:
		return func() (net.Conn, error) { return net.DialTimeout("tcp", u.Host, 10*time.Second) }, nil
	case types.VirtualDeviceURIBackingOptionDirectionServer:
		listener, err := net.Listen("tcp", u.Host)
		if err != nil {
			return nil, err
		}
		go func() {
			<-stop
			listener.Close()
		}()
		return listener.Accept, nil
	}
	return nil, fmt.Errorf("serial port: direction %q", b.Direction)
}

// serve keeps one connection after the other until the backing ends.
func (p *serialPort) serve(connect func() (net.Conn, error), stop chan struct{}) {
	for !isClosed(stop) {
		c, err := connect()
		if err != nil {
			select {
			case <-stop:
			case <-time.After(time.Second):
			}
			continue
		}
		p.carry(c, stop)
	}
}

// carry joins one connection with the guest until either side ends it.
func (p *serialPort) carry(c net.Conn, stop chan struct{}) {
	ended := make(chan struct{})
	go func() {
		select {
		case <-stop:
			c.Close()
		case <-ended:
		}
	}()
	p.setSink(c)
	_, _ = io.Copy(p.guest, c)
	close(ended)
	c.Close()
	for next := p.takeHeir(); next != nil; next = p.takeHeir() {
		p.setSink(next)
		select {
		case <-stop:
			next.Close()
		case <-next.ended:
		}
	}
}

func (p *serialPort) takeHeir() *heir {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := p.next
	p.next = nil
	return next
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
