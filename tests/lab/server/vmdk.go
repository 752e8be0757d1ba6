package main

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/vmware/govmomi/vim25/types"
)

// Disks are sparse VMDKs made by qemu-img; a child names its parent by path.

func imageTool(arguments ...string) ([]byte, error) {
	out, err := exec.Command("qemu-img", arguments...).Output()
	if failed, ok := err.(*exec.ExitError); ok {
		return nil, fmt.Errorf("qemu-img %s: %s", arguments[0], strings.TrimSpace(string(failed.Stderr)))
	}
	return out, err
}

// createDisk makes a disk; with a parent the size is the parent's.
func (l *Lab) createDisk(file, parent string, bytes int64) types.BaseMethodFault {
	name := datastorePath(file)
	if _, err := os.Stat(file); err == nil {
		return &types.FileAlreadyExists{FileFault: types.FileFault{File: name}}
	}
	if ds := datastoreOf(name); l.fullness.full(ds) {
		return &types.NoDiskSpace{FileFault: types.FileFault{File: name}, Datastore: ds.Name}
	}
	if err := os.MkdirAll(filepath.Dir(file), 0700); err != nil {
		return &types.CannotCreateFile{FileFault: types.FileFault{File: name}}
	}
	arguments := []string{"create", "-q", "-f", "vmdk"}
	if parent != "" {
		if _, err := os.Stat(parent); err != nil {
			return &types.FileNotFound{FileFault: types.FileFault{File: datastorePath(parent)}}
		}
		arguments = append(arguments, "-F", "vmdk", "-b", parent, file)
	} else {
		arguments = append(arguments, file, fmt.Sprint(bytes))
	}
	if _, err := imageTool(arguments...); err != nil {
		os.Remove(file)
		l.logf("%s: %v", name, err)
		return &types.CannotCreateFile{FileFault: types.FileFault{File: name}}
	}
	return nil
}

type diskLink struct {
	Filename string `json:"filename"`
	Size     int64  `json:"virtual-size"`
	Parent   string `json:"full-backing-filename"`
}

// diskChain describes a disk and its parents, the disk first.
func diskChain(file string) ([]diskLink, types.BaseMethodFault) {
	if _, err := os.Stat(file); err != nil {
		return nil, &types.FileNotFound{FileFault: types.FileFault{File: datastorePath(file)}}
	}
	out, err := imageTool("info", "-U", "--output=json", "--backing-chain", file)
	var chain []diskLink
	if err == nil {
		err = json.Unmarshal(out, &chain)
	}
	if err != nil || len(chain) == 0 {
		return nil, &types.InvalidDiskFormat{InvalidFormat: types.InvalidFormat{}}
	}
	return chain, nil
}

// diskIdentities are the UUIDs that a guest sees as its disk's serial number.
type diskIdentities struct {
	mu   sync.Mutex
	uuid map[string]string // host path ->
}

func (d *diskIdentities) get(file string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.uuid == nil {
		d.uuid = map[string]string{}
	}
	if d.uuid[file] == "" {
		d.uuid[file] = newDiskUUID()
	}
	return d.uuid[file]
}

func (d *diskIdentities) set(file, uuid string) {
	d.get(file)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.uuid[file] = uuid
}

func (d *diskIdentities) move(from, to string) {
	uuid := d.get(from)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.uuid[to] = uuid
	delete(d.uuid, from)
}

func (d *diskIdentities) forget(file string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.uuid, file)
}

// newDiskUUID is one with VMware's prefix, as ESXi makes them.
func newDiskUUID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b)
	copy(b, []byte{0x60, 0x00, 0xC2, 0x90 | b[3]&0x0f})
	h := hex.EncodeToString(b)
	return strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
}
