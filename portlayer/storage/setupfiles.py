"""What every container start leaves on its disk, and ``docker diff`` does not show.

Docker keeps these in a layer of their own: mount points and the files that are
mounted over. The guest makes them on the container disk.
"""

from __future__ import annotations

from portlayer.portlayer_pb2 import DiffEntry

__all__ = ["without_setup_files"]

_SETUP_FILES = frozenset(
    (
        b"/.dockerenv",
        b"/dev/console",
        b"/dev/pts",
        b"/dev/shm",
        b"/etc/hostname",
        b"/etc/hosts",
        b"/etc/mtab",
        b"/etc/resolv.conf",
    )
)
_SETUP_DIRECTORIES = frozenset((b"/dev", b"/etc", b"/proc", b"/sys"))


def without_setup_files(
    entries: list[tuple[bytes, DiffEntry.Kind.ValueType]],
) -> list[tuple[bytes, DiffEntry.Kind.ValueType]]:
    """Drop the set-up files that were added or changed, and the directories that are there only for them."""
    kept = [entry for entry in entries if entry[0] not in _SETUP_FILES or entry[1] == DiffEntry.DELETED]
    needed = {path.split(b"/", 2)[1] for path, _ in kept if path.count(b"/") > 1}
    return [
        (path, kind)
        for path, kind in kept
        if path not in _SETUP_DIRECTORIES or path[1:] in needed or kind == DiffEntry.DELETED
    ]
