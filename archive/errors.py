"""What can be wrong with an archive.

ArchiveError            malformed, hostile, or not what the directory can take
└─ DirectoryConflict    a directory meets a non-directory, and replacing was forbidden
"""

from __future__ import annotations

__all__ = ["ArchiveError", "DirectoryConflict"]


class ArchiveError(Exception):
    """The archive is at fault. ``member`` is the entry's name (``b""``: the stream as a whole)."""

    def __init__(self, member: bytes, reason: str) -> None:
        shown = member[:256].decode("utf-8", "backslashreplace")
        super().__init__(f"{shown!r}: {reason}" if member else reason)
        self.member = member
        self.reason = reason


class DirectoryConflict(ArchiveError):
    """A directory would be replaced by a non-directory or the other way round."""
