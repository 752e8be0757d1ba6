package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/vmware/govmomi/vim25/types"
)

func init() {
	handlers["VirtualDiskManager.CreateVirtualDisk_Task"] = createVirtualDisk
	handlers["VirtualDiskManager.DeleteVirtualDisk_Task"] = deleteVirtualDisk
	handlers["VirtualDiskManager.MoveVirtualDisk_Task"] = moveVirtualDisk
	handlers["VirtualDiskManager.CopyVirtualDisk_Task"] = copyVirtualDisk
	handlers["VirtualDiskManager.ExtendVirtualDisk_Task"] = extendVirtualDisk
	handlers["VirtualDiskManager.QueryVirtualDiskUuid"] = queryVirtualDiskUUID
	handlers["VirtualDiskManager.SetVirtualDiskUuid"] = setVirtualDiskUUID
	handlers["FileManager.DeleteDatastoreFile_Task"] = deleteDatastoreFile
}

func createVirtualDisk(c *call) (interface{}, types.BaseMethodFault) {
	r := c.method.Body.(*types.CreateVirtualDisk_Task)
	spec, ok := r.Spec.(*types.FileBackedVirtualDiskSpec)
	if !ok || spec.CapacityKb <= 0 {
		return nil, &types.InvalidArgument{InvalidProperty: "spec.capacityKb"}
	}
	file, fault := resolve(r.Name)
	if fault != nil {
		return nil, fault
	}
	if _, err := os.Stat(filepath.Dir(file)); err != nil {
		return nil, &types.FileNotFound{FileFault: types.FileFault{File: filepath.Dir(r.Name)}}
	}
	return r.Name, c.lab.createDisk(file, "", spec.CapacityKb*1024)
}

// ownDisk is the host path of a disk that is there and that nobody uses.
func (l *Lab) ownDisk(name string) (string, types.BaseMethodFault) {
	file, fault := resolve(name)
	if fault != nil {
		return "", fault
	}
	if _, err := os.Stat(file); err != nil {
		return "", &types.FileNotFound{FileFault: types.FileFault{File: name}}
	}
	l.world.RLock()
	defer l.world.RUnlock()
	if lockedBy(nil, name, true) != nil {
		return "", &types.FileLocked{FileFault: types.FileFault{File: name}}
	}
	return file, nil
}

// freePlace is the host path of a disk that is not there yet, or may be overwritten.
func freePlace(name string, force *bool) (string, types.BaseMethodFault) {
	file, fault := resolve(name)
	if fault != nil {
		return "", fault
	}
	if _, err := os.Stat(file); err == nil && (force == nil || !*force) {
		return "", &types.FileAlreadyExists{FileFault: types.FileFault{File: name}}
	}
	return file, nil
}

func deleteVirtualDisk(c *call) (interface{}, types.BaseMethodFault) {
	file, fault := c.lab.ownDisk(c.method.Body.(*types.DeleteVirtualDisk_Task).Name)
	if fault != nil {
		return nil, fault
	}
	os.Remove(file)
	c.lab.disks.forget(file)
	return nil, nil
}

func moveVirtualDisk(c *call) (interface{}, types.BaseMethodFault) {
	r := c.method.Body.(*types.MoveVirtualDisk_Task)
	from, fault := c.lab.ownDisk(r.SourceName)
	if fault != nil {
		return nil, fault
	}
	to, fault := freePlace(r.DestName, r.Force)
	if fault != nil {
		return nil, fault
	}
	if err := os.Rename(from, to); err != nil {
		return nil, &types.CannotCreateFile{FileFault: types.FileFault{File: r.DestName}}
	}
	c.lab.disks.move(from, to)
	return nil, nil
}

// copyVirtualDisk makes one disk with the content of a whole chain.
func copyVirtualDisk(c *call) (interface{}, types.BaseMethodFault) {
	r := c.method.Body.(*types.CopyVirtualDisk_Task)
	from, fault := resolve(r.SourceName)
	if fault != nil {
		return nil, fault
	}
	to, fault := freePlace(r.DestName, r.Force)
	if fault != nil {
		return nil, fault
	}
	return nil, c.lab.flatten(from, to)
}

func (l *Lab) flatten(from, to string) types.BaseMethodFault {
	if _, fault := diskChain(from); fault != nil {
		return fault
	}
	if _, err := imageTool("convert", "-q", "-U", "-f", "vmdk", "-O", "vmdk", from, to); err != nil {
		os.Remove(to)
		l.logf("%v", err)
		return &types.CannotCreateFile{FileFault: types.FileFault{File: datastorePath(to)}}
	}
	return nil
}

func extendVirtualDisk(c *call) (interface{}, types.BaseMethodFault) {
	r := c.method.Body.(*types.ExtendVirtualDisk_Task)
	file, fault := c.lab.ownDisk(r.Name)
	if fault != nil {
		return nil, fault
	}
	chain, fault := diskChain(file)
	if fault != nil {
		return nil, fault
	}
	if r.NewCapacityKb*1024 < chain[0].Size {
		return nil, &types.InvalidArgument{InvalidProperty: "newCapacityKb"}
	}
	// QEMU cannot resize a VMDK in place: make it anew
	larger := file + ".new"
	defer os.Remove(larger)
	if fault := c.lab.createDisk(larger, "", r.NewCapacityKb*1024); fault != nil {
		return nil, fault
	}
	if _, err := imageTool("convert", "-q", "-n", "-f", "vmdk", "-O", "vmdk", file, larger); err != nil {
		return nil, &types.SystemError{Reason: err.Error()}
	}
	if err := os.Rename(larger, file); err != nil {
		return nil, &types.SystemError{Reason: err.Error()}
	}
	return nil, nil
}

func queryVirtualDiskUUID(c *call) (interface{}, types.BaseMethodFault) {
	name := c.method.Body.(*types.QueryVirtualDiskUuid).Name
	file, fault := resolve(name)
	if fault != nil {
		return nil, fault
	}
	if _, err := os.Stat(file); err != nil {
		return nil, &types.FileNotFound{FileFault: types.FileFault{File: name}}
	}
	return spacedUUID(c.lab.disks.get(file)), nil
}

func setVirtualDiskUUID(c *call) (interface{}, types.BaseMethodFault) {
	r := c.method.Body.(*types.SetVirtualDiskUuid)
	digits := strings.NewReplacer("-", "", " ", "").Replace(strings.ToLower(r.Uuid))
	if len(digits) != 32 || strings.Trim(digits, "0123456789abcdef") != "" {
		return nil, &types.InvalidArgument{InvalidProperty: "uuid"}
	}
	file, fault := c.lab.ownDisk(r.Name)
	if fault != nil {
		return nil, fault
	}
	c.lab.disks.set(file, strings.Join([]string{digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]}, "-"))
	return nil, nil
}

// spacedUUID writes a UUID as the disk manager does: "60 00 c2 9b …-…".
func spacedUUID(uuid string) string { return strings.TrimPrefix(vmwareSerial(uuid), "VMware-") }

// deleteDatastoreFile refuses what a running VM has open.
func deleteDatastoreFile(c *call) (interface{}, types.BaseMethodFault) {
	name := c.method.Body.(*types.DeleteDatastoreFile_Task).Name
	root, fault := resolve(name)
	if fault != nil {
		return nil, fault
	}
	err := filepath.Walk(root, func(path string, info os.FileInfo, err error) error {
		if err == nil && strings.HasSuffix(path, ".vmdk") {
			if _, fault := c.lab.ownDisk(datastorePath(path)); fault != nil {
				return fmt.Errorf("%s", faultText(fault))
			}
		}
		return nil
	})
	if err != nil {
		return nil, &types.FileLocked{FileFault: types.FileFault{File: name}}
	}
	return c.lab.libraryTask(c)
}
