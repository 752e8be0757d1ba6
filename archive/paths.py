"""Stub."""

from __future__ import annotations

__all__ = ["StatResult", "stat_path"]


class StatResult:
    """One path, as ``docker cp`` asks for it. A final symbolic link is not followed."""

    __slots__ = ("link_target", "mode", "mtime_ns", "name", "size")

    def __init__(self, *, name: bytes, size: int, mode: int, mtime_ns: int, link_target: bytes) -> None:
        self.name = name  # last component; b"/" for the root, b"." when the path ends in "/."
        self.size = size
        self.mode = mode  # st_mode
        self.mtime_ns = mtime_ns
        self.link_target = link_target  # of a link: where it leads, fully resolved inside the root; else b""


def stat_path(root_fd: int, path: bytes) -> StatResult:
    """Stat ``path`` inside the root.

    As Docker does: the last component is not followed, unless the path ends in ``/`` or ``/.``.

    Raises:
        OSError: FileNotFoundError, NotADirectoryError, ELOOP, ...
    """
    raise NotImplementedError
