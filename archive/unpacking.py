"""Stub."""

from __future__ import annotations

from archive.limits import Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Protocol, Self

    class Readable(Protocol):
        def read(self, size: int, /) -> bytes: ...


__all__ = ["UnpackOptions", "UnpackResult", "Unpacker", "unpack"]


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


class Unpacker:
    """Takes an archive in chunks of any size and writes it below ``path``.

    A context manager; closes its descriptors however it ends. After an
    error the tree holds whatever was unpacked before it, and nothing outside.
    Not for several threads at once.

    Raises (constructor):
        NotADirectoryError, FileNotFoundError: ``path`` must be an existing directory.
    """

    def __init__(self, root_fd: int, path: bytes = b"/", *, options: UnpackOptions | None = None) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes of the archive.

        Raises:
            ArchiveError: malformed, or refused; no further call but close() makes sense.
            OSError: ENOSPC, EROFS, EIO, ...
        """
        raise NotImplementedError

    def finish(self) -> UnpackResult:
        """The archive ends here: check that it is whole, set directory times."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of all descriptors. Idempotent."""
        raise NotImplementedError


def unpack(
    root_fd: int, path: bytes, stream: Readable, *, options: UnpackOptions | None = None
) -> UnpackResult:
    """Read ``stream`` to its end (also behind the archive's end) and unpack it below ``path``."""
    raise NotImplementedError
