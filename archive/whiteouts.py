"""What a layer deletes from the layers below it.

``.wh.name`` hides ``name``, ``.wh..wh..opq`` hides everything in its
directory, both only as far as lower layers put it there: what the layer itself
brought stays, whichever comes first in the archive (OCI image layer spec).
So this remembers every path the layer wrote.
"""

from __future__ import annotations

import os
import stat

from archive.errors import ArchiveError
from archive.paths import Directory
from archive.trees import list_names, remove_tree

__all__ = ["Whiteouts"]

_PREFIX = b".wh."
_OPAQUE = b".wh..wh..opq"
_AUFS = b".wh..wh."
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Whiteouts:
    """One layer's own paths (names from the root, links resolved), and the deletions."""

    def __init__(self) -> None:
        self._own: set[tuple[bytes, ...]] = set()

    def add(self, names: tuple[bytes, ...]) -> None:
        """The layer wrote this path; the directories above it are its own, too."""
        while names and names not in self._own:
            self._own.add(names)
            names = names[:-1]

    def apply(self, parent: Directory, marker: bytes, member: bytes) -> bool:
        """Delete what ``marker`` in ``parent`` hides. True when a directory or link may be gone.

        Raises:
            ArchiveError: it names nothing that can be hidden.
        """
        if marker == _OPAQUE:
            for name in list_names(parent.fd):
                self._remove_lower(parent.fd, (*parent.names, name))
            return True
        if marker.startswith(_AUFS):
            return False  # book-keeping of the aufs driver, in images of its time
        hidden = marker[len(_PREFIX) :]
        if hidden in (b"", b".", b".."):
            raise ArchiveError(member, "malformed whiteout")
        return self._remove_lower(parent.fd, (*parent.names, hidden))

    def _remove_lower(self, fd: int, names: tuple[bytes, ...]) -> bool:
        name = names[-1]
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if names not in self._own:
            remove_tree(fd, name)
            return True
        if not stat.S_ISDIR(status.st_mode):
            return False
        directory = os.open(name, _OPEN, dir_fd=fd)
        try:
            for child in list_names(directory):
                self._remove_lower(directory, (*names, child))
        finally:
            os.close(directory)
        return True
