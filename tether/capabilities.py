"""Linux capabilities: names to bits (linux/capability.h)."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["LAST", "mask", "names"]

_NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
    "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO "
    "SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME "
    "SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG "
    "WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
).split()
LAST = len(_NAMES) - 1


def mask(wanted: Iterable[str]) -> int:
    """The bit set of ``wanted`` ("CAP_CHOWN", "chown" …).

    Raises:
        ValueError: no such capability; the message is Docker's.
    """
    bits = 0
    for name in wanted:
        short = name.upper().removeprefix("CAP_")
        if short not in _NAMES:
            raise ValueError(f'invalid capability: "{name}"')
        bits |= 1 << _NAMES.index(short)
    return bits


def names(bits: int) -> list[str]:
    return [f"CAP_{name}" for number, name in enumerate(_NAMES) if bits >> number & 1]
