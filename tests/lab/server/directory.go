package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// A run of the lab owns one directory, locked while it lives. What a killed run
// left (its directory, bridges, and a QEMU that outlived it) is swept by the
// next: the lock tells the dead from the living.
type runDirectory struct {
	path string
	lock *os.File
}

func newRunDirectory(parent string) (*runDirectory, error) {
	if err := os.MkdirAll(parent, 0700); err != nil {
		return nil, err
	}
	sweep(parent)
	path, err := os.MkdirTemp(parent, "run-")
	if err != nil {
		return nil, err
	}
	r := &runDirectory{path: path}
	if r.lock, err = lockFile(filepath.Join(path, "lock")); err != nil {
		return nil, err
	}
	return r, os.Mkdir(filepath.Join(path, "vm"), 0700)
}

func (r *runDirectory) remove() { _ = os.RemoveAll(r.path) }

func (r *runDirectory) vm(id string) string { return filepath.Join(r.path, "vm", id) }

// noteLink records a network interface before it is made, for the sweep.
func (r *runDirectory) noteLink(name string) error {
	f, err := os.OpenFile(filepath.Join(r.path, "links"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = fmt.Fprintln(f, name)
	return err
}

func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func sweep(parent string) {
	runs, _ := filepath.Glob(filepath.Join(parent, "run-*"))
	for _, path := range runs {
		lock, err := lockFile(filepath.Join(path, "lock"))
		if err != nil {
			continue // alive
		}
		killUsersOf(path)
		links, _ := os.ReadFile(filepath.Join(path, "links"))
		for _, name := range strings.Fields(string(links)) {
			deleteLink(name)
		}
		_ = os.RemoveAll(path)
		lock.Close()
	}
}

// killUsersOf ends the QEMU processes whose command line names the directory.
func killUsersOf(directory string) {
	pidfiles, _ := filepath.Glob(filepath.Join(directory, "vm", "*", "pid"))
	for _, file := range pidfiles {
		text, _ := os.ReadFile(file)
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			continue
		}
		words, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if bytes.Contains(words, []byte(directory)) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}
