"""Fill an empty volume with what the image has at its destination, as Docker does at first use.

The copy is made beside the volume's ``data`` and takes its place by one rename:
a container killed half-way leaves an empty volume, not half a one. Everything
goes by directory descriptors, so a link in the image leads nowhere.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from tether import linux

__all__ = ["copy_up"]

_NEW = ".copy-up"
_MAX_DEPTH = 512
_PIECE = 1 << 20


def copy_up(source: int, volume: int) -> None:
    """Copy the directory ``source`` to ``data`` in the directory ``volume``, when that is empty.

    Owner and mode of the directory itself are taken over as well.
    """
    data = os.open("data", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=volume)
    try:
        if os.listdir(data):
            return
    finally:
        os.close(data)
    _remove(_NEW, volume)  # of a start that was cut off
    os.mkdir(_NEW, 0o700, dir_fd=volume)
    target = os.open(_NEW, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=volume)
    try:
        _copy_directory(source, target, {}, 0)
    finally:
        os.close(target)
    linux.syncfs(volume, "volume")
    os.rename(_NEW, "data", src_dir_fd=volume, dst_dir_fd=volume)
    os.fsync(volume)


def _copy_directory(source: int, target: int, links: dict[int, tuple[int, str]], depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise OSError(errno.ELOOP, "directories nested too deep")
    device = os.fstat(source).st_dev
    for name in os.listdir(source):
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            os.mkdir(name, 0o700, dir_fd=target)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            child = os.open(name, flags, dir_fd=source)
            try:
                copy = os.open(name, flags, dir_fd=target)
                try:
                    if os.fstat(child).st_dev == device:
                        _copy_directory(child, copy, links, depth + 1)
                finally:
                    os.close(copy)
            finally:
                os.close(child)
            continue
        first = links.get(status.st_ino)
        if first is not None:
            os.link(first[1], name, src_dir_fd=first[0], dst_dir_fd=target, follow_symlinks=False)
            continue
        if stat.S_ISREG(status.st_mode):
            _copy_file(name, source, target)
        elif stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        else:
            os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
        if not stat.S_ISLNK(status.st_mode):
            os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=target)
        os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=target, follow_symlinks=False)
        if status.st_nlink > 1:
            links[status.st_ino] = (os.dup(target), name)
    status = os.fstat(source)
    _copy_attributes(source, target)
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _copy_file(name: str, source: int, target: int) -> None:
    reader = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        writer = os.open(name, flags, 0o600, dir_fd=target)
        try:
            _copy_bytes(reader, writer)
            _copy_attributes(reader, writer)
        finally:
            os.close(writer)
    finally:
        os.close(reader)


def _copy_bytes(reader: int, writer: int) -> None:
    size = os.fstat(reader).st_size
    position = 0
    while position < size:
        try:
            position = os.lseek(reader, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break  # only a hole is left
        end = os.lseek(reader, position, os.SEEK_HOLE)
        os.lseek(writer, position, os.SEEK_SET)
        while position < end:
            sent = os.sendfile(writer, reader, position, min(_PIECE, end - position))
            if sent == 0:
                return
            position += sent
    os.ftruncate(writer, size)


def _copy_attributes(source: int, target: int) -> None:
    for name in os.listxattr(source):
        with contextlib.suppress(PermissionError):  # kernel-owned names
            os.setxattr(target, name, os.getxattr(source, name))


def _remove(name: str, directory: int) -> None:
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(status.st_mode):
        os.unlink(name, dir_fd=directory)
        return
    inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        for child in os.listdir(inner):
            _remove(child, inner)
    finally:
        os.close(inner)
    os.rmdir(name, dir_fd=directory)
