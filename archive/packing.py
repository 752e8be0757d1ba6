"""Stub."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

__all__ = ["pack"]


def pack(
    root_fd: int, path: bytes, *, name: bytes | None = None, empty_devices: Collection[int] = ()
) -> Iterator[bytes]:
    """A tar of ``path`` and everything below it, in chunks of at most 1 MiB.

    The path is resolved at the call (so errors about it are raised here, not
    by the iterator); its last component is followed only when it ends in ``/``
    or ``/.``. ``name`` is the name of the top entry; by default the one
    ``docker cp`` expects: the base name, ``/`` for the root, ``.`` for ``dir/.``.
    Directories on a device in ``empty_devices`` (``st_dev`` of /proc, /sys, ...)
    are packed without their content. Sockets are left out. Close the iterator
    (``.close()``) when you stop early: it holds descriptors.

    Raises:
        OSError: FileNotFoundError, NotADirectoryError, ELOOP, ...
        ArchiveError: from the iterator: a file shrank while it was read.
    """
    raise NotImplementedError
