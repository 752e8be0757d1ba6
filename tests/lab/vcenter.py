"""A pyvmomi client as the tests need it: one session, private collectors, specs without ceremony."""

from __future__ import annotations

import time
from typing import Any

from pyVmomi import SoapStubAdapter, vim, vmodl

from tests.lab.process import LabProcess, insecure

Collector = vmodl.query.PropertyCollector
Device = vim.vm.device


class VCenter:
    """A logged-in client of one lab."""

    def __init__(self, lab: LabProcess, user: str = "", password: str = "", *, namespace: str = "") -> None:
        self.lab = lab
        self.user = user or lab.ready["user"]
        self.password = password or lab.ready["password"]
        version = namespace or "vim.version.version12"
        self.stub = SoapStubAdapter(host="127.0.0.1", port=lab.port, sslContext=insecure(), version=version)
        self.instance = vim.ServiceInstance("ServiceInstance", self.stub)
        self.content = self.instance.RetrieveContent()
        try:
            self.login()
        except vim.fault.InvalidLogin:
            self.close()
            raise
        (self.datacenter,) = self.content.rootFolder.childEntity
        self.folder = self.datacenter.vmFolder
        self.cluster = next(
            c for c in self.datacenter.hostFolder.childEntity if isinstance(c, vim.ClusterComputeResource)
        )
        self.pool = self.cluster.resourcePool

    def login(self) -> None:
        self.content.sessionManager.Login(self.user, self.password)

    def close(self) -> None:
        self.stub.DropConnections()

    # -- waiting
    def wait(self, task: Any, *, seconds: float = 60) -> Any:
        """The task's result.

        Raises:
            vmodl.MethodFault: the task failed.
        """
        values = self.until(task, ["info.state", "info.error", "info.result"], _ended, seconds=seconds)
        if values["info.state"] == "error":
            raise values["info.error"]
        return values.get("info.result")

    def until(self, obj: Any, paths: list[str], condition: Any, *, seconds: float = 60) -> dict[str, Any]:
        """Wait with a collector of its own until the values of ``paths`` satisfy ``condition``."""
        with Watch(self, obj, paths) as watch:
            end = time.monotonic() + seconds
            while not condition(watch.values):
                assert time.monotonic() < end, f"{obj}: {watch.values} after {seconds} s"
                watch.next(seconds=5)
            return watch.values

    def read(self, obj: Any, path: str) -> Any:
        """One property, None when it is unset."""
        spec = Collector.FilterSpec(
            propSet=[Collector.PropertySpec(type=type(obj), pathSet=[path])],
            objectSet=[Collector.ObjectSpec(obj=obj)],
        )
        result = self.content.propertyCollector.RetrievePropertiesEx([spec], Collector.RetrieveOptions())
        return next((p.val for o in result.objects for p in o.propSet), None)

    def devices(self, vm: Any, kind: type) -> list[Any]:
        return [device for device in self.read(vm, "config.hardware.device") if isinstance(device, kind)]

    # -- VMs
    def spec(self, name: str, *devices: Any, memory: int = 64, **options: str) -> Any:
        extra = [vim.option.OptionValue(key=key, value=value) for key, value in options.items()]
        return vim.vm.ConfigSpec(
            name=name,
            guestId="other3xLinux64Guest",
            numCPUs=1,
            memoryMB=memory,
            files=vim.vm.FileInfo(vmPathName="[LocalDS_0]"),
            deviceChange=list(devices),
            extraConfig=extra,
        )

    def create(self, name: str, *devices: Any, memory: int = 64, **options: str) -> Any:
        spec = self.spec(name, *devices, memory=memory, **options)
        return self.wait(self.folder.CreateVM_Task(spec, self.pool, None))

    def reconfigure(self, vm: Any, *devices: Any, **fields: Any) -> None:
        self.wait(vm.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=list(devices), **fields)))

    def set_extra(self, vm: Any, **options: str) -> None:
        extra = [vim.option.OptionValue(key=key, value=value) for key, value in options.items()]
        self.reconfigure(vm, extraConfig=extra)

    def extra(self, vm: Any) -> dict[str, str]:
        return {option.key: option.value for option in self.read(vm, "config.extraConfig")}

    def power_on(self, vm: Any) -> None:
        self.wait(vm.PowerOnVM_Task(None))

    def destroy(self, vm: Any) -> None:
        if self.read(vm, "runtime.powerState") == "poweredOn":
            self.wait(vm.PowerOffVM_Task())
        self.wait(vm.Destroy_Task())

    def portgroup(self, name: str = "DC0_DVPG0") -> Any:
        return next(n for n in self.datacenter.network if self.read(n, "name") == name)

    def events(self, entity: Any) -> list[str]:
        by = vim.event.EventFilterSpec.ByEntity(entity=entity, recursion="self")
        found = self.content.eventManager.QueryEvents(vim.event.EventFilterSpec(entity=by))
        return [type(event).__name__.rsplit(".", 1)[-1] for event in found]


def _ended(values: dict[str, Any]) -> bool:
    return values.get("info.state") in ("success", "error")


class Watch:
    """A private collector with one filter; ``values`` are the newest seen."""

    def __init__(self, vcenter: VCenter, obj: Any, paths: list[str]) -> None:
        self.collector = vcenter.content.propertyCollector.CreatePropertyCollector()
        spec = Collector.FilterSpec(
            propSet=[Collector.PropertySpec(type=type(obj), pathSet=paths)],
            objectSet=[Collector.ObjectSpec(obj=obj)],
        )
        self.collector.CreateFilter(spec, False)
        self.version = ""
        self.values: dict[str, Any] = {}
        self.next(seconds=5)

    def next(self, *, seconds: int) -> bool:
        """Wait for the next change; False when there was none."""
        options = Collector.WaitOptions(maxWaitSeconds=seconds)
        update = self.collector.WaitForUpdatesEx(self.version, options)
        if update is None:
            return False
        self.version = update.version
        for filter_ in update.filterSet:
            for change in (c for o in filter_.objectSet for c in o.changeSet):
                self.values[change.name] = change.val
        return True

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.collector.Destroy()


def share() -> Any:
    """A resource pool's specification: no limits."""
    allocation = vim.ResourceAllocationInfo(
        reservation=0, limit=-1, expandableReservation=True, shares=vim.SharesInfo(level="normal", shares=0)
    )
    return vim.ResourceConfigSpec(cpuAllocation=allocation, memoryAllocation=allocation)


# -- devices


def add(device: Any, files: str | None = None) -> Any:
    return Device.VirtualDeviceSpec(operation="add", device=device, fileOperation=files)


def edit(device: Any) -> Any:
    return Device.VirtualDeviceSpec(operation="edit", device=device)


def remove(device: Any, files: str | None = None) -> Any:
    return Device.VirtualDeviceSpec(operation="remove", device=device, fileOperation=files)


def pvscsi() -> Any:
    return add(Device.ParaVirtualSCSIController(key=-100, busNumber=0, sharedBus="noSharing"))


def disk(
    name: str = "",
    *,
    controller: int = -100,
    unit: int | None = 0,
    mib: int = 16,
    parent: str = "",
    mode: str = "persistent",
) -> Any:
    """A disk made together with its file: empty, or the child of ``parent``."""
    backing = Device.VirtualDisk.FlatVer2BackingInfo(fileName=name, diskMode=mode, thinProvisioned=True)
    if parent:
        backing.parent = Device.VirtualDisk.FlatVer2BackingInfo(fileName=parent, diskMode=mode)
    device = Device.VirtualDisk(
        key=-1,
        controllerKey=controller,
        unitNumber=unit,
        capacityInKB=0 if parent else mib * 1024,
        backing=backing,
    )
    return add(device, "create")


def existing_disk(
    name: str, *, controller: int = -100, unit: int | None = 0, mode: str = "persistent"
) -> Any:
    backing = Device.VirtualDisk.FlatVer2BackingInfo(fileName=name, diskMode=mode)
    return add(
        Device.VirtualDisk(key=-1, controllerKey=controller, unitNumber=unit, capacityInKB=0, backing=backing)
    )


def nic(portgroup: Any, *, mac: str = "") -> Any:
    config = portgroup.config
    port = vim.dvs.PortConnection(portgroupKey=portgroup.key, switchUuid=config.distributedVirtualSwitch.uuid)
    backing = Device.VirtualEthernetCard.DistributedVirtualPortBackingInfo(port=port)
    card = Device.VirtualVmxnet3(key=-300, addressType="manual" if mac else "generated", backing=backing)
    if mac:
        card.macAddress = mac
    return add(card)


def cdrom(iso: str) -> Any:
    connected = Device.VirtualDevice.ConnectInfo(startConnected=True, connected=True, allowGuestControl=False)
    backing = Device.VirtualCdrom.IsoBackingInfo(fileName=iso)
    return add(
        Device.VirtualCdrom(key=-200, controllerKey=200, unitNumber=0, backing=backing, connectable=connected)
    )


def serial_file(name: str) -> Any:
    backing = Device.VirtualSerialPort.FileBackingInfo(fileName=name)
    return add(Device.VirtualSerialPort(key=-400, yieldOnPoll=True, backing=backing))


def serial_uri(uri: str, *, direction: str = "client", proxy: str = "", connected: bool = True) -> Any:
    backing = Device.VirtualSerialPort.URIBackingInfo(serviceURI=uri, direction=direction)
    if proxy:
        backing.proxyURI = proxy
    info = Device.VirtualDevice.ConnectInfo(
        startConnected=connected, connected=connected, allowGuestControl=True
    )
    return add(Device.VirtualSerialPort(key=-401, yieldOnPoll=True, backing=backing, connectable=info))
