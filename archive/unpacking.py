"""A tar stream into a directory of a root.

Every parent directory is resolved inside the root (:mod:`archive.paths`), the
last component is created with ``O_EXCL`` and ``O_NOFOLLOW`` or by a call that
never follows, and metadata is set through the descriptor of what was created.
An entry that exists is replaced, except a directory by a directory.

Directories get their times at the end, when nothing below them changes any
more. Descriptors of the last directories are kept: archives come sorted, and
walking the path again for every file would double the time of a layer.
"""

from __future__ import annotations

import errno
import os
import stat

from archive.decoder import Decoder
from archive.dressing import clamp, device_number, dress, dress_by_name
from archive.errors import ArchiveError, DirectoryConflict
from archive.members import BLOCK_DEVICE, CHAR_DEVICE, DIRECTORY, FIFO, FILE, HARD_LINK, SYMBOLIC_LINK, Member
from archive.options import UnpackOptions, UnpackResult
from archive.paths import Directory, clean, open_directory
from archive.trees import remove_tree
from archive.whiteouts import Whiteouts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Protocol, Self

    class Readable(Protocol):
        def read(self, size: int, /) -> bytes: ...


__all__ = ["Unpacker", "unpack"]

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KEPT_DIRECTORIES = 32
_READ = 1 << 20
# what the file system answers when the archive asks for something impossible
_ARCHIVE_FAULTS = frozenset(
    (
        errno.EEXIST,
        errno.EFBIG,
        errno.EINVAL,
        errno.EISDIR,
        errno.ELOOP,
        errno.EMLINK,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EOVERFLOW,
        errno.EXDEV,
    )
)


class Unpacker:
    """Takes an archive in chunks of any size and writes it below ``path``.

    A context manager; closes its descriptors however it ends. After an
    error the tree holds whatever was unpacked before it, and nothing outside.
    Not for several threads at once.

    Raises (constructor):
        NotADirectoryError, FileNotFoundError: ``path`` must be an existing directory.
    """

    def __init__(self, root_fd: int, path: bytes = b"/", *, options: UnpackOptions | None = None) -> None:
        self._options = options or UnpackOptions()
        self._decoder = Decoder(self._options.limits)
        self._root_fd = root_fd
        self._base = open_directory(root_fd, clean(path))
        self._whiteouts = Whiteouts() if self._options.layer else None
        self._parents: dict[bytes, Directory] = {}  # by the parent's name in the archive
        self._times: dict[tuple[bytes, ...], int] = {}  # directories by names from the root
        self._member = Member(name=b"")  # the current one, for error messages
        self._file = -1  # open while the member's data comes
        self._pieces: list[tuple[int, int]] | None = None  # of a sparse file, reversed
        self._left = 0  # data of the current file or piece still to come
        self._offset = 0
        self._members = self._size = self._skipped_xattrs = 0

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
        try:
            for event in self._decoder.feed(data):
                if isinstance(event, Member):
                    self._finish_file()
                    self._begin(event)
                elif self._file >= 0:
                    self._write(event)
        except (OSError, OverflowError) as error:
            self._raise(error)

    def finish(self) -> UnpackResult:
        """The archive ends here: check that it is whole, set directory times."""
        self._decoder.finish()
        try:
            self._finish_file()
            self._set_times()
        except OSError as error:
            self._raise(error)
        self.close()
        return UnpackResult(members=self._members, size=self._size, skipped_xattrs=self._skipped_xattrs)

    def close(self) -> None:
        """Let go of all descriptors. Idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._forget_parents()
        if self._base.fd >= 0:
            self._base.close()
            self._base.fd = -1

    # -- entries

    def _begin(self, member: Member) -> None:
        self._member = member
        self._members += 1
        names = _names(member.name, member)
        if not names:  # "./": the directory we unpack into
            if member.kind != DIRECTORY:
                raise ArchiveError(member.name, "the top of the archive is not a directory")
            self._make_top(member)
            return
        last = names.pop()
        if self._whiteouts is not None and last.startswith(b".wh."):
            self._white_out(names, last)
            return
        parent = self._parent(names)
        if self._whiteouts is not None:
            self._whiteouts.add((*parent.names, last))
        kind = member.kind
        if kind == FILE:
            self._make_file(parent.fd, last, member)
        elif kind == DIRECTORY:
            self._make_directory(parent, last, member)
        elif kind == SYMBOLIC_LINK:
            self._make_symbolic_link(parent.fd, last, member)
        elif kind == HARD_LINK:
            self._make_hard_link(parent.fd, last, member)
        else:
            self._make_node(parent.fd, last, member)

    def _make_file(self, parent_fd: int, name: bytes, member: Member) -> None:
        try:
            self._file = os.open(name, _CREATE, 0o600, dir_fd=parent_fd)
        except FileExistsError:
            self._clear(parent_fd, name)
            self._file = os.open(name, _CREATE, 0o600, dir_fd=parent_fd)
        self._size += member.real_size
        self._offset = 0
        self._left = member.size
        self._pieces = None
        if member.sparse is not None:
            os.ftruncate(self._file, member.real_size)
            self._pieces = [piece for piece in reversed(member.sparse) if piece[1]]
            self._left = 0

    def _write(self, data: memoryview) -> None:
        while data:
            if not self._left:
                assert self._pieces  # the decoder checked the map against the size
                self._offset, self._left = self._pieces.pop()
            piece = data[: self._left] if len(data) > self._left else data
            if self._pieces is None:
                done = os.write(self._file, piece)
            else:
                done = os.pwrite(self._file, piece, self._offset)
                self._offset += done
            self._left -= done
            data = data[done:]

    def _finish_file(self) -> None:
        file = self._file
        if file < 0:
            return
        self._dress(file, self._member)
        self._file = -1
        os.close(file)

    def _make_directory(self, parent: Directory, name: bytes, member: Member) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=parent.fd)
        except FileExistsError:
            if not self._is_directory(parent.fd, name):
                self._clear(parent.fd, name)
                os.mkdir(name, 0o700, dir_fd=parent.fd)
        fd = os.open(name, _OPEN_DIRECTORY, dir_fd=parent.fd)
        try:
            self._dress(fd, member)
        finally:
            os.close(fd)
        self._times[*parent.names, name] = member.mtime_ns

    def _make_top(self, member: Member) -> None:
        fd = os.open(".", _OPEN_DIRECTORY, dir_fd=self._base.fd)
        try:
            if self._options.layer:  # docker cp leaves the directory it copies into as it is
                self._dress(fd, member)
                self._times[tuple(self._base.names)] = member.mtime_ns
        finally:
            os.close(fd)

    def _make_symbolic_link(self, parent_fd: int, name: bytes, member: Member) -> None:
        if not member.link:
            raise ArchiveError(member.name, "a symbolic link to nothing")
        try:
            os.symlink(member.link, name, dir_fd=parent_fd)
        except FileExistsError:
            self._clear(parent_fd, name)
            os.symlink(member.link, name, dir_fd=parent_fd)
        self._dress_by_name(parent_fd, name, member)

    def _make_hard_link(self, parent_fd: int, name: bytes, member: Member) -> None:
        target_names = _names(member.link, member)
        if not target_names:
            raise ArchiveError(member.name, "a hard link to a directory")
        target_name = target_names.pop()
        target = open_directory(self._root_fd, target_names, start=self._base)
        try:
            try:
                status = os.stat(target_name, dir_fd=target.fd, follow_symlinks=False)
            except FileNotFoundError:
                raise ArchiveError(member.name, f"a hard link to a missing file, {member.link!r}") from None
            if stat.S_ISDIR(status.st_mode):
                raise ArchiveError(member.name, "a hard link to a directory")
            try:
                os.link(target_name, name, src_dir_fd=target.fd, dst_dir_fd=parent_fd, follow_symlinks=False)
            except FileExistsError:
                present = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
                if (present.st_dev, present.st_ino) == (status.st_dev, status.st_ino):
                    return  # the same file already: clearing could remove its last name
                self._clear(parent_fd, name)
                os.link(target_name, name, src_dir_fd=target.fd, dst_dir_fd=parent_fd, follow_symlinks=False)
        finally:
            target.close()

    def _make_node(self, parent_fd: int, name: bytes, member: Member) -> None:
        kind = {CHAR_DEVICE: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK, FIFO: stat.S_IFIFO}[member.kind]
        device = 0 if member.kind == FIFO else device_number(member)
        try:
            os.mknod(name, kind | 0o600, device, dir_fd=parent_fd)
        except FileExistsError:
            self._clear(parent_fd, name)
            os.mknod(name, kind | 0o600, device, dir_fd=parent_fd)
        self._dress_by_name(parent_fd, name, member)

    # -- metadata

    def _dress(self, fd: int, member: Member) -> None:
        self._skipped_xattrs += dress(fd, member, self._options.owner)

    def _dress_by_name(self, parent_fd: int, name: bytes, member: Member) -> None:
        self._skipped_xattrs += dress_by_name(parent_fd, name, member, self._options.owner)

    def _set_times(self) -> None:
        for (*names, last), mtime_ns in self._named_times():
            mtime = clamp(mtime_ns)
            try:
                directory = open_directory(self._root_fd, names)
            except (FileNotFoundError, NotADirectoryError):
                continue  # replaced by a later entry
            try:
                os.utime(last, ns=(mtime, mtime), dir_fd=directory.fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            finally:
                directory.close()

    def _named_times(self) -> list[tuple[tuple[bytes, ...], int]]:
        return [(names or (b".",), mtime_ns) for names, mtime_ns in self._times.items()]

    # -- directories and what is in the way

    def _parent(self, names: list[bytes], *, create: bool = True) -> Directory:
        if not names:
            return self._base
        key = b"/".join(names)
        parent = self._parents.get(key)
        if parent is None:
            parent = open_directory(self._root_fd, names, start=self._base, create=create)
            if len(self._parents) >= _KEPT_DIRECTORIES:
                self._parents.pop(next(iter(self._parents))).close()
            self._parents[key] = parent
            if self._whiteouts is not None and create:
                self._whiteouts.add(tuple(parent.names))
        return parent

    def _forget_parents(self) -> None:
        for parent in self._parents.values():
            parent.close()
        self._parents.clear()

    def _is_directory(self, parent_fd: int, name: bytes) -> bool:
        return stat.S_ISDIR(os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode)

    def _clear(self, parent_fd: int, name: bytes) -> None:
        """Remove what stands where the current member goes."""
        is_directory = self._is_directory(parent_fd, name)
        if self._options.no_overwrite_dir_non_dir:
            if is_directory:
                raise DirectoryConflict(self._member.name, "cannot overwrite directory with non-directory")
            if self._member.kind == DIRECTORY:
                raise DirectoryConflict(self._member.name, "cannot overwrite non-directory with directory")
        if is_directory:
            remove_tree(parent_fd, name)
            self._drop_kept(parent_fd)
        else:
            was_link = stat.S_ISLNK(os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode)
            os.unlink(name, dir_fd=parent_fd)
            if was_link:
                self._drop_kept(parent_fd)

    def _drop_kept(self, needed_fd: int) -> None:
        """Kept directories may have been below what was removed; the one in use was not."""
        keep = {key: parent for key, parent in self._parents.items() if parent.fd == needed_fd}
        for key, parent in self._parents.items():
            if key not in keep:
                parent.close()
        self._parents = keep

    def _white_out(self, names: list[bytes], last: bytes) -> None:
        assert self._whiteouts is not None
        try:
            parent = self._parent(names, create=False)
        except FileNotFoundError:
            return  # nothing below is hidden by it
        if self._whiteouts.apply(parent, last, self._member.name):
            self._drop_kept(parent.fd)

    def _raise(self, error: OSError | OverflowError) -> None:
        if isinstance(error, OverflowError):
            raise ArchiveError(self._member.name, str(error)) from error
        if error.errno in _ARCHIVE_FAULTS:
            raise ArchiveError(self._member.name, error.strerror or str(error)) from error
        raise error


def unpack(
    root_fd: int, path: bytes, stream: Readable, *, options: UnpackOptions | None = None
) -> UnpackResult:
    """Read ``stream`` to its end (also behind the archive's end) and unpack it below ``path``."""
    with Unpacker(root_fd, path, options=options) as unpacker:
        while chunk := stream.read(_READ):
            unpacker.feed(chunk)
        return unpacker.finish()


def _names(name: bytes, member: Member) -> list[bytes]:
    """Components of a member's name, ``..`` taken lexically but never above the top."""
    names: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not names:
                raise ArchiveError(member.name, "the name leads out of the archive")
            names.pop()
        elif part not in (b"", b"."):
            names.append(part)
    return names
