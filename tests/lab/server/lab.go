package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/vmware/govmomi/simulator"
	_ "github.com/vmware/govmomi/vapi/simulator" // tags, by REST
)

type options struct {
	listen, user, password string
	directory, apiVersion  string
	datastores, portgroups int
	qemu, trace            bool
}

// Lab is one simulated vCenter with its QEMU processes.
//
// The library's objects have no consistent locking of their own. Here they are
// read under world.RLock and changed under world.Lock, and nothing that waits
// (a disk tool, QEMU, a client) is done while holding it.
type Lab struct {
	options
	model    *simulator.Model
	server   *simulator.Server
	run      *runDirectory
	world    sync.RWMutex
	system   *session // in whose name the lab itself acts
	sessions sessions
	changes  *changes
	faults   faults
	calls    counters
	machines machines
	disks    diskIdentities
	spawner  *spawner
	networks networks
	fullness fullness
}

func newLab(o options) (*Lab, error) {
	if trial, err := net.Listen("tcp", o.listen); err != nil {
		return nil, err // the library would panic
	} else if err := trial.Close(); err != nil {
		return nil, err
	}
	run, err := newRunDirectory(o.directory)
	if err != nil {
		return nil, err
	}
	os.Setenv("TMPDIR", run.path) // the library makes its datastores there
	l := &Lab{options: o, run: run, spawner: newSpawner()}
	if err := l.buildInventory(); err != nil {
		run.remove()
		return nil, fmt.Errorf("inventory: %w", err)
	}
	l.system = newSession("lab")
	l.changes = newChanges()
	simulator.Map.AddHandler(l.changes)
	l.model.Service.TLS = new(tls.Config)
	l.model.Service.RegisterEndpoints = true
	l.model.Service.Listen = &url.URL{Host: o.listen, User: url.UserPassword(o.user, o.password)}
	l.sessions.ended = l.changes.forgetSession
	l.sessions.addUser(o.user, o.password)
	l.preparePermissions()
	s := l.model.Service.NewServer()
	s.Config.Handler = &front{lab: l, library: s.Config.Handler}
	l.server = s
	return l, nil
}

func (l *Lab) close() {
	l.machines.killAll()
	l.networks.removeAll()
	l.run.remove()
}

func (l *Lab) logf(format string, a ...interface{}) {
	fmt.Fprintf(os.Stderr, "%s lab: %s\n", time.Now().Format("15:04:05.000"), fmt.Sprintf(format, a...))
}
