"""Paths inside a root, resolved as a chroot would, without ever leaving it.

Every step is one ``openat`` with ``O_NOFOLLOW``. A symbolic link is read and
its target walked from where it stands, or from the root when it is absolute;
``..`` walks the chain of names again from the root instead of asking the
kernel, so that a directory moved by somebody else cannot lead us out. Magic
links of /proc are read as text like any other link.
"""

from __future__ import annotations

import errno
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "Directory",
    "StatResult",
    "clean",
    "open_directory",
    "open_file",
    "real_path",
    "split",
    "stat_path",
]

_STEP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_LINKS = 40  # as the kernel
_MAX_PATH = 1 << 16  # bytes of names on the way, links included


class Directory:
    """An open directory inside a root and its names from the root, free of links."""

    __slots__ = ("fd", "names")

    def __init__(self, fd: int, names: list[bytes]) -> None:
        self.fd = fd  # O_PATH
        self.names = names

    def close(self) -> None:
        os.close(self.fd)


class StatResult:
    """One path, as ``docker cp`` asks for it. A final symbolic link is not followed."""

    __slots__ = ("link_target", "mode", "mtime_ns", "name", "size")

    def __init__(self, *, name: bytes, size: int, mode: int, mtime_ns: int, link_target: bytes) -> None:
        self.name = name  # last component; b"/" for the root, b"." when the path ends in "/."
        self.size = size
        self.mode = mode  # st_mode
        self.mtime_ns = mtime_ns
        self.link_target = link_target  # of a link: where it leads, fully resolved inside the root; else b""


def clean(path: bytes) -> list[bytes]:
    """Components of an absolute path with ``.``, ``..`` and empty ones resolved lexically, as Docker does."""
    names: list[bytes] = []
    for name in path.split(b"/"):
        if name == b"..":
            if names:
                names.pop()
        elif name not in (b"", b"."):
            names.append(name)
    return names


def split(path: bytes) -> tuple[list[bytes], bytes | None]:
    """(components of the parent, last component); None when the path means a directory itself.

    That is the root, and a path that ends in ``/`` or ``/.``: all its links are followed.
    """
    names = clean(path)
    if not names or path.endswith((b"/", b"/.")):
        return names, None
    return names[:-1], names[-1]


def base_name(path: bytes) -> bytes:
    """The name ``docker cp`` gives to the top entry: Go's filepath.Base of the cleaned path."""
    names = clean(path)
    if not names:
        return b"/"
    return b"." if path.endswith(b"/.") else names[-1]


def open_directory(
    root_fd: int, names: Iterable[bytes], *, start: Directory | None = None, create: bool = False
) -> Directory:
    """Walk ``names`` from ``start`` (default: the root); ``create`` makes missing directories (0755).

    Raises:
        OSError: FileNotFoundError, NotADirectoryError, ELOOP, ENAMETOOLONG
    """
    done = list(start.names) if start else []
    fd = os.open(".", _STEP, dir_fd=start.fd if start else root_fd)
    try:
        pending = list(names)
        pending.reverse()
        links = 0
        while pending:
            name = pending.pop()
            if name in (b"", b"."):
                continue
            if name == b"..":
                if done:
                    done.pop()
                fd = _replace(fd, _reopen(root_fd, done))
                continue
            try:
                step = os.open(name, _STEP, dir_fd=fd)
            except FileNotFoundError:
                if not create:
                    raise
                _make_directory(fd, name)
                pending.append(name)
                continue
            except NotADirectoryError:
                target = _read_link(fd, name)
                links += 1
                if links > _MAX_LINKS or _length(pending) + len(target) > _MAX_PATH:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name) from None
                if target.startswith(b"/"):
                    done = []
                    fd = _replace(fd, _reopen(root_fd, done))
                pending.extend(reversed(target.split(b"/")))
                continue
            done.append(name)
            fd = _replace(fd, step)
    except BaseException:
        os.close(fd)
        raise
    return Directory(fd, done)


def real_path(root_fd: int, path: bytes) -> bytes:
    """Where ``path`` leads, every link followed inside the root; what is missing is taken literally."""
    pending = clean(path)
    pending.reverse()
    done: list[bytes] = []
    links = 0
    while pending:
        name = pending.pop()
        if name in (b"", b"."):
            continue
        if name == b"..":
            if done:
                done.pop()
            continue
        try:
            fd = _reopen(root_fd, done)
            try:
                target = os.readlink(name, dir_fd=fd)
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR):
                raise
            done.append(name)
            continue
        links += 1
        if links > _MAX_LINKS or _length(pending) + len(target) > _MAX_PATH:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
        if target.startswith(b"/"):
            done = []
        pending.extend(reversed(target.split(b"/")))
    return b"/" + b"/".join(done)


def open_file(root_fd: int, path: bytes) -> int:
    """Open a regular file for reading, all links followed inside the root.

    Raises:
        OSError: FileNotFoundError, ...; EINVAL: it is no regular file
    """
    *parents, last = clean(real_path(root_fd, path)) or [b"."]
    directory = open_directory(root_fd, parents)
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        fd = os.open(last, flags, dir_fd=directory.fd)
    finally:
        directory.close()
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return fd


def stat_path(root_fd: int, path: bytes) -> StatResult:
    """Stat ``path`` inside the root.

    As Docker does: the last component is not followed, unless the path ends in ``/`` or ``/.``.

    Raises:
        OSError: FileNotFoundError, NotADirectoryError, ELOOP, ...
    """
    parents, last = split(path)
    directory = open_directory(root_fd, parents)
    try:
        if last is None:
            status = os.fstat(directory.fd)
        else:
            status = os.stat(last, dir_fd=directory.fd, follow_symlinks=False)
    finally:
        directory.close()
    target = real_path(root_fd, path) if stat.S_ISLNK(status.st_mode) else b""
    return StatResult(
        name=base_name(path),
        size=status.st_size,
        mode=status.st_mode,
        mtime_ns=status.st_mtime_ns,
        link_target=target,
    )


def _length(names: list[bytes]) -> int:
    return sum(map(len, names)) + len(names)


def _replace(old: int, new: int) -> int:
    os.close(old)
    return new


def _reopen(root_fd: int, names: list[bytes]) -> int:
    """Walk names that were link-free a moment ago; a link there now is an error."""
    fd = os.open(".", _STEP, dir_fd=root_fd)
    for name in names:
        try:
            step = os.open(name, _STEP, dir_fd=fd)
        finally:
            os.close(fd)
        fd = step
    return fd


def _read_link(fd: int, name: bytes) -> bytes:
    try:
        return os.readlink(name, dir_fd=fd)
    except OSError as error:
        if error.errno == errno.EINVAL:  # there, but no link: a file stands in the way
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), name) from None
        raise


def _make_directory(fd: int, name: bytes) -> None:
    try:
        os.mkdir(name, 0o755, dir_fd=fd)
    except FileExistsError:
        return  # somebody else was faster, or a dangling link: the next step tells
    made = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
    try:
        os.fchmod(made, 0o755)  # whatever the umask says
    finally:
        os.close(made)
