"""Tar streams in and out of a directory that must not be escaped.

One root, given as a directory descriptor; every path in it is resolved as a
``chroot`` would resolve it, one component at a time with ``openat`` and
``O_NOFOLLOW``: a symbolic link, ``..`` or an absolute path never leaves the
root, not even when somebody swaps directories for links while we work.

Used by the tether inside the guest (``docker cp``), by the image store
(layers) and by offline disks. Invariant: nothing is imported here but ``os``,
``errno``, ``stat`` and ``struct``; every other import is boot latency of
every container VM. Paths and member names are ``bytes``.

    stat_path(root_fd, path)                  what ``docker cp`` wants to know about a path
    pack(root_fd, path, name=...)             a tar of the path and everything below, chunk by chunk
    unpack(root_fd, path, stream, options=..) pull: reads ``stream`` to its end
    Unpacker(root_fd, path, options=..)       push: ``feed(chunk)``..., then ``finish()``

Errors: :class:`ArchiveError` (the archive's fault; names the member and the
reason), :class:`DirectoryConflict` (a subclass: a directory would replace a
file or the other way round), and ``OSError`` for the file system's own
(``FileNotFoundError``, ``ENOSPC``, ``EROFS``, ...).
"""

from archive.errors import ArchiveError, DirectoryConflict
from archive.limits import Limits
from archive.options import UnpackOptions, UnpackResult
from archive.packing import pack
from archive.paths import StatResult, stat_path
from archive.unpacking import Unpacker, unpack

__all__ = [
    "ArchiveError",
    "DirectoryConflict",
    "Limits",
    "StatResult",
    "UnpackOptions",
    "UnpackResult",
    "Unpacker",
    "pack",
    "stat_path",
    "unpack",
]
