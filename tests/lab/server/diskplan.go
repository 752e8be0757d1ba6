package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// diskFile is a disk file that a plan makes.
type diskFile struct {
	disk         *types.VirtualDisk
	file, parent string
}

// planDisk decides the disk's file: made anew, a child, or one that exists.
func (l *Lab) planDisk(p *plan, vm *simulator.VirtualMachine, spec *types.VirtualDeviceConfigSpec, disk *types.VirtualDisk, invalid *types.InvalidDeviceSpec) types.BaseMethodFault {
	backing, ok := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
	if !ok {
		return invalid
	}
	if fault := p.nameDisk(vm, backing); fault != nil {
		return fault
	}
	file, fault := resolve(backing.FileName)
	if fault != nil {
		return fault
	}
	backing.Datastore = &datastoreOf(backing.FileName).Self
	backing.Uuid = l.disks.get(file)
	if backing.ThinProvisioned == nil {
		backing.ThinProvisioned = types.NewBool(false)
	}
	if backing.DiskMode == "" {
		backing.DiskMode = string(types.VirtualDiskModePersistent)
	}
	switch spec.FileOperation {
	case types.VirtualDeviceConfigSpecFileOperationCreate, types.VirtualDeviceConfigSpecFileOperationReplace:
		made := diskFile{disk: disk, file: file}
		if spec.FileOperation == types.VirtualDeviceConfigSpecFileOperationReplace {
			p.replace = append(p.replace, file)
		} else if _, err := os.Stat(file); err == nil {
			return &types.FileAlreadyExists{FileFault: types.FileFault{File: backing.FileName}}
		}
		if backing.Parent != nil {
			if made.parent, fault = resolve(backing.Parent.FileName); fault != nil {
				return fault
			}
		} else if diskBytes(disk) <= 0 {
			return invalid
		}
		p.create = append(p.create, made)
	case "":
		if _, err := os.Stat(file); err != nil {
			return &types.FileNotFound{FileFault: types.FileFault{File: backing.FileName}}
		}
	default:
		return invalid
	}
	return nil
}

// nameDisk completes "" and "[datastore]" to a file in the VM's directory.
func (p *plan) nameDisk(vm *simulator.VirtualMachine, backing *types.VirtualDiskFlatVer2BackingInfo) types.BaseMethodFault {
	var path object.DatastorePath
	if backing.FileName != "" && !path.FromString(backing.FileName) {
		return &types.InvalidDatastorePath{DatastorePath: backing.FileName}
	}
	if strings.HasSuffix(path.Path, ".vmdk") {
		return nil
	}
	var home object.DatastorePath
	home.FromString(vm.Config.Files.VmPathName)
	if path.Datastore == "" {
		path.Datastore = home.Datastore
	}
	directory := path.Path
	if directory == "" {
		directory = filepath.Dir(home.Path)
	}
	for n := 0; ; n++ {
		name := vm.Config.Name
		if n > 0 {
			name = fmt.Sprintf("%s_%d", name, n)
		}
		path.Path = directory + "/" + name + ".vmdk"
		file, fault := resolve(path.String())
		if fault != nil {
			return fault
		}
		if _, err := os.Stat(file); err != nil && !p.creates(file) {
			backing.FileName = path.String()
			return nil
		}
	}
}

func (p *plan) creates(file string) bool {
	for _, c := range p.create {
		if c.file == file {
			return true
		}
	}
	return false
}

func diskFileName(disk *types.VirtualDisk) string {
	if b, ok := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo); ok {
		return b.FileName
	}
	return ""
}

func diskBytes(disk *types.VirtualDisk) int64 {
	if disk.CapacityInBytes != 0 {
		return disk.CapacityInBytes
	}
	return disk.CapacityInKB * 1024
}
