"""What every container start leaves on its disk, and neither ``docker diff`` nor a commit shows.

Docker keeps these in a layer of their own: mount points and the files that are
mounted over. The guest makes them on the container disk.
"""

from __future__ import annotations

from portlayer.offline.changes import DELETED

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


def without_setup_files(entries: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Drop the set-up files that were added or changed, and the directories that are there only for them.

    Entries are (kind, path) as :func:`portlayer.offline.changes.compare` yields them.
    """
    kept = [entry for entry in entries if entry[1] not in _SETUP_FILES or entry[0] == DELETED]
    needed = {path.split(b"/", 2)[1] for _, path in kept if path.count(b"/") > 1}
    return [
        (kind, path)
        for kind, path in kept
        if path not in _SETUP_DIRECTORIES or path[1:] in needed or kind == DELETED
    ]
