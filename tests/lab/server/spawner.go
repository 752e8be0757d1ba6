package main

import (
	"os/exec"
	"runtime"
	"syscall"
)

// spawner starts processes that die with the lab, even when it is killed: the
// kernel ends a child when the thread that made it ends, so one thread that
// never does makes them all.
type spawner struct {
	orders chan func()
}

func newSpawner() *spawner {
	s := &spawner{orders: make(chan func())}
	go func() {
		runtime.LockOSThread()
		for order := range s.orders {
			order()
		}
	}()
	return s
}

func (s *spawner) start(command *exec.Cmd) error {
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	result := make(chan error)
	s.orders <- func() { result <- command.Start() }
	return <-result
}
