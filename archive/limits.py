"""How much of a stranger's archive we are ready to take."""

from __future__ import annotations

__all__ = ["Limits"]


class Limits:
    """Caps on one archive. Reaching one is an :class:`archive.ArchiveError` that names the cap.

    (Not a dataclass: that import costs more than the whole package.)
    """

    __slots__ = (
        "depth",
        "extended_header",
        "file_bytes",
        "members",
        "name",
        "sparse_ratio",
        "total_bytes",
        "xattrs",
    )

    def __init__(
        self,
        *,
        members: int = 2_000_000,
        name: int = 4096,
        depth: int = 512,
        extended_header: int = 1 << 20,
        xattrs: int = 256,
        file_bytes: int = 1 << 43,
        total_bytes: int = 1 << 44,
        sparse_ratio: int = 1 << 20,
    ) -> None:
        self.members = members  # entries in the archive
        self.name = name  # bytes of a path (PATH_MAX)
        self.depth = depth  # components of a path
        self.extended_header = extended_header  # bytes of one PAX or GNU long-name body
        self.xattrs = xattrs  # extended attributes of one member
        self.file_bytes = file_bytes  # logical size of one file
        self.total_bytes = total_bytes  # logical size of all files
        self.sparse_ratio = sparse_ratio  # logical bytes of a sparse file per byte of the stream so far
