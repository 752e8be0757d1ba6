"""Docker's default seccomp profile as the classic BPF program that the kernel takes: pure.

The profile is Docker's list of what may not be called without the capability
that goes with it; everything else of the known calls is allowed, and numbers
that are younger than this file do not exist (ENOSYS), so that a libc falls back.

The kernel remembers which calls are always allowed (since 5.11), so the length
of the program costs nothing where it matters.
"""

from __future__ import annotations

import struct

from tether import capabilities

__all__ = ["program"]

# linux/audit.h, linux/seccomp.h, linux/bpf_common.h
_ARCH_X86_64, _ARCH_I386 = 0xC000003E, 0x40000003
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_EPERM, _ENOSYS = 1, 38
_LOAD, _JEQ, _JGE, _JSET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _ARGUMENT0 = 0, 4, 16  # offsets in struct seccomp_data
_X32 = 0x40000000
_LAST = 463  # one above the youngest call of Linux 6.11: mseal

_NEW_NAMESPACES = 0x7E020000  # every CLONE_NEW* flag but time's
_AF_VSOCK = 40
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)

# Capability -> {x86-64 numbers} it unlocks (asm/unistd_64.h); "" = never allowed.
_CALLS: dict[str, tuple[int, ...]] = {
    # _sysctl, uselib, ustat, sysfs, create_module, get_kernel_syms, query_module, nfsservctl, getpmsg …
    # security, epoll_ctl_old, epoll_wait_old, vserver; add_key, request_key, keyctl; userfaultfd;
    # kexec_load, kexec_file_load without CAP_SYS_BOOT are below; io_uring_* (escapes of the past)
    "": (156, 134, 136, 139, 174, 177, 178, 180, 181, 182, 183, 184, 185, 214, 215, 236,
         248, 249, 250, 323, 425, 426, 427),
    # mount, umount2, swapon, swapoff, sethostname, setdomainname, pivot_root, quotactl, lookup_dcookie,
    # unshare, setns, fanotify_init, open_tree, move_mount, fsopen, fsconfig, fsmount, fspick,
    # mount_setattr, quotactl_fd, statmount, listmount
    "SYS_ADMIN": (165, 166, 167, 168, 170, 171, 155, 179, 212, 272, 308, 300, 428, 429, 430, 431, 432,
                  433, 442, 443, 457, 458),
    "DAC_READ_SEARCH": (304,),  # open_by_handle_at
    "SYS_BOOT": (169, 246, 320),  # reboot, kexec_load, kexec_file_load
    "SYS_CHROOT": (161,),  # chroot
    "SYS_MODULE": (175, 176, 313),  # init_module, delete_module, finit_module
    "SYS_PACCT": (163,),  # acct
    "SYS_PTRACE": (312, 438, 440),  # kcmp, pidfd_getfd, process_madvise
    "SYS_RAWIO": (172, 173),  # iopl, ioperm
    "SYS_TIME": (164, 227, 305),  # settimeofday, clock_settime, clock_adjtime
    "SYS_TTY_CONFIG": (153,),  # vhangup
    "SYS_NICE": (237, 238, 239, 256, 279, 450),  # mempolicy calls, migrate_pages, move_pages
    "SYSLOG": (103,),  # syslog
    "BPF": (321,),  # bpf
    "PERFMON": (298,),  # perf_event_open
}  # fmt: skip
# The same for 32-bit programs, where the kernel runs them at all (asm/unistd_32.h).
_CALLS_32: dict[str, tuple[int, ...]] = {
    "": (86, 62, 135, 149, 127, 130, 167, 169, 166, 113, 286, 287, 288, 374, 425, 426, 427),
    "SYS_ADMIN": (21, 22, 52, 87, 115, 74, 121, 217, 131, 253, 310, 346, 338, 428, 429, 430, 431, 432, 433,
                  442, 443, 457, 458),
    "DAC_READ_SEARCH": (342,),
    "SYS_BOOT": (88, 283),
    "SYS_CHROOT": (61,),
    "SYS_MODULE": (128, 129, 350),
    "SYS_PACCT": (51,),
    "SYS_PTRACE": (349, 438, 440),
    "SYS_RAWIO": (110, 101),
    "SYS_TIME": (25, 79, 264, 343, 404, 405),
    "SYS_TTY_CONFIG": (111,),
    "SYS_NICE": (274, 275, 276, 294, 317, 450),
    "SYSLOG": (103,),
    "BPF": (357,),
    "PERFMON": (336,),
}  # fmt: skip
_CLONE, _CLONE3, _PERSONALITY, _SOCKET = 56, 435, 135, 41
_CLONE_32, _PERSONALITY_32 = 120, 136

_MOST = 16
_made: dict[int, bytes] = {}  # a container's processes have two or three sets of capabilities


def program(bits: int) -> bytes:
    """The filter for a process with the capabilities ``bits``: made once, 3 ms under TCG."""
    known = _made.get(bits)
    if known is None:
        if len(_made) >= _MOST:
            _made.clear()
        known = _made[bits] = _make(bits)
    return known


def _make(bits: int) -> bytes:
    narrow = _calls(_CALLS_32, bits, clone=_CLONE_32, personality=_PERSONALITY_32, socket=-1)
    wide = _calls(_CALLS, bits, clone=_CLONE, personality=_PERSONALITY, socket=_SOCKET)
    head = [
        _statement(_LOAD, _ARCH),
        _jump(_JEQ, _ARCH_I386, 0, len(narrow)),
        *narrow,
        _jump(_JEQ, _ARCH_X86_64, 1, 0),
        _statement(_RETURN, _ERRNO | _ENOSYS),
    ]
    return b"".join(head + wide)


def _calls(
    calls: dict[str, tuple[int, ...]], bits: int, *, clone: int, personality: int, socket: int
) -> list[bytes]:
    """The part for one architecture; every way through it ends in a return."""
    admin = bits & capabilities.mask(["SYS_ADMIN"])
    denied = sorted(
        number
        for name, numbers in calls.items()
        if not name
        or (
            not bits & capabilities.mask([name])
            # CAP_SYS_ADMIN is the old name of these two as well.
            and not (admin and name in ("BPF", "PERFMON", "SYSLOG"))
        )
        for number in numbers
    )
    code = [
        _statement(_LOAD, _NUMBER),
        _jump(_JGE, _X32, 1, 0),
        _jump(_JGE, _LAST, 0, 1),
        _statement(_RETURN, _ERRNO | _ENOSYS),
    ]
    # Chains of jumps to one return: an offset has eight bits, so in pieces.
    for start in range(0, len(denied), 64):
        piece = denied[start : start + 64]
        code += [_jump(_JEQ, number, len(piece) - place, 0) for place, number in enumerate(piece)]
        code += [_jump(_JGE, 0, 1, 0), _statement(_RETURN, _ERRNO | _EPERM)]
    if not admin:
        code += [
            _jump(_JEQ, _CLONE3, 0, 1),
            _statement(_RETURN, _ERRNO | _ENOSYS),  # its flags are in memory: libc falls back to clone
            _jump(_JEQ, clone, 0, 4),
            _statement(_LOAD, _ARGUMENT0),
            _jump(_JSET, _NEW_NAMESPACES, 0, 1),
            _statement(_RETURN, _ERRNO | _EPERM),
            _statement(_RETURN, _ALLOW),
        ]
    code += [
        _jump(_JEQ, personality, 0, len(_PERSONALITIES) + 3),
        _statement(_LOAD, _ARGUMENT0),
        *(_jump(_JEQ, value, len(_PERSONALITIES) - place, 0) for place, value in enumerate(_PERSONALITIES)),
        _statement(_RETURN, _ERRNO | _EPERM),
        _statement(_RETURN, _ALLOW),
    ]
    if socket >= 0:
        code += [
            _jump(_JEQ, socket, 0, 3),
            _statement(_LOAD, _ARGUMENT0),
            _jump(_JEQ, _AF_VSOCK, 0, 1),
            _statement(_RETURN, _ERRNO | _EPERM),  # the host is behind it
        ]
    return [*code, _statement(_RETURN, _ALLOW)]


def _statement(code: int, value: int) -> bytes:
    return struct.pack("<HBBI", code, 0, 0, value)


def _jump(code: int, value: int, true: int, false: int) -> bytes:
    return struct.pack("<HBBI", code, true, false, value)
