"""A VM's configuration as a document: the part that every back end keeps in the same words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from portlayer.hypervisor.base import Disk, Nic, Share, VmConfig

__all__ = ["decode_hardware", "encode_hardware"]


def encode_hardware(config: VmConfig) -> dict[str, Any]:
    """What JSON can hold of it: all but identity, shares and opaque documents."""
    return {
        "name": config.name,
        "vcpus": config.vcpus,
        "memory_mib": config.memory_mib,
        "disks": [{"id": d.id, "path": str(d.path), "read_only": d.read_only} for d in config.disks],
        "nics": [{"id": n.id, "mac": n.mac, "network": n.network, "mtu": n.mtu} for n in config.nics],
    }


def decode_hardware(
    vm: str,
    document: Mapping[str, Any],
    *,
    boot_config: bytes,
    extra: Mapping[str, bytes],
    shares: Sequence[Share] = (),
) -> VmConfig:
    """The inverse, with what the back end keeps elsewhere.

    Raises:
        ValueError, KeyError, TypeError: the document is damaged.
    """
    return VmConfig(
        id=vm,
        name=document["name"],
        vcpus=int(document["vcpus"]),
        memory_mib=int(document["memory_mib"]),
        disks=tuple(
            Disk(id=d["id"], path=Path(d["path"]), read_only=d["read_only"]) for d in document["disks"]
        ),
        nics=tuple(
            Nic(id=n["id"], mac=n["mac"], network=n["network"], mtu=int(n["mtu"])) for n in document["nics"]
        ),
        shares=tuple(shares),
        boot_config=boot_config,
        extra=dict(extra),
    )
