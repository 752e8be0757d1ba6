"""COPY and ADD: which files, and the archive that puts them where they go.

`choose` finds the sources in a tree, `write` makes the archive. Both block: use them in a thread.
"""

from __future__ import annotations

import copy
import hashlib
import posixpath
import tarfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engine.build.context import Tree, clean, glob, has_wildcards
from engine.http import ApiError, BadRequest
from engine.images.spool import SpoolFile
from engine.registry.decompress import decompress
from engine.registry.errors import BadContent

__all__ = ["CopyPlan", "Found", "choose", "destination", "digest", "expand_archive", "write"]

_ARCHIVE_LIMIT = 1 << 40


@dataclass(frozen=True, kw_only=True)
class Found:
    """One source: a path of a tree. ``contents``: what is in it is meant (a directory, an archive)."""

    tree: Tree
    path: str
    name: str  # what it is called at the destination
    contents: bool
    foreign: bool = False  # an unpacked archive: owners are its own


@dataclass(frozen=True, kw_only=True)
class CopyPlan:
    found: Sequence[Found]
    target: str  # absolute
    into: bool  # the target is a directory that files go into
    missing: Sequence[str]  # directories to be made first, parents before children
    owner: tuple[int, int] | None  # None: the source's
    chown: bool  # --chown was given: it holds for unpacked archives, too
    mode: int | None


def choose(tree: Tree, sources: Sequence[str], *, word: str) -> list[Found]:
    """In the order given. ApiError in docker's words."""
    found: list[Found] = []
    for source in sources:
        paths = glob(tree, source) if has_wildcards(source) else [clean(source)]
        for path in paths:
            try:
                real = tree.resolve(path)
                info = tree.entry(real)
            except KeyError:
                raise ApiError(
                    f"{word} failed: file not found in build context or excluded by .dockerignore: "
                    f"stat {clean(source)}: file does not exist",
                    status=400,
                ) from None
            found.append(Found(tree=tree, path=real, name=posixpath.basename(path), contents=info.isdir()))
    if not found:
        raise ApiError(f"{word} failed: no source files were specified", status=400)
    return found


def digest(found: Sequence[Found]) -> str:
    """What the cache and the history know a copy by."""
    each = [item.tree.digest(item.path) for item in found]
    if len(each) == 1:
        return each[0]
    return f"multi:{hashlib.sha256(','.join(each).encode()).hexdigest()}"


def destination(directory: str, wanted: str, *, several: bool, word: str) -> tuple[str, bool]:
    """(absolute path, whether it is written as a directory)"""
    as_directory = wanted.endswith(("/", "/.")) or wanted in (".", "..")
    if several and not as_directory:
        raise BadRequest(
            f"When using {word} with more than one source file, the destination must be a directory "
            "and end with a /"
        )
    target = posixpath.normpath(posixpath.join("/", directory or "/", wanted))
    return "/" + target.lstrip("/"), as_directory


def expand_archive(item: Found, spool: SpoolFile) -> Found:
    """ADD of a local archive means what is in it; ``spool`` gets it unpacked. Others stay as they are."""
    info = item.tree.entry(item.path)
    if not info.isreg() or not info.size:
        return item

    def chunks() -> Iterator[bytes]:
        content = item.tree.open(info)
        while piece := content.read(1 << 20):
            yield piece

    try:
        pieces = decompress(chunks(), limit=_ARCHIVE_LIMIT)
        first = b""
        for piece in pieces:
            if not first:
                first = piece
                if not _is_tar(first):
                    return item
            spool.append(piece)
    except BadContent as error:
        if not spool.size:
            return item  # its first bytes only look like those of an archive
        raise BadRequest(f"ADD failed: {item.path}: {error}") from error
    return (
        Found(tree=Tree(spool), path="", name=item.name, contents=True, foreign=True) if spool.size else item
    )


def _is_tar(block: bytes) -> bool:
    if len(block) < tarfile.BLOCKSIZE:
        return False
    try:
        tarfile.TarInfo.frombuf(block[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return not block[: tarfile.BLOCKSIZE].strip(b"\0")  # an empty archive
    return True


class _SpoolWriter:
    def __init__(self, file: SpoolFile) -> None:
        self._file = file

    def write(self, data: bytes) -> int:
        self._file.append(data)
        return len(data)


def write(plan: CopyPlan, spool: SpoolFile) -> None:
    """The archive, to be unpacked at the root."""
    with tarfile.open(
        fileobj=_SpoolWriter(spool),  # type: ignore[call-overload]
        mode="w|",
        format=tarfile.PAX_FORMAT,
        errors="surrogateescape",
    ) as out:
        for path in plan.missing:
            made = tarfile.TarInfo(path.lstrip("/"))
            made.type, made.mode, made.mtime = tarfile.DIRTYPE, 0o755, int(time.time())
            made.uid, made.gid = plan.owner if plan.owner is not None else (0, 0)
            out.addfile(made)
        for item in plan.found:
            if item.contents:
                for name, info in item.tree.walk(item.path):
                    _add(out, plan, item, info, posixpath.join(plan.target, name))
            else:
                target = posixpath.join(plan.target, item.name) if plan.into else plan.target
                _add(out, plan, item, item.tree.entry(item.path), target)


def _add(out: tarfile.TarFile, plan: CopyPlan, item: Found, info: tarfile.TarInfo, target: str) -> None:
    entry = copy.copy(info)
    entry.name = target.lstrip("/")
    entry.uname = entry.gname = ""
    entry.pax_headers = {
        key: value for key, value in info.pax_headers.items() if key.startswith("SCHILY.xattr.")
    }
    entry.mode = info.mode & 0o7777
    if plan.owner is not None and (plan.chown or not item.foreign):
        entry.uid, entry.gid = plan.owner
    if plan.mode is not None and not info.issym():
        entry.mode = plan.mode
    if info.isreg():
        entry.type = tarfile.REGTYPE
        out.addfile(entry, item.tree.open(info))
    elif info.isdir() or info.issym() or info.isdev():
        out.addfile(entry)
