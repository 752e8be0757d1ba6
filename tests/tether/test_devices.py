"""The device guard, run by a small interpreter of eBPF."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

import pytest

from tether.devices import device_filter, nodes_of, port_majors

BLOCK, CHAR = 1, 2
MKNOD, READ, WRITE = 1, 2, 4


def allowed(program: bytes, kind: int, access: int, major: int, minor: int) -> bool:
    context = struct.pack("<III", access << 16 | kind, major, minor)
    registers = [0] * 11
    code = [struct.unpack_from("<BBhi", program, at) for at in range(0, len(program), 8)]
    position = 0
    while True:
        operation, places, offset, value = code[position]
        target, source = places & 15, places >> 4
        position += 1
        match operation:
            case 0x61:
                assert source == 1, "only the context is read"
                (registers[target],) = struct.unpack_from("<I", context, offset)
            case 0x54:
                registers[target] &= value
            case 0x74:
                registers[target] >>= value
            case 0xBF:
                registers[target] = registers[source]
            case 0xB7:
                registers[target] = value
            case 0x55:
                assert offset >= 0, "no loops"
                position += offset if registers[target] != value else 0
            case 0x95:
                return bool(registers[0])
            case _:
                raise AssertionError(f"unknown instruction {operation:#x}")


DEFAULT = device_filter(privileged=False, forbidden=[(240, None), (4, 65)])
PRIVILEGED = device_filter(privileged=True, forbidden=[(240, None), (4, 65)])


@pytest.mark.parametrize(
    ("major", "minor"), [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, 7)]
)
def test_dockers_devices_are_open(major: int, minor: int) -> None:
    assert allowed(DEFAULT, CHAR, READ | WRITE, major, minor)


@pytest.mark.parametrize(
    ("kind", "major", "minor"), [(BLOCK, 254, 0), (BLOCK, 1, 3), (CHAR, 1, 1), (CHAR, 10, 229)]
)
def test_any_node_may_be_made_but_not_opened(kind: int, major: int, minor: int) -> None:
    assert allowed(DEFAULT, kind, MKNOD, major, minor)
    assert not allowed(DEFAULT, kind, READ, major, minor)
    assert not allowed(DEFAULT, kind, MKNOD | READ, major, minor)
    assert allowed(PRIVILEGED, kind, READ | WRITE | MKNOD, major, minor)


@pytest.mark.parametrize("program", [DEFAULT, PRIVILEGED])
def test_nobody_gets_at_the_tethers_ports(program: bytes) -> None:
    for access in (MKNOD, READ, WRITE):
        assert not allowed(program, CHAR, access, 240, 3)
        assert not allowed(program, CHAR, access, 4, 65)
    assert allowed(PRIVILEGED, CHAR, READ, 4, 64)
    assert allowed(PRIVILEGED, BLOCK, READ, 240, 3)  # a disk with that number is no port


def test_port_majors_are_found_in_proc_devices() -> None:
    text = "Character devices:\n  1 mem\n  5 /dev/tty\n240 virtio-portsdev\n\nBlock devices:\n254 virtblk\n"
    assert port_majors(text) == [240]
    assert port_majors("Character devices:\n  1 mem\n") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="makes device nodes")
def test_a_privileged_containers_nodes_leave_the_ports_out(tmp_path: Path) -> None:
    for name in ("sub", "pts"):
        (tmp_path / name).mkdir()
    for name, kind, device in (
        ("null", stat.S_IFCHR, (1, 3)),
        ("sub/disk", stat.S_IFBLK, (254, 0)),
        ("vport0p1", stat.S_IFCHR, (240, 1)),
        ("console", stat.S_IFCHR, (5, 1)),
        ("pts/0", stat.S_IFCHR, (136, 0)),
    ):
        os.mknod(tmp_path / name, kind | 0o600, os.makedev(*device))
    (tmp_path / "plain").touch()
    found = {node.name for node in nodes_of(str(tmp_path), skip_majors=[240])}
    assert found == {"null", "sub/disk"}
