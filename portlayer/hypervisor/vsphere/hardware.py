"""A VM's virtual hardware as vSphere's device specs: pure functions from VmConfig and back.

The hardware of a VM that is off may lag behind its configuration: :func:`start_spec`
says what to change so that the next start has what is configured. Disks are
recognised by their file, NICs by their MAC address.

Disks are *independent*: a snapshot that an administrator takes must not turn the
caller's disk into the parent of a delta that nobody of ours knows. ESXi cannot
write-protect a disk; a read-only one is independent-nonpersistent: what the guest
writes to it never reaches the file, and several VMs can have it.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyVmomi import vim

from portlayer.hypervisor.base import Disk, HypervisorError, Nic, VmConfig
from portlayer.hypervisor.vsphere.places import DatastoreMap

__all__ = [
    "MAX_DISKS",
    "MAX_NICS",
    "Layout",
    "SerialDevices",
    "add_disk",
    "add_nic",
    "check_config",
    "create_spec",
    "disk_addresses",
    "disk_device",
    "display_name",
    "edit_serial",
    "instance_uuid",
    "nic_device",
    "options",
    "remove",
    "remove_disks",
    "serial_devices",
    "start_spec",
    "units",
]

MAX_DISKS = 15  # one pvscsi controller, whose own unit is 7
MAX_NICS = 10
_RESERVED_UNIT = 7
_IDE = 200  # the controllers that every VM has
_SIO = 400
_PVSCSI = -1000
_LONGEST_NAME = 80
_SUFFIX = ".vmdk"
_VM_ID = re.compile(r"[0-9a-f]{64}")
_DISK_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,19}")
_MAC = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")

_Spec = vim.vm.device.VirtualDeviceSpec
_device = vim.vm.device


@dataclass(frozen=True)
class Layout:
    """The files of one VM, as vSphere names them."""

    directory: str  # "[ds] …/vms/<id>"
    iso: str

    @property
    def vmx(self) -> str:
        return f"{self.directory}/vm.vmx"

    @property
    def console(self) -> str:
        return f"{self.directory}/console.log"

    @property
    def journal(self) -> str:
        return f"{self.directory}/journal"


def check_config(config: VmConfig) -> None:
    """Refuse what vSphere would refuse at the next start, or could take for something else."""
    name = config.id[:12]
    if not _VM_ID.fullmatch(config.id):
        raise HypervisorError(f"VM id {config.id!r}: expected 64 lower-case hex digits")
    if not 1 <= config.vcpus <= 128:
        raise HypervisorError(f"VM {name}: {config.vcpus} virtual CPUs; 1 to 128 are possible")
    if config.memory_mib < 32:
        raise HypervisorError(f"VM {name}: {config.memory_mib} MiB of memory; at least 32 are needed")
    for disk in config.disks:
        if not _DISK_ID.fullmatch(disk.id):
            raise HypervisorError(f"disk id {disk.id!r}: expected 1 to 20 letters, digits, '.', '_' or '-'")
        if disk.path.suffix != _SUFFIX:
            raise HypervisorError(f"disk {disk.id}: {disk.path} is no {_SUFFIX}")
    for nic in config.nics:
        if not _MAC.fullmatch(nic.mac):
            raise HypervisorError(f"NIC {nic.id}: {nic.mac!r} is not a MAC address")
    if config.shares:
        raise HypervisorError(f"VM {name}: {config.shares[0].path}: vSphere shares no directories with VMs")
    _unique(name, "disk", (disk.id for disk in config.disks))
    _unique(name, "file", (str(disk.path) for disk in config.disks))
    _unique(name, "NIC", (nic.id for nic in config.nics))
    _unique(name, "MAC address", (nic.mac.lower() for nic in config.nics))
    for what, count, most in (("disks", len(config.disks), MAX_DISKS), ("NICs", len(config.nics), MAX_NICS)):
        if count > most:
            raise HypervisorError(f"VM {name}: {count} {what}; {most} are possible")


def _memory(config: VmConfig) -> int:
    """vSphere counts in steps of 4 MiB."""
    return -(-config.memory_mib // 4) * 4


def _unique(vm: str, what: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise HypervisorError(f"VM {vm}: {what} {name} is there twice")
        seen.add(name)


def instance_uuid(vm: str) -> str:
    """By which a VM is found again when the answer to its creation was lost."""
    return str(uuid.UUID(vm[:32]))


def display_name(config: VmConfig) -> str:
    """What an administrator sees: ``name-shortid``, at most 80 characters; vSphere escapes three."""
    suffix = f"-{config.id[:12]}"
    name = config.name or "container"
    for character in "%/\\":
        name = name.replace(character, f"%{ord(character):02x}")
    return name[: _LONGEST_NAME - len(suffix)] + suffix


def create_spec(config: VmConfig, layout: Layout, extra: Mapping[str, str]) -> Any:
    """A VM with controller, CD-ROM and serial ports. Disks and NICs come with the first start."""
    check_config(config)
    identity = instance_uuid(config.id)
    return vim.vm.ConfigSpec(
        name=display_name(config),
        uuid=identity,
        instanceUuid=identity,
        guestId="other5xLinux64Guest",
        numCPUs=config.vcpus,
        memoryMB=_memory(config),
        files=vim.vm.FileInfo(vmPathName=layout.vmx),
        annotation=f"Container {config.id}",
        deviceChange=[
            _add(_device.ParaVirtualSCSIController(key=_PVSCSI, busNumber=0, sharedBus="noSharing")),
            _add(_cdrom(layout.iso)),
            *(_add(port) for port in _serial_ports(layout)),
        ],
        extraConfig=options({**_FIXED, **extra}),
    )


_FIXED = {
    "disk.EnableUUID": "TRUE",  # the guest sees each disk's own serial number
    "answer.msg.serial.file.open": "Append",  # or the VM waits for an administrator's answer
    "answer.msg.disk.duplicateUUID": "Yes",  # children have their parent's
    "isolation.tools.setInfo.disable": "FALSE",
    # or ESXi does not power on a VM with a MAC address outside of VMware's own range
    **{f"ethernet{number}.checkMACAddress": "FALSE" for number in range(MAX_NICS)},
}


def options(values: Mapping[str, str]) -> list[Any]:
    return [vim.option.OptionValue(key=key, value=value) for key, value in values.items()]


def _cdrom(iso: str) -> Any:
    return _device.VirtualCdrom(
        key=-2000,
        controllerKey=_IDE,
        unitNumber=0,
        backing=_device.VirtualCdrom.IsoBackingInfo(fileName=iso),
        connectable=_plugged(),
    )


def _plugged(*, connected: bool = True) -> Any:
    return _device.VirtualDevice.ConnectInfo(
        startConnected=connected, connected=connected, allowGuestControl=False
    )


def _serial_ports(layout: Layout) -> list[Any]:
    """ttyS0 console, ttyS1 channel, ttyS2 journal: the order is the guest's."""
    channel = _device.VirtualSerialPort.URIBackingInfo(direction="client", serviceURI="tcp://127.0.0.1:9")
    backings = (_file(layout.console), channel, _file(layout.journal))
    return [
        _device.VirtualSerialPort(
            key=-3000 - number,
            controllerKey=_SIO,
            backing=backing,
            yieldOnPoll=True,
            connectable=_plugged(),
        )
        for number, backing in enumerate(backings)
    ]


def _file(path: str) -> Any:
    return _device.VirtualSerialPort.FileBackingInfo(fileName=path)


@dataclass(frozen=True)
class SerialDevices:
    console: Any
    channel: Any
    journal: Any


def serial_devices(devices: Sequence[Any]) -> SerialDevices:
    """
    Raises:
        HypervisorError: the VM has not the three ports that we gave it.
    """
    ports: list[Any] = [device for device in devices if isinstance(device, _device.VirtualSerialPort)]
    files = [p for p in ports if isinstance(p.backing, _device.VirtualSerialPort.FileBackingInfo)]
    uris = [p for p in ports if isinstance(p.backing, _device.VirtualSerialPort.URIBackingInfo)]
    journals = [port for port in files if port.backing.fileName.endswith("/journal")]
    consoles = [port for port in files if port.backing.fileName.endswith("/console.log")]
    if len(journals) != 1 or len(consoles) != 1 or len(uris) != 1:
        raise HypervisorError(f"the VM's serial ports were changed: {len(files)} files, {len(uris)} networks")
    return SerialDevices(console=consoles[0], channel=uris[0], journal=journals[0])


def edit_serial(port: Any, *, uri: str = "", proxy: str = "", file: str = "") -> Any:
    """The same port with another backing; editing a file port, even to the same name, opens it anew."""
    if file:
        backing = _file(file)
    else:
        backing = _device.VirtualSerialPort.URIBackingInfo(direction="client", serviceURI=uri)
        if proxy:
            backing.proxyURI = proxy
    edited = _device.VirtualSerialPort(
        key=port.key,
        controllerKey=port.controllerKey,
        unitNumber=port.unitNumber,
        yieldOnPoll=True,
        backing=backing,
        connectable=_plugged(),
    )
    return _Spec(operation="edit", device=edited)


def _add(device: Any) -> Any:
    return _Spec(operation="add", device=device)


def remove(device: Any) -> Any:
    """Without a file operation: the files stay."""
    return _Spec(operation="remove", device=device)


# -- disks


def disks(devices: Sequence[Any]) -> list[Any]:
    return [device for device in devices if isinstance(device, _device.VirtualDisk)]


def disk_device(devices: Sequence[Any], file: str) -> Any | None:
    for device in disks(devices):
        if getattr(device.backing, "fileName", None) == file:
            return device
    return None


def remove_disks(devices: Sequence[Any]) -> list[Any]:
    """All of them, files kept: before Destroy, which would take parents along."""
    return [remove(device) for device in disks(devices)]


def add_disk(devices: Sequence[Any], disk: Disk, file: str, *, number: int, taken: set[int]) -> Any:
    """Attach an existing file; the unit it gets is added to ``taken``."""
    controller = _controller(devices)
    unit = next((u for u in range(MAX_DISKS + 1) if u not in taken and u != _RESERVED_UNIT), None)
    if unit is None:
        raise HypervisorError(f"disk {disk.id}: all {MAX_DISKS} units of the controller are taken")
    taken.add(unit)
    backing = _device.VirtualDisk.FlatVer2BackingInfo(fileName=file, diskMode=_mode(disk))
    return _add(
        _device.VirtualDisk(key=-100 - number, controllerKey=controller.key, unitNumber=unit, backing=backing)
    )


def units(devices: Sequence[Any]) -> set[int]:
    controller = _controller(devices)
    return {device.unitNumber for device in devices if device.controllerKey == controller.key}


def disk_addresses(devices: Sequence[Any], config: VmConfig, places: DatastoreMap) -> dict[str, str]:
    """Disk id -> "controller:channel:target:lun", as the guest's kernel counts."""
    found = {}
    for disk in config.disks:
        device = disk_device(devices, places.remote(disk.path))
        if device is not None:
            found[disk.id] = f"0:0:{device.unitNumber}:0"
    return found


def _mode(disk: Disk) -> str:
    return "independent_nonpersistent" if disk.read_only else "independent_persistent"


def _controller(devices: Sequence[Any]) -> Any:
    for device in devices:
        if isinstance(device, _device.ParaVirtualSCSIController):
            return device
    raise HypervisorError("the VM has lost its pvscsi controller")


# -- NICs


def nics(devices: Sequence[Any]) -> list[Any]:
    return [device for device in devices if isinstance(device, _device.VirtualEthernetCard)]


def nic_device(devices: Sequence[Any], mac: str) -> Any | None:
    for device in nics(devices):
        if str(device.macAddress).lower() == mac.lower():
            return device
    return None


def add_nic(nic: Nic, backing: Any, *, number: int) -> Any:
    return _add(
        _device.VirtualVmxnet3(
            key=-300 - number,
            addressType="manual",
            macAddress=nic.mac,
            backing=backing,
            connectable=_plugged(),
        )
    )


# -- the whole


def start_spec(
    devices: Sequence[Any],
    config: VmConfig,
    places: DatastoreMap,
    backings: Mapping[str, Any],
    channel: Any,
) -> tuple[Any, dict[str, str]]:
    """What makes the hardware what is configured, and the addresses its disks will have.

    ``backings``: NIC -> what it is plugged into; ``channel``: the edit of the channel's port.
    """
    wanted = {places.remote(disk.path): disk for disk in config.disks}
    changes = [channel]
    taken = units(devices)
    addresses: dict[str, str] = {}
    for device in disks(devices):
        backing: Any = device.backing
        disk = wanted.get(backing.fileName)
        if disk is None or backing.diskMode != _mode(disk):
            changes.append(remove(device))
            taken.discard(device.unitNumber)
        else:
            addresses[disk.id] = f"0:0:{device.unitNumber}:0"
    for number, (file, disk) in enumerate(wanted.items()):
        if disk.id not in addresses:
            added = add_disk(devices, disk, file, number=number, taken=taken)
            addresses[disk.id] = f"0:0:{added.device.unitNumber}:0"
            changes.append(added)
    macs = {nic.mac.lower() for nic in config.nics}
    # A port group may have changed under the same MAC: NICs are cheap, so those are made anew.
    kept = {
        str(device.macAddress).lower()
        for device in nics(devices)
        if str(device.macAddress).lower() in macs and _same_network(device, backings, config)
    }
    changes += [remove(d) for d in nics(devices) if str(d.macAddress).lower() not in kept]
    changes += [
        add_nic(nic, backings[nic.id], number=number)
        for number, nic in enumerate(config.nics)
        if nic.mac.lower() not in kept
    ]
    spec = vim.vm.ConfigSpec(numCPUs=config.vcpus, memoryMB=_memory(config), deviceChange=changes)
    return spec, addresses


def _same_network(device: Any, backings: Mapping[str, Any], config: VmConfig) -> bool:
    nic = next(n for n in config.nics if n.mac.lower() == str(device.macAddress).lower())
    wanted = backings[nic.id]
    have = device.backing
    if type(have) is not type(wanted):
        return False
    if isinstance(wanted, _device.VirtualEthernetCard.DistributedVirtualPortBackingInfo):
        same = have.port.portgroupKey == wanted.port.portgroupKey
        return bool(same and wanted.port.portKey in (None, have.port.portKey))
    return bool(have.deviceName == wanted.deviceName)
