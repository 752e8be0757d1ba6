"""The system calls that Python 3.11's os module lacks, by ctypes.

Every failure raises :class:`SyscallError`, an OSError that names the call and
its object, because "Invalid argument" alone tells nobody which of the thirty
mounts of a container was wrong. Constants carry their kernel header.
"""

from __future__ import annotations

import ctypes
import os

__all__ = ["SyscallError"]

# linux/mount.h
MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_SYNCHRONOUS = 0x10
MS_REMOUNT = 0x20
MS_DIRSYNC = 0x80
MS_NOSYMFOLLOW = 0x100
MS_NOATIME = 0x400
MS_NODIRATIME = 0x800
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
MS_RELATIME = 0x200000
MS_STRICTATIME = 0x1000000
MNT_DETACH = 0x2  # linux/fs.h
OPEN_TREE_CLONE = 0x1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40
AT_FDCWD = -100  # linux/fcntl.h
AT_RECURSIVE = 0x8000
AT_EMPTY_PATH = 0x1000
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4

# linux/sched.h
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000

# linux/reboot.h
RB_POWER_OFF = 0x4321FEDC
RB_DISABLE_CAD = 0

# linux/prctl.h
PR_SET_KEEPCAPS = 8
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

# linux/random.h
RNDADDENTROPY = 0x40085203
RNDRESEEDCRNG = 0x5207
# linux/fs.h
FIFREEZE = 0xC0045877
FITHAW = 0xC0045878

# asm/unistd_64.h (the guest is always x86-64)
_SYS_PIVOT_ROOT = 155
_SYS_KEYCTL = 250
_SYS_PRLIMIT64 = 302
_SYS_FINIT_MODULE = 313
_SYS_BPF = 321
_SYS_SECCOMP = 317
_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_OPENAT2 = 437
_SYS_MOUNT_SETATTR = 442
_SYS_CAPSET = 126

KEYCTL_JOIN_SESSION_KEYRING = 1  # linux/keyctl.h
_CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h

# linux/openat2.h
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)

FileName = str | bytes


class SyscallError(OSError):
    """A failed system call: errno, the call's name and what it was applied to."""

    def __init__(self, number: int, call: str, subject: str = "") -> None:
        super().__init__(number, os.strerror(number))
        self.call = call
        self.subject = subject

    def __str__(self) -> str:
        return f"{self.call}({self.subject}): {self.strerror}"


def _check(result: int, call: str, subject: str = "") -> int:
    if result < 0:
        raise SyscallError(ctypes.get_errno(), call, subject)
    return result


def _text(path: FileName) -> str:
    return path if isinstance(path, str) else os.fsdecode(path)


# ---------------------------------------------------------------- mounts


def mount(source: FileName, target: FileName, fstype: str = "", flags: int = 0, data: str = "") -> None:
    result = _libc.mount(
        os.fsencode(source), os.fsencode(target), fstype.encode() or None, flags, data.encode() or None
    )
    words = " ".join(word for word in (_text(source), _text(target), fstype, data) if word)
    _check(result, "mount", words)


def bind(source: FileName, target: FileName) -> None:
    mount(source, target, flags=MS_BIND | MS_REC)


def umount(target: FileName, flags: int = 0) -> None:
    _check(_libc.umount2(os.fsencode(target), flags), "umount", _text(target))


def pivot_root(new_root: str, put_old: str) -> None:
    result = _libc.syscall(_SYS_PIVOT_ROOT, new_root.encode(), put_old.encode())
    _check(result, "pivot_root", f"{new_root} {put_old}")


def open_tree(path: FileName) -> int:
    """A detached, recursive copy of what is mounted at ``path``, to be attached by :func:`move_mount`.

    A relative path and a directory are given as one path below /proc/self/fd when they must be resolved
    beneath a descriptor.
    """
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE
    return _check(_libc.syscall(_SYS_OPEN_TREE, AT_FDCWD, os.fsencode(path), flags), "open_tree", _text(path))


def open_tree_at(fd: int, subject: str) -> int:
    """:func:`open_tree` of an open (O_PATH) file or directory."""
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE | AT_EMPTY_PATH
    return _check(_libc.syscall(_SYS_OPEN_TREE, fd, b"", flags), "open_tree", subject)


def move_mount(tree: int, target: FileName) -> None:
    flags = MOVE_MOUNT_F_EMPTY_PATH
    result = _libc.syscall(_SYS_MOVE_MOUNT, tree, b"", AT_FDCWD, os.fsencode(target), flags)
    _check(result, "move_mount", _text(target))


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def set_read_only(path: FileName, *, recursive: bool = False) -> None:
    """Make one mount (not its file system) read-only; other flags of the mount stay."""
    attributes = _MountAttr(MOUNT_ATTR_RDONLY, 0, 0, 0)
    flags = AT_RECURSIVE if recursive else 0
    result = _libc.syscall(
        _SYS_MOUNT_SETATTR,
        AT_FDCWD,
        os.fsencode(path),
        flags,
        ctypes.byref(attributes),
        ctypes.c_size_t(ctypes.sizeof(attributes)),
    )
    _check(result, "mount_setattr", _text(path))


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def openat2(directory: int, path: FileName, flags: int, *, resolve: int, mode: int = 0) -> int:
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    result = _libc.syscall(
        _SYS_OPENAT2,
        directory,
        os.fsencode(path),
        ctypes.byref(how),
        ctypes.c_size_t(ctypes.sizeof(how)),
    )
    return _check(result, "openat2", _text(path))


def syncfs(fd: int, subject: str) -> None:
    """Write back one file system. (sync(2) waits for all of them, those that do not answer included.)"""
    _check(_libc.syncfs(fd), "syncfs", subject)


# ---------------------------------------------------------------- namespaces, identity


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare", f"{flags:#x}")


def setns(fd: int, flags: int) -> None:
    _check(_libc.setns(fd, flags), "setns", f"{flags:#x}")


def sethostname(name: str) -> None:
    raw = name.encode()
    _check(_libc.sethostname(raw, ctypes.c_size_t(len(raw))), "sethostname", name)


def setdomainname(name: str) -> None:
    raw = name.encode()
    _check(_libc.setdomainname(raw, ctypes.c_size_t(len(raw))), "setdomainname", name)


def prctl(option: int, *arguments: int) -> None:
    words = [ctypes.c_ulong(word) for word in (*arguments, 0, 0, 0, 0)[:4]]
    _check(_libc.prctl(option, *words), "prctl", str(option))


class _Rlimit(ctypes.Structure):
    _fields_ = (("soft", ctypes.c_uint64), ("hard", ctypes.c_uint64))


def setrlimit(resource: int, soft: int, hard: int) -> None:
    """For this process; not by the resource module, which is one import more."""
    limit = _Rlimit(soft, hard)
    _check(_libc.syscall(_SYS_PRLIMIT64, 0, resource, ctypes.byref(limit), None), "prlimit", str(resource))


def join_new_session_keyring() -> None:
    _check(_libc.syscall(_SYS_KEYCTL, KEYCTL_JOIN_SESSION_KEYRING, None), "keyctl", "session keyring")


def capset(*, effective: int, permitted: int, inheritable: int) -> None:
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    mask = 0xFFFFFFFF
    data = (ctypes.c_uint32 * 6)(
        effective & mask,
        permitted & mask,
        inheritable & mask,
        effective >> 32,
        permitted >> 32,
        inheritable >> 32,
    )
    _check(_libc.syscall(_SYS_CAPSET, header, data), "capset")


# ---------------------------------------------------------------- programs for the kernel


def finit_module(fd: int, path: str) -> None:
    _check(_libc.syscall(_SYS_FINIT_MODULE, fd, b"", 0), "finit_module", path)


class _SockFprog(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def seccomp_filter(program: bytes) -> None:
    """Install a classic BPF program (8 bytes an instruction) for this process and its children."""
    set_mode_filter, flags = 1, 0  # linux/seccomp.h
    argument = _SockFprog(len(program) // 8, program)
    _check(_libc.syscall(_SYS_SECCOMP, set_mode_filter, flags, ctypes.byref(argument)), "seccomp")


class _BpfLoad(ctypes.Structure):  # union bpf_attr of BPF_PROG_LOAD, its first fields
    _fields_ = (
        ("prog_type", ctypes.c_uint32),
        ("insn_cnt", ctypes.c_uint32),
        ("insns", ctypes.c_char_p),
        ("license", ctypes.c_char_p),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_void_p),
        ("kern_version", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
    )


class _BpfAttach(ctypes.Structure):  # union bpf_attr of BPF_PROG_ATTACH
    _fields_ = (
        ("target_fd", ctypes.c_uint32),
        ("attach_bpf_fd", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("attach_flags", ctypes.c_uint32),
    )


def attach_device_filter(cgroup: str, program: bytes) -> None:
    """Let an eBPF program (8 bytes an instruction) decide which devices the cgroup may open or make."""
    bpf_prog_load, bpf_prog_attach = 5, 8  # enum bpf_cmd
    prog_type_cgroup_device, cgroup_device, allow_multi = 15, 6, 2
    load = _BpfLoad(prog_type_cgroup_device, len(program) // 8, program, b"Apache-2.0", 0, 0, None, 0, 0)
    loaded = _libc.syscall(_SYS_BPF, bpf_prog_load, ctypes.byref(load), ctypes.sizeof(load))
    _check(loaded, "bpf", "load device filter")
    directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        attach = _BpfAttach(directory, loaded, cgroup_device, allow_multi)
        result = _libc.syscall(_SYS_BPF, bpf_prog_attach, ctypes.byref(attach), ctypes.sizeof(attach))
        _check(result, "bpf", f"attach device filter to {cgroup}")
    finally:
        os.close(directory)
        os.close(loaded)


# ---------------------------------------------------------------- machine


def reboot(command: int) -> None:
    _check(_libc.reboot(ctypes.c_int(command)), "reboot", f"{command:#x}")
