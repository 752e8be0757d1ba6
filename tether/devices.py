"""Device nodes of a container and the kernel program that guards all others.

A container may make any node (Docker gives CAP_MKNOD) but open only these: the
guard is what keeps it away from the virtual disks and from the tether's own
ports. Even a privileged container is kept from the ports.
"""

from __future__ import annotations

import os
import stat
import struct
from typing import NamedTuple

__all__ = ["DEFAULT_NODES", "LINKS", "Node", "Rule", "device_filter", "nodes_of", "port_majors"]

# Documentation/admin-guide/devices.txt of the kernel
DEFAULT_NODES = (
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
)
LINKS = (
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
)

# linux/bpf.h
_BLOCK, _CHAR = 1, 2
_MKNOD, _READ, _WRITE = 1, 2, 4
_ALL = _MKNOD | _READ | _WRITE
_LOAD_WORD, _AND32, _RSH32, _MOV64, _MOV64_IMM = 0x61, 0x54, 0x74, 0xBF, 0xB7
_JUMP_NE, _EXIT = 0x55, 0x95


class Rule(NamedTuple):
    """Answers ``allow`` for what it matches; None matches any number."""

    allow: bool
    kind: int
    access: int
    major: int | None = None
    minor: int | None = None


class Node(NamedTuple):
    name: str
    mode: int
    rdev: int


_DEFAULT_RULES = (
    Rule(True, _CHAR, _MKNOD),
    Rule(True, _BLOCK, _MKNOD),
    *(Rule(True, _CHAR, _ALL, major, minor) for _, major, minor in DEFAULT_NODES),
    Rule(True, _CHAR, _ALL, 5, 1),  # console: the container's own terminal
    Rule(True, _CHAR, _ALL, 5, 2),  # ptmx
    Rule(True, _CHAR, _ALL, 136),  # its pseudo terminals
)


def device_filter(*, privileged: bool, forbidden: list[tuple[int, int | None]]) -> bytes:
    """The eBPF program (BPF_PROG_TYPE_CGROUP_DEVICE) for a container's cgroup.

    Args:
        forbidden: character devices (major, minor) nobody may open: the tether's ports.
    """
    rules = [Rule(False, _CHAR, _ALL, major, minor) for major, minor in forbidden]
    if privileged:
        rules += [Rule(True, _CHAR, _ALL), Rule(True, _BLOCK, _ALL)]
    else:
        rules += _DEFAULT_RULES
    access, kind, major, minor, scratch = 3, 2, 4, 5, 6  # registers
    code = [
        _instruction(_LOAD_WORD, kind, 1, 0, 0),  # struct bpf_cgroup_dev_ctx: access << 16 | type
        _instruction(_AND32, kind, 0, 0, 0xFFFF),
        _instruction(_LOAD_WORD, access, 1, 0, 0),
        _instruction(_RSH32, access, 0, 0, 16),
        _instruction(_LOAD_WORD, major, 1, 4, 0),
        _instruction(_LOAD_WORD, minor, 1, 8, 0),
    ]
    for rule in rules:
        checks: list[tuple[int, int]] = [(kind, rule.kind)]
        if rule.major is not None:
            checks.append((major, rule.major))
        if rule.minor is not None:
            checks.append((minor, rule.minor))
        narrow = rule.access != _ALL
        # The block behind the checks has two instructions, and two more for the access check.
        length = len(checks) + (3 if narrow else 0) + 2
        block = [
            _instruction(_JUMP_NE, register, 0, length - position - 1, value)
            for position, (register, value) in enumerate(checks)
        ]
        if narrow:  # every requested access must be one of the rule's
            block += [
                _instruction(_MOV64, scratch, access, 0, 0),
                _instruction(_AND32, scratch, 0, 0, _ALL & ~rule.access),
                _instruction(_JUMP_NE, scratch, 0, 2, 0),
            ]
        block += [_instruction(_MOV64_IMM, 0, 0, 0, int(rule.allow)), _instruction(_EXIT, 0, 0, 0, 0)]
        code += block
    code += [_instruction(_MOV64_IMM, 0, 0, 0, 0), _instruction(_EXIT, 0, 0, 0, 0)]
    return b"".join(code)


def _instruction(code: int, target: int, source: int, offset: int, value: int) -> bytes:
    return struct.pack("<BBhi", code, source << 4 | target, offset, value)


def port_majors(proc_devices: str) -> list[int]:
    """Majors of virtio ports in the text of /proc/devices."""
    majors = []
    for line in proc_devices.splitlines():
        number, _, name = line.strip().partition(" ")
        if name == "virtio-portsdev":
            majors.append(int(number))
    return majors


def nodes_of(directory: str, *, skip_majors: list[int]) -> list[Node]:
    """Every device node below ``directory`` but those of its own mounts (pts, shm, mqueue) and the ports."""
    found: list[Node] = []
    for entry in os.scandir(directory):
        status = entry.stat(follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode) and entry.name not in ("pts", "shm", "mqueue"):
            found += [
                node._replace(name=f"{entry.name}/{node.name}")
                for node in nodes_of(entry.path, skip_majors=skip_majors)
            ]
        elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            is_port = stat.S_ISCHR(status.st_mode) and os.major(status.st_rdev) in skip_majors
            if not is_port and entry.name not in ("console", "ptmx"):
                found.append(Node(entry.name, status.st_mode, status.st_rdev))
    return found
