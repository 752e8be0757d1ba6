"""How to unpack, and what came of it."""

from __future__ import annotations

from archive.limits import Limits

__all__ = ["UnpackOptions", "UnpackResult"]


class UnpackOptions:
    """How to unpack. The defaults are those of ``docker cp``.

    ``owner``: (uid, gid) for everything instead of what the archive says.
    ``layer``: whiteouts (``.wh.name``, ``.wh..wh..opq``) delete, as OCI says.
    """

    __slots__ = ("layer", "limits", "no_overwrite_dir_non_dir", "owner")

    def __init__(
        self,
        *,
        layer: bool = False,
        no_overwrite_dir_non_dir: bool = False,
        owner: tuple[int, int] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.layer = layer
        self.no_overwrite_dir_non_dir = no_overwrite_dir_non_dir
        self.owner = owner
        self.limits = limits or Limits()


class UnpackResult:
    """What an archive held."""

    __slots__ = ("members", "size", "skipped_xattrs")

    def __init__(self, *, members: int, size: int, skipped_xattrs: int) -> None:
        self.members = members  # entries, whiteouts included
        self.size = size  # logical bytes of regular files
        self.skipped_xattrs = skipped_xattrs  # the file system has no place for them (foreign namespaces)
