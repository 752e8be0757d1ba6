"""Docker's ``HostConfig``: every field of API 1.50, and what becomes of it.

``REFUSED`` names the fields that a container VM cannot honour, with the reason
the user reads; each is accepted at its default. Every other field is translated
(:mod:`engine.containers.translation`) or a fact about the request that inspect
shows again. A test compares the table with the model: no field is in between.
"""

# Field names are the wire's.

from __future__ import annotations

from typing import Any

from pydantic import Field

from engine.containers.model import Int, Text, Texts, WireModel
from engine.http import Unsupported

__all__ = [
    "REFUSED",
    "HostConfig",
    "LogSpec",
    "Mount",
    "PortBinding",
    "RestartSpec",
    "Ulimit",
    "refuse_fields",
]


class RestartSpec(WireModel):
    Name: Text = ""
    MaximumRetryCount: Int = 0


class LogSpec(WireModel):
    Type: Text = ""
    Options: dict[Text, Text] = Field(alias="Config", default_factory=dict)  # pydantic owns the other name


class Ulimit(WireModel):
    Name: Text = ""
    Hard: Int = 0
    Soft: Int = 0


class PortBinding(WireModel):
    HostIp: Text = ""
    HostPort: Text = ""


class BindSpec(WireModel):
    Propagation: Text = ""
    NonRecursive: bool = False
    CreateMountpoint: bool = False
    ReadOnlyNonRecursive: bool = False
    ReadOnlyForceRecursive: bool = False


class DriverSpec(WireModel):
    Name: Text = ""
    Options: dict[Text, Text] = Field(default_factory=dict)


class VolumeSpec(WireModel):
    NoCopy: bool = False
    Labels: dict[Text, Text] = Field(default_factory=dict)
    DriverConfig: DriverSpec | None = None
    Subpath: Text = ""


class ImageSpec(WireModel):
    Subpath: Text = ""


class TmpfsSpec(WireModel):
    SizeBytes: Int = 0
    Mode: Int = 0
    Options: list[Texts] = Field(default_factory=list)


class ClusterSpec(WireModel):
    pass


class Mount(WireModel):
    Type: Text = ""
    Source: Text = ""
    Target: Text = ""
    ReadOnly: bool = False
    Consistency: Text = ""  # osxfs's; without meaning for volumes
    BindOptions: BindSpec | None = None
    VolumeOptions: VolumeSpec | None = None
    ImageOptions: ImageSpec | None = None
    TmpfsOptions: TmpfsSpec | None = None
    ClusterOptions: ClusterSpec | None = None


class HostConfig(WireModel):
    # resources
    CpuShares: Int = 0
    Memory: Int = 0
    NanoCpus: Int = 0
    CgroupParent: Text = ""
    BlkioWeight: Int = 0
    BlkioWeightDevice: list[Any] = Field(default_factory=list)
    BlkioDeviceReadBps: list[Any] = Field(default_factory=list)
    BlkioDeviceWriteBps: list[Any] = Field(default_factory=list)
    BlkioDeviceReadIOps: list[Any] = Field(default_factory=list)
    BlkioDeviceWriteIOps: list[Any] = Field(default_factory=list)
    CpuPeriod: Int = 0
    CpuQuota: Int = 0
    CpuRealtimePeriod: Int = 0
    CpuRealtimeRuntime: Int = 0
    CpusetCpus: Text = ""
    CpusetMems: Text = ""
    Devices: list[Any] = Field(default_factory=list)
    DeviceCgroupRules: Texts = Field(default_factory=list)
    DeviceRequests: list[Any] = Field(default_factory=list)
    KernelMemory: Int = 0
    KernelMemoryTCP: Int = 0
    MemoryReservation: Int = 0
    MemorySwap: Int = 0
    MemorySwappiness: Int | None = None
    OomKillDisable: bool | None = None
    PidsLimit: Int | None = None
    Ulimits: list[Ulimit] = Field(default_factory=list)
    CpuCount: Int = 0
    CpuPercent: Int = 0
    IOMaximumIOps: Int = 0
    IOMaximumBandwidth: Int = 0
    # the rest
    Binds: Texts = Field(default_factory=list)
    ContainerIDFile: Text = ""
    LogConfig: LogSpec = Field(default_factory=LogSpec)
    NetworkMode: Text = ""
    PortBindings: dict[Text, list[PortBinding] | None] = Field(default_factory=dict)
    RestartPolicy: RestartSpec = Field(default_factory=RestartSpec)
    AutoRemove: bool = False
    VolumeDriver: Text = ""
    VolumesFrom: Texts = Field(default_factory=list)
    Mounts: list[Mount] = Field(default_factory=list)
    ConsoleSize: list[Int] = Field(default_factory=list)
    Annotations: dict[Text, Text] = Field(default_factory=dict)
    CapAdd: Texts = Field(default_factory=list)
    CapDrop: Texts = Field(default_factory=list)
    CgroupnsMode: Text = ""
    Dns: Texts = Field(default_factory=list)
    DnsOptions: Texts = Field(default_factory=list)
    DnsSearch: Texts = Field(default_factory=list)
    ExtraHosts: Texts = Field(default_factory=list)
    GroupAdd: Texts = Field(default_factory=list)
    IpcMode: Text = ""
    Cgroup: Text = ""
    Links: Texts = Field(default_factory=list)
    OomScoreAdj: Int = 0
    PidMode: Text = ""
    Privileged: bool = False
    PublishAllPorts: bool = False
    ReadonlyRootfs: bool = False
    SecurityOpt: Texts = Field(default_factory=list)
    StorageOpt: dict[Text, Text] = Field(default_factory=dict)
    Tmpfs: dict[Text, Text] = Field(default_factory=dict)
    UTSMode: Text = ""
    UsernsMode: Text = ""
    ShmSize: Int = 0
    Sysctls: dict[Text, Text] = Field(default_factory=dict)
    Runtime: Text = ""
    Init: bool | None = None
    Isolation: Text = ""
    MaskedPaths: Texts | None = None
    ReadonlyPaths: Texts | None = None


VOLUME_DRIVERS = ("local", "vsphere")  # two names of one store

_OWN_VM = "every container is its own virtual machine"
_NO_HOST_DEVICES = "a container VM has no devices of the host"
_WINDOWS = "only Windows containers have it"

# field -> (values accepted besides the default, option of the CLI, reason)
REFUSED: dict[str, tuple[tuple[Any, ...], str, str]] = {
    "BlkioWeightDevice": ((), "--blkio-weight-device", _NO_HOST_DEVICES),
    "BlkioDeviceReadBps": ((), "--device-read-bps", _NO_HOST_DEVICES),
    "BlkioDeviceWriteBps": ((), "--device-write-bps", _NO_HOST_DEVICES),
    "BlkioDeviceReadIOps": ((), "--device-read-iops", _NO_HOST_DEVICES),
    "BlkioDeviceWriteIOps": ((), "--device-write-iops", _NO_HOST_DEVICES),
    "CgroupParent": ((), "--cgroup-parent", _OWN_VM),
    "Cgroup": ((), "HostConfig.Cgroup", _OWN_VM),
    "CgroupnsMode": (("private",), "--cgroupns", _OWN_VM),
    "CpuRealtimePeriod": ((), "--cpu-rt-period", "the guest kernel has no real-time group scheduling"),
    "CpuRealtimeRuntime": ((), "--cpu-rt-runtime", "the guest kernel has no real-time group scheduling"),
    "CpusetMems": ((), "--cpuset-mems", "a container VM has one memory node"),
    "Devices": ((), "--device", _NO_HOST_DEVICES),
    "DeviceCgroupRules": ((), "--device-cgroup-rule", _NO_HOST_DEVICES),
    "DeviceRequests": ((), "--gpus", _NO_HOST_DEVICES),
    "KernelMemory": ((), "--kernel-memory", "cgroup v2 has no such limit"),
    "KernelMemoryTCP": ((), "HostConfig.KernelMemoryTCP", "cgroup v2 has no such limit"),
    "MemorySwappiness": ((-1,), "--memory-swappiness", "cgroup v2 has no such setting"),
    "CpuCount": ((), "--cpu-count", _WINDOWS),
    "CpuPercent": ((), "--cpu-percent", _WINDOWS),
    "IOMaximumIOps": ((), "--io-maxiops", _WINDOWS),
    "IOMaximumBandwidth": ((), "--io-maxbandwidth", _WINDOWS),
    "Isolation": (("default",), "--isolation", _WINDOWS),
    "IpcMode": (("private", "shareable"), "--ipc", _OWN_VM),
    "PidMode": ((), "--pid", _OWN_VM),
    "UTSMode": ((), "--uts", _OWN_VM),
    "UsernsMode": (("host",), "--userns", _OWN_VM),
    "VolumeDriver": (VOLUME_DRIVERS, "--volume-driver", "the volume drivers are local and vsphere"),
    "Runtime": (("mooring",), "--runtime", "the only runtime is mooring"),
}


def refuse_fields(host: HostConfig) -> None:
    """Raise Unsupported, naming the option, when a field asks for what cannot be."""
    default = HostConfig()
    for name, (accepted, option, reason) in REFUSED.items():
        value = getattr(host, name)
        if value != getattr(default, name) and value not in accepted:
            raise Unsupported(f"{option} {_shown(value)}is not supported: {reason} (HostConfig.{name})")


def _shown(value: Any) -> str:
    return f"{value} " if isinstance(value, str | int) else ""
