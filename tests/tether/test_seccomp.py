"""The seccomp program, run by a small interpreter of classic BPF."""

from __future__ import annotations

import struct

import pytest

from tether import capabilities
from tether.seccomp import program

X86_64, I386 = 0xC000003E, 0x40000003
ALLOW, EPERM, ENOSYS = 0x7FFF0000, 0x00050001, 0x00050026
DOCKER = capabilities.mask(
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP "
    "NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE".split()
)
EVERYTHING = (1 << capabilities.LAST + 1) - 1


def verdict(bits: int, number: int, argument: int = 0, *, arch: int = X86_64) -> int:
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, arch, 0, argument, 0, 0, 0, 0, 0)
    code = [struct.unpack_from("<HBBI", program(bits), at) for at in range(0, len(program(bits)), 8)]
    accumulator, position = 0, 0
    for _ in range(len(code) + 1):
        operation, true, false, value = code[position]
        position += 1
        match operation:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, value)
            case 0x15:
                position += true if accumulator == value else false
            case 0x35:
                position += true if accumulator >= value else false
            case 0x45:
                position += true if accumulator & value else false
            case 0x06:
                return value
            case _:
                raise AssertionError(f"unknown instruction {operation:#x}")
    raise AssertionError("the program does not end")


ORDINARY = {"read": 0, "mmap": 9, "socket": 41, "execve": 59, "ptrace": 101, "chroot": 161, "openat2": 437}
FORBIDDEN = {"mount": 165, "reboot": 169, "bpf": 321, "init_module": 175, "keyctl": 250, "setns": 308,
             "io_uring_setup": 425, "syslog": 103, "unshare": 272, "clock_settime": 227}  # fmt: skip


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_calls_are_allowed(name: str) -> None:
    assert verdict(DOCKER, ORDINARY[name]) == ALLOW


@pytest.mark.parametrize("name", FORBIDDEN)
def test_calls_that_need_a_capability_are_refused_without_it(name: str) -> None:
    assert verdict(DOCKER, FORBIDDEN[name]) == EPERM


@pytest.mark.parametrize(
    ("capability", "number"),
    [
        ("SYS_ADMIN", 165),
        ("SYS_MODULE", 313),
        ("SYS_TIME", 227),
        ("SYSLOG", 103),
        ("BPF", 321),
        ("SYS_BOOT", 169),
    ],
)
def test_a_capability_unlocks_its_calls(capability: str, number: int) -> None:
    assert verdict(DOCKER | capabilities.mask([capability]), number) == ALLOW


def test_without_chroots_capability_there_is_no_chroot() -> None:
    assert verdict(0, 161) == EPERM


def test_admin_stands_for_the_capabilities_that_came_out_of_it() -> None:
    admin = DOCKER | capabilities.mask(["SYS_ADMIN"])
    assert [verdict(admin, number) for number in (321, 298, 103)] == [ALLOW] * 3


def test_new_namespaces_are_for_admins() -> None:
    assert verdict(DOCKER, 56, 0x01200011) == ALLOW  # what fork does
    assert verdict(DOCKER, 56, 0x10000000) == EPERM  # CLONE_NEWUSER
    assert verdict(EVERYTHING, 56, 0x10000000) == ALLOW
    assert verdict(DOCKER, 435) == ENOSYS  # clone3: its flags cannot be seen, libc falls back
    assert verdict(EVERYTHING, 435) == ALLOW


def test_personalities_are_the_harmless_ones() -> None:
    assert [verdict(DOCKER, 135, value) for value in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)] == [ALLOW] * 5
    assert verdict(DOCKER, 135, 0x0040000) == EPERM  # ADDR_NO_RANDOMIZE


def test_the_way_to_the_host_is_closed_even_for_those_who_may_much() -> None:
    assert verdict(EVERYTHING, 41, 40) == EPERM  # socket(AF_VSOCK)
    assert verdict(EVERYTHING, 41, 2) == ALLOW


def test_unknown_numbers_and_machines_do_not_exist() -> None:
    assert verdict(DOCKER, 463) == ENOSYS
    assert verdict(DOCKER, 0x40000000 | 0) == ENOSYS  # x32
    assert verdict(DOCKER, 0, arch=0xC00000B7) == ENOSYS  # aarch64


def test_32_bit_programs_live_under_the_same_rules() -> None:
    assert verdict(DOCKER, 3, arch=I386) == ALLOW  # read
    assert verdict(DOCKER, 21, arch=I386) == EPERM  # mount
    assert verdict(DOCKER, 120, 0x10000000, arch=I386) == EPERM  # clone(CLONE_NEWUSER)
    assert verdict(DOCKER, 41, 40, arch=I386) == ALLOW  # dup, which has socket's number


def test_the_kernel_takes_it() -> None:
    assert len(program(0)) % 8 == 0
    assert len(program(0)) // 8 < 4096  # BPF_MAXINSNS
