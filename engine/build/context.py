"""A tree of files out of a spooled tar: the client's context, or what a stage lends to COPY --from.

Nothing is ever written under a name from the archive: entries are looked up in memory, links are
followed inside the tree, content is read from the spool. All of it blocks: use it in a thread.
"""

from __future__ import annotations

import hashlib
import io
import posixpath
import re
import stat
import tarfile
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

from engine.http import BadRequest
from engine.images.references import pattern as reference_pattern
from engine.images.spool import SpoolFile

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["Tree", "glob", "has_wildcards"]

_ENTRIES_LIMIT = 500_000
_LINKS_LIMIT = 40
_PIECE = 1 << 20
_WILDCARDS = re.compile(r"[*?\[]")


class _SpoolReader(io.RawIOBase):
    def __init__(self, file: SpoolFile) -> None:
        self._file = file
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        data = self._file.read(self._at, min(len(view), max(self._file.size - self._at, 0)))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


class _Whole:
    """In place of an archive: one file that is the whole spool."""

    def __init__(self, file: SpoolFile) -> None:
        self._file = file

    def extractfile(self, info: tarfile.TarInfo) -> IO[bytes]:
        return io.BufferedReader(_SpoolReader(self._file))


class Tree:
    """``prefix``: where the archive's top entry stands ("" for a context)."""

    def __init__(self, file: SpoolFile, *, prefix: str = "") -> None:
        """Raises BadRequest: not a tar, or one that we do not take."""
        self._entries: dict[str, tarfile.TarInfo] = {"": _directory("")}
        self._children: dict[str, set[str]] = {"": set()}
        try:
            archive = tarfile.open(  # noqa: SIM115 # lives as long as the spool file
                fileobj=io.BufferedReader(_SpoolReader(file)), mode="r:", errors="surrogateescape"
            )
            self._tar: tarfile.TarFile | _Whole = archive
            for count, info in enumerate(archive):
                if count >= _ENTRIES_LIMIT:
                    raise BadRequest(f"the build context has more than {_ENTRIES_LIMIT} entries")
                self._add(posixpath.join(prefix, clean(info.name)) if prefix else clean(info.name), info)
        except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
            if file.size:
                raise BadRequest(f"the build context is no tar archive: {error}") from error

    def _add(self, path: str, info: tarfile.TarInfo) -> None:
        if not path:
            self._entries[""] = info if info.isdir() else self._entries[""]
            return
        parent, _, name = path.rpartition("/")
        if parent not in self._children:
            self._add(parent, _directory(parent))
        self._children[parent].add(name)
        self._entries[path] = info
        if info.isdir():
            self._children.setdefault(path, set())

    def entry(self, path: str) -> tarfile.TarInfo:
        """The entry itself, hard links resolved. KeyError when there is none."""
        info = self._entries[path]
        for _ in range(_LINKS_LIMIT):
            if not info.islnk():
                return info
            info = self._entries[clean(info.linkname)]
        raise KeyError(path)

    def resolve(self, path: str) -> str:
        """The path with all symbolic links followed inside the tree. KeyError: it leads nowhere."""
        pending = clean(path).split("/")[::-1]
        done = ""
        links = 0
        while pending:
            name = pending.pop()
            if name in ("", "."):
                continue
            if name == "..":
                done = done.rpartition("/")[0]
                continue
            at = f"{done}/{name}" if done else name
            info = self._entries.get(at)
            if info is None:
                raise KeyError(path)
            if info.issym():
                links += 1
                if links > _LINKS_LIMIT:
                    raise KeyError(path)
                if info.linkname.startswith("/"):
                    done = ""
                pending += info.linkname.split("/")[::-1]
            else:
                done = at
        return done

    def walk(self, top: str) -> Iterator[tuple[str, tarfile.TarInfo]]:
        """(path below ``top``, entry), directories before what is in them, in order; not the top itself."""
        for name in sorted(self._children.get(top, ())):
            path = f"{top}/{name}" if top else name
            info = self.entry(path)
            yield name, info
            if info.isdir():
                yield from ((f"{name}/{below}", item) for below, item in self.walk(path))

    def open(self, info: tarfile.TarInfo) -> IO[bytes]:
        found = self._tar.extractfile(info)
        assert found is not None, "a regular file has content"
        return found

    def read(self, path: str, limit: int) -> bytes | None:
        """A small file's content; None when there is none."""
        try:
            info = self.entry(self.resolve(path))
        except KeyError:
            return None
        if not info.isreg():
            return None
        if info.size > limit:
            raise BadRequest(f"{path} is larger than {limit} bytes")
        return self.open(info).read()

    def digest(self, path: str) -> str:
        """ "file:…" or "dir:…": of names, owners, modes and content, not of times."""
        info = self.entry(path)
        hashing = hashlib.sha256()
        self._hash(hashing, "", info)
        if not info.isdir():
            return f"file:{hashing.hexdigest()}"
        for name, item in self.walk(path):
            self._hash(hashing, name, item)
        return f"dir:{hashing.hexdigest()}"

    def _hash(self, hashing: hashlib._Hash, name: str, info: tarfile.TarInfo) -> None:
        fields = (name, info.type, info.mode, info.uid, info.gid, info.size, info.linkname, info.devmajor)
        extra = sorted(
            (key, value) for key, value in info.pax_headers.items() if key.startswith("SCHILY.xattr.")
        )
        hashing.update(repr((fields, info.devminor, extra)).encode("utf-8", "surrogateescape"))
        if info.isreg() and info.size:
            content = self.open(info)
            while piece := content.read(_PIECE):
                hashing.update(piece)

    @classmethod
    def of_file(cls, name: str, file: SpoolFile) -> Tree:
        """A tree of one file, whose content is all of the spool."""
        tree = cls.__new__(cls)
        tree._entries, tree._children = {"": _directory("")}, {"": set()}
        info = tarfile.TarInfo(clean(name))
        info.size = file.size
        tree._tar = _Whole(file)
        tree._add(clean(name), info)
        return tree

    def link(self, path: str, target: str) -> None:
        """Let a path be a link to another one of the tree."""
        info = tarfile.TarInfo(path)
        info.type, info.linkname = tarfile.SYMTYPE, target
        self._add(path, info)

    def without(self, path: str) -> None:
        """Forget one file."""
        path = clean(path)
        parent, _, name = path.rpartition("/")
        self._entries.pop(path, None)
        self._children.get(parent, set()).discard(name)


def clean(name: str) -> str:
    """One spelling per path, never out of the tree."""
    return posixpath.normpath("/" + name).lstrip("/")


def _directory(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    info.mode = stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH
    return info


def has_wildcards(path: str) -> bool:
    return _WILDCARDS.search(path) is not None


def glob(tree: Tree, path: str) -> list[str]:
    """The paths that a pattern matches, in order; ``*`` stops at a slash."""
    matcher = reference_pattern(clean(path))
    depth = clean(path).count("/")
    return [
        name for name, _ in tree.walk("") if name.count("/") == depth and matcher.fullmatch(name) is not None
    ]
