"""Building archives that no honest tar would write, and looking at trees."""

import io
import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import archive


def entry(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def tar(*members: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes], kind: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as file:
        for member in members:
            info, data = member if isinstance(member, tuple) else (member, b"")
            if data:
                info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@contextmanager
def root(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def unpack(path: Path, data: bytes, where: bytes = b"/", **options: object) -> archive.UnpackResult:
    with root(path) as fd:
        return archive.unpack(fd, where, io.BytesIO(data), options=archive.UnpackOptions(**options))


def pack(path: Path, what: bytes, **options: object) -> bytes:
    with root(path) as fd:
        return b"".join(archive.pack(fd, what, **options))


def snapshot(path: Path) -> dict[bytes, tuple[object, ...]]:
    """Everything a tar can hold of a tree, by name; hard links as the names of their group."""
    found: dict[bytes, tuple[object, ...]] = {}
    groups: dict[int, list[bytes]] = {}
    inodes: dict[bytes, int] = {}
    top = os.fsencode(path)
    for directory, names, files in os.walk(top):
        for name in [b".", *names, *files] if directory == top else names + files:
            full = os.path.join(directory, name)
            status = os.lstat(full)
            kind = stat.S_IFMT(status.st_mode)
            content: object = None
            if kind == stat.S_IFREG:
                content = Path(os.fsdecode(full)).read_bytes()
            elif kind == stat.S_IFLNK:
                content = os.readlink(full)
            elif kind in (stat.S_IFCHR, stat.S_IFBLK):
                content = status.st_rdev
            xattrs = {
                key: os.getxattr(full, key, follow_symlinks=False)
                for key in os.listxattr(full, follow_symlinks=False)
            }
            key = os.path.relpath(full, top)
            if kind != stat.S_IFDIR:
                groups.setdefault(status.st_ino, []).append(key)
                inodes[key] = status.st_ino
            found[key] = (
                oct(status.st_mode),
                status.st_uid,
                status.st_gid,
                status.st_mtime_ns,
                content,
                tuple(sorted(xattrs.items())),
            )
    return {
        key: (*values, sorted(groups[inodes[key]]) if key in inodes else None)
        for key, values in found.items()
    }
