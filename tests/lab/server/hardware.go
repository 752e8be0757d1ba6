package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vmware/govmomi/vim25/types"
)

// Each device as QEMU takes it, the same on the command line and when plugged
// into a running machine.

func deviceID(key int32) string { return fmt.Sprintf("dev%d", key) }
func nodeName(key int32) string { return fmt.Sprintf("node%d", key) }

func (b *launch) scsi(c types.BaseVirtualSCSIController, number int) error {
	if _, ok := c.(*types.ParaVirtualSCSIController); !ok {
		return fmt.Errorf("%T: the lab boots with pvscsi only", c)
	}
	id := deviceID(c.GetVirtualSCSIController().Key)
	b.object("-device", arguments{"driver": "pvscsi", "id": id, "bus": "pcie.0", "addr": fmt.Sprintf("%#x", 0x10+c.GetVirtualSCSIController().BusNumber)})
	b.add("-smbios", fmt.Sprintf("type=41,designation=SCSI%d,instance=%d,kind=other,pcidev=%s",
		c.GetVirtualSCSIController().BusNumber, number, id))
	return nil
}

func (b *launch) cdrom(d *types.VirtualCdrom, number int) error {
	backing, ok := d.Backing.(*types.VirtualCdromIsoBackingInfo)
	if !ok || backing.FileName == "" || !d.Connectable.Connected {
		return nil
	}
	file, fault := resolve(backing.FileName)
	if fault != nil {
		return fmt.Errorf("CD-ROM: %s", faultText(fault))
	}
	if _, err := os.Stat(file); err != nil {
		return fmt.Errorf("CD-ROM: no file %s", backing.FileName)
	}
	b.object("-blockdev", arguments{"driver": "raw", "node-name": nodeName(d.Key), "read-only": true,
		"file": arguments{"driver": "file", "filename": file, "read-only": true}})
	b.object("-device", arguments{"driver": "ide-cd", "id": deviceID(d.Key), "drive": nodeName(d.Key), "bus": fmt.Sprintf("ide.%d", number)})
	return nil
}

func (b *launch) disk(d *types.VirtualDisk) error {
	node, err := diskNode(d, b.directory)
	if err != nil {
		return err
	}
	b.object("-blockdev", node)
	b.object("-device", diskDevice(d, uuidsEnabled(extra(b.vm, "disk.EnableUUID"))))
	return nil
}

// diskNode is the block device of a disk. What is written to a non-persistent
// one goes to a file that ends with the power.
func diskNode(d *types.VirtualDisk, directory string) (arguments, error) {
	backing := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
	file, fault := resolve(backing.FileName)
	if fault != nil {
		return nil, fmt.Errorf("disk %s: %s", backing.FileName, faultText(fault))
	}
	name := nodeName(d.Key)
	vmdk := arguments{"driver": "vmdk", "file": arguments{"driver": "file", "filename": file}}
	if !strings.HasSuffix(backing.DiskMode, "nonpersistent") {
		vmdk["node-name"] = name
		return vmdk, nil
	}
	overlay := overlayFile(directory, d.Key)
	if _, err := os.Stat(overlay); err != nil {
		if _, err := imageTool("create", "-q", "-f", "qcow2", "-u", "-F", "vmdk", "-b", file, overlay, fmt.Sprint(diskBytes(d))); err != nil {
			return nil, err
		}
	}
	vmdk["read-only"] = true
	return arguments{"driver": "qcow2", "node-name": name, "backing": vmdk,
		"file": arguments{"driver": "file", "filename": overlay}}, nil
}

func overlayFile(directory string, key int32) string {
	return filepath.Join(directory, fmt.Sprintf("overlay-%d.qcow2", key))
}

func uuidsEnabled(option string) bool { return strings.EqualFold(option, "true") }

func diskDevice(d *types.VirtualDisk, uuids bool) arguments {
	device := arguments{"driver": "scsi-hd", "id": deviceID(d.Key), "drive": nodeName(d.Key),
		"bus": deviceID(d.ControllerKey) + ".0", "scsi-id": *d.UnitNumber, "vendor": "VMware", "product": "Virtual disk"}
	if uuids {
		serial := strings.ToLower(strings.ReplaceAll(d.Backing.(*types.VirtualDiskFlatVer2BackingInfo).Uuid, "-", ""))
		device["serial"] = serial
		if wwn, err := strconv.ParseUint(fmt.Sprintf("%.16s", serial), 16, 64); err == nil {
			device["wwn"] = wwn
		}
	}
	return device
}

func (b *launch) nic(card *types.VirtualEthernetCard) error {
	tap, err := b.lab.openTap(card.Backing)
	if err != nil {
		return err
	}
	b.object("-netdev", arguments{"type": "tap", "id": nodeName(card.Key), "fd": fmt.Sprint(b.pass(tap))})
	b.object("-device", nicDevice(card))
	return nil
}

// nicDevice has a fixed place on the bridge that lets devices come and go: a
// machine that is restored finds every card where it was, however it came there.
// (As a PCIe device its serial number is its address: an instant clone could not
// have another.)
func nicDevice(card *types.VirtualEthernetCard) arguments {
	return arguments{"driver": "vmxnet3", "id": deviceID(card.Key), "netdev": nodeName(card.Key), "mac": card.MacAddress,
		"x-disable-pcie": true, "bus": "hot", "addr": fmt.Sprintf("%#x", *card.UnitNumber-firstNICUnit+1)}
}
