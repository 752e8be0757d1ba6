"""Extended attributes of one file, read and written.

A file system may have no place for some: foreign namespaces (macOS writes
``com.apple.*`` into its archives), or ``user.*`` on a link. These are counted
by the caller, as Docker logs them. Anything else that goes wrong is an error.
"""

from __future__ import annotations

import errno
import os

from archive.errors import ArchiveError

__all__ = ["read_xattrs", "write_xattrs"]

_SPACES = (b"user.", b"security.", b"trusted.", b"system.")
_NO_PLACE = frozenset((errno.ENOTSUP, errno.EOPNOTSUPP))
_TOO_BIG = frozenset((errno.E2BIG, errno.ERANGE, errno.EINVAL))


def read_xattrs(target: int | str) -> dict[bytes, bytes]:
    """All attributes of an open file, or of a path that is not followed.

    A name with ``=`` in it is left out: PAX records cannot hold it.
    """
    follow = isinstance(target, int)
    try:
        names = os.listxattr(target, follow_symlinks=follow)
    except OSError as error:
        if error.errno in _NO_PLACE:
            return {}
        raise
    found = {}
    for name in names:
        if "=" in name:
            continue
        try:
            found[os.fsencode(name)] = os.getxattr(target, name, follow_symlinks=follow)
        except OSError as error:
            if error.errno not in _NO_PLACE and error.errno != errno.ENODATA:
                raise
    return found


def write_xattrs(target: int | str, xattrs: dict[bytes, bytes], member: bytes) -> int:
    """Set attributes; the number of those the file system has no place for.

    Raises:
        ArchiveError: one is malformed or too large.
        OSError: everything else.
    """
    follow = isinstance(target, int)
    skipped = 0
    for name, value in xattrs.items():
        if not name.startswith(_SPACES):
            skipped += 1
            continue
        try:
            os.setxattr(target, name, value, follow_symlinks=follow)
        except OSError as error:
            foreign = error.errno == errno.EPERM and name.startswith(b"user.")  # on links and devices
            if error.errno in _NO_PLACE or foreign:
                skipped += 1
            elif error.errno in _TOO_BIG or (error.errno == errno.ENOSPC and _has_space(target)):
                shown = name[:64].decode("utf-8", "backslashreplace")
                raise ArchiveError(member, f"extended attribute {shown!r}: {error.strerror}") from error
            else:
                raise
    return skipped


def _has_space(target: int | str) -> bool:
    """ext4 says ENOSPC also for attributes that never fit: tell one from the other."""
    return os.statvfs(target).f_bavail > 0
