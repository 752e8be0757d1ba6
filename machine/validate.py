"""Checks before a local VCH is made: every problem is collected, then all are shown.

Each problem says what is wrong, and what to do.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path

from vch import VchConfig

__all__ = ["free_bridge_range", "free_port", "validate"]

# program -> Debian package
PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "qemu-storage-daemon": "qemu-utils",
    "nft": "nftables",
    "mke2fs": "e2fsprogs",
    "losetup": "util-linux",
}
DEVICES = ("/dev/net/tun", "/dev/fuse", "/dev/loop-control")
LONGEST_SOCKET_PATH = 107  # sun_path, unix(7), less the final zero


def validate(config: VchConfig, others: Sequence[VchConfig]) -> list[str]:
    """All reasons why ``config`` cannot become a VCH on this host; empty when it can."""
    return [
        *_host_problems(),
        *_guest_problems(config),
        *_network_problems(config, others),
        *_path_problems(config),
        *_limit_problems(config),
    ]


def _host_problems() -> Iterable[str]:
    if os.geteuid() != 0:
        yield "root is needed for bridges, taps and loop devices: run as root"
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            yield f"{program} is missing: apt-get install {package}"
    for device in DEVICES:
        if not Path(device).exists():
            yield f"{device} is missing: load the kernel module behind it (modprobe tun, fuse or loop)"


def _guest_problems(config: VchConfig) -> Iterable[str]:
    guest = config.guest
    for path in (guest.kernel, guest.initrd):
        if not path.is_file():
            yield f"no guest {path.name} at {path}: `make guest` builds it, --guest names its directory"
    if guest.profile == "vsphere" and (guest.iso is None or not guest.iso.is_file()):
        yield f"profile vsphere boots an ISO, and none is at {guest.iso}: `make guest` builds it"
    if guest.accel == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        yield "--accel kvm: /dev/kvm is missing or closed to us; use --accel auto"


def _network_problems(config: VchConfig, others: Sequence[VchConfig]) -> Iterable[str]:
    try:
        wanted = ipaddress.ip_network(config.bridge_range)
    except ValueError as error:
        yield f"--bridge-network-range {config.bridge_range}: {error}"
        return
    if not wanted.is_private:
        yield f"--bridge-network-range {wanted}: only private ranges can be given to bridge networks"
    if not wanted.prefixlen <= config.bridge_width <= 29:
        yield (
            f"--bridge-network-width {config.bridge_width}: must lie between"
            f" the range's own {wanted.prefixlen} and 29"
        )
    for other in others:
        if wanted.overlaps(ipaddress.ip_network(other.bridge_range)):
            yield f"--bridge-network-range {wanted} overlaps {other.bridge_range} of VCH {other.name!r}"
    if config.tls.port:
        try:
            family = socket.AF_INET6 if ":" in config.tls.host else socket.AF_INET
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((config.tls.host, config.tls.port))
        except OSError as error:
            where = f"{config.tls.host}:{config.tls.port}"
            yield f"cannot listen on {where}: {error.strerror}; choose another --tcp-port"


def _path_problems(config: VchConfig) -> Iterable[str]:
    longest = config.paths.vm_run("0" * 16) / "channel.sock"
    if len(os.fsencode(longest)) > LONGEST_SOCKET_PATH:
        yield f"the run directory {config.run} is too long: {longest} exceeds {LONGEST_SOCKET_PATH} bytes"
    for path in config.shared_paths:
        if not path.is_absolute() or not path.is_dir():
            yield f"--share-path {path}: an absolute path of a directory is wanted"
    for label, path in config.volume_stores.items():
        if not path.is_absolute():
            yield f"--volume-store {path}:{label}: the path must be absolute"
        elif path.exists() and not path.is_dir():
            yield f"--volume-store {path}:{label}: not a directory"
    if config.root.exists() and any(config.root.iterdir()):
        yield f"{config.root} is not empty and holds no VCH: `vic-machine delete {config.name}` removes it"


def _limit_problems(config: VchConfig) -> Iterable[str]:
    if config.defaults.memory_mib < 64:
        yield f"--container-memory {config.defaults.memory_mib}: a container VM needs at least 64 MiB"
    if config.max_memory_mib and config.max_memory_mib < config.defaults.memory_mib:
        yield (
            f"--memory {config.max_memory_mib} MiB is less than one container's default"
            f" of {config.defaults.memory_mib} MiB"
        )
    if config.defaults.cpus < 1:
        yield "--container-cpus must be at least 1"


def free_bridge_range(others: Sequence[VchConfig], routes: Iterable[str]) -> str:
    """The first /16 of 172.16.0.0/12 (then /20s of 192.168.0.0/16) nobody uses.

    Args:
        routes: CIDRs the host routes already.
    """
    used = [ipaddress.ip_network(other.bridge_range) for other in others]
    used += [ipaddress.ip_network(route, strict=False) for route in routes]
    candidates = [*ipaddress.ip_network("172.16.0.0/12").subnets(new_prefix=16)]
    # Docker itself begins at 172.17: start behind it, so that both live on one host.
    candidates = candidates[8:] + candidates[2:8]
    candidates += [*ipaddress.ip_network("192.168.0.0/16").subnets(new_prefix=20)]
    for candidate in candidates:
        if not any(candidate.overlaps(network) for network in used if network.version == 4):
            return str(candidate)
    raise ValueError("every private range is in use: give one with --bridge-network-range")


def free_port(host: str, first: int, taken: Iterable[int]) -> int:
    """The first port from ``first`` that neither another VCH has nor anybody listens on."""
    reserved = set(taken)
    for port in range(first, first + 1000):
        if port in reserved:
            continue
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise ValueError(f"no free port from {first} on {host}")
