"""The final capability set of a process: Docker's default, plus added, minus dropped. No I/O."""

from __future__ import annotations

from collections.abc import Iterable

from engine.http import BadRequest

__all__ = ["ALL", "DEFAULT", "final_set", "normalised"]

ALL: tuple[str, ...] = tuple(
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
        "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT "
        "SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE "
        "AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ "
        "PERFMON BPF CHECKPOINT_RESTORE"
    ).split()
)

DEFAULT: tuple[str, ...] = tuple(
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE "
        "SYS_CHROOT KILL AUDIT_WRITE"
    ).split()
)

_EVERYTHING = "ALL"


def normalised(names: Iterable[str], field: str = "CapAdd") -> list[str]:
    """Upper case with ``CAP_``; ``ALL`` stays. BadRequest for one that does not exist."""
    result: list[str] = []
    for name in names:
        upper = name.upper()
        if upper in (_EVERYTHING, "CAP_ALL"):
            result.append(_EVERYTHING)
            continue
        full = upper if upper.startswith("CAP_") else f"CAP_{upper}"
        if full not in ALL:
            raise BadRequest(f'invalid {field}: unknown capability: "{name}"')
        result.append(full)
    return result


def final_set(add: Iterable[str], drop: Iterable[str], *, privileged: bool) -> list[str]:
    """In the kernel's order."""
    added, dropped = set(normalised(add)), set(normalised(drop, "CapDrop"))
    if privileged:
        wanted = set(ALL)
    elif _EVERYTHING in added:
        wanted = set(ALL) - dropped
    elif _EVERYTHING in dropped:
        wanted = added
    else:
        wanted = (set(DEFAULT) - dropped) | added
    return [name for name in ALL if name in wanted]
