"""Reading one VM's journal forwards, from any position, across rotations.

The invariant: every byte the guest wrote after the starting position is seen
once and in order, whatever is renamed meanwhile. Files are held open, so a
rotation or removal takes nothing away from a reader that is on its way; whoever
rotates calls :meth:`JournalReader.hold` before, so that this is true for a slow
reader as well (up to a limit: a reader that never reads must not fill the disk).
A file is finished only when its successor has bytes: until then the hypervisor
may still be appending to the renamed one.

Everything here blocks; callers run it in a thread.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from portlayer.journal.records import LONGEST_RECORD, Entry, Scanner

__all__ = ["JournalReader", "OpenFile", "Position", "Snapshot"]

BLOCK = 1 << 20
_MOST_FILES = 1000
_HEAD = 28  # a record's header and time
HELD_LIMIT = 256 << 20  # bytes that rotation has taken away and a slow reader may still get


@dataclass(frozen=True, order=True)
class Position:
    """A place in a snapshot: which file (0 is the oldest), which byte."""

    file: int
    offset: int


@dataclass(frozen=True, kw_only=True)
class OpenFile:
    fd: int
    inode: int
    size: int  # when it was opened
    beginning: int  # what tells it from a later file with this inode's number; 0: it had not begun

    @classmethod
    def open(cls, path: Path) -> OpenFile:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        status = os.fstat(fd)
        head = os.pread(fd, _HEAD, 0)
        beginning = crc32(head) if len(head) == _HEAD else 0
        return cls(fd=fd, inode=status.st_ino, size=status.st_size, beginning=beginning)

    def entries(self, start: int, end: int) -> list[Entry]:
        """The records that begin in ``[start, end)`` and end by ``end``.

        One longest record is read ahead of ``start``, so that the scan is in
        step there even when what lies before looks like a record.
        """
        lead = max(0, start - LONGEST_RECORD)
        found = Scanner(lead).feed(os.pread(self.fd, end - lead, lead))
        return [entry for entry in found if entry.offset >= start]


class Snapshot:
    """All files of one journal, oldest first, held open; a context manager's worth of descriptors."""

    def __init__(self, live: Path, files: list[OpenFile]) -> None:
        self.live = live
        self.files = files

    @classmethod
    def open(cls, live: Path) -> Snapshot:
        """Newest first, so that a rotation between two opens shows one file twice and loses none."""
        files: list[OpenFile] = []
        seen: set[int] = set()
        try:
            for path in _paths(live):
                try:
                    file = OpenFile.open(path)
                except FileNotFoundError:
                    if path != live:
                        break
                    continue
                if file.inode in seen:
                    os.close(file.fd)
                    continue
                seen.add(file.inode)
                files.append(file)
        except BaseException:
            for file in files:
                os.close(file.fd)
            raise
        files.reverse()
        return cls(live, files)

    @property
    def start(self) -> Position:
        return Position(0, 0)

    @property
    def end(self) -> Position:
        if not self.files:
            return Position(0, 0)
        return Position(len(self.files) - 1, self.files[-1].size)

    def close(self) -> None:
        for file in self.files:
            os.close(file.fd)
        self.files.clear()


class JournalReader:
    """Goes through a snapshot and on into what is written later. Owns the snapshot."""

    def __init__(self, snapshot: Snapshot, position: Position) -> None:
        self._snapshot = snapshot
        self._live = snapshot.live
        self._index = position.file
        self._offset = position.offset
        self._scanner = Scanner(position.offset)
        self._end = snapshot.end
        self._closed = False
        self._files_change = threading.Lock()  # read() runs in a thread, hold() in the event loop

    @property
    def snapshot(self) -> Snapshot:
        return self._snapshot

    @property
    def file(self) -> int:
        """The snapshot's number of the file that the last entries came from."""
        return self._index

    @property
    def place(self) -> tuple[int, int]:
        """Inode and offset behind the last entry that was read. Only after a read that found some."""
        return self._snapshot.files[self._index].inode, self._scanner.offset

    def read(self) -> list[Entry]:
        """The next entries, at most a block's worth; empty at the present end."""
        while not self._closed:
            if self._index >= len(self._snapshot.files) and not self._open_first():
                return []
            current = self._snapshot.files[self._index]
            block = os.pread(current.fd, BLOCK, self._offset)
            if block:
                self._offset += len(block)
                entries = self._scanner.feed(block)
                if entries:
                    return entries
            elif not self._advance(current):
                return []
        return []

    def hold(self) -> None:
        """The live file is about to be renamed or removed: keep it until it has been read."""
        with self._files_change, suppress(FileNotFoundError):
            files = self._snapshot.files
            if self._closed or sum(os.fstat(file.fd).st_size for file in files[self._index :]) > HELD_LIMIT:
                return
            live = OpenFile.open(self._live)
            if files and files[-1].inode == live.inode:
                os.close(live.fd)
            else:
                files.append(live)

    def within_snapshot(self) -> bool:
        """False once everything that was there when the snapshot was taken has been read."""
        return Position(self._index, self._offset) < self._end

    def close(self) -> None:
        with self._files_change:
            self._closed = True
            self._snapshot.close()

    def _open_first(self) -> bool:
        """The journal did not exist when the snapshot was taken."""
        with self._files_change, suppress(FileNotFoundError):
            if not self._snapshot.files and not self._closed:
                self._snapshot.files.append(OpenFile.open(self._live))
            return not self._closed
        return False

    def _advance(self, current: OpenFile) -> bool:
        """Go to the next file if this one is finished."""
        with self._files_change:
            if self._closed:
                return False
            if self._index + 1 == len(self._snapshot.files):
                successor = self._find_successor(current)
                if successor is None:
                    return False
                self._snapshot.files.append(successor)
        if self._rest_of(current):
            return True  # it grew until the writer changed over: read on here
        self._index += 1
        self._offset = 0
        self._scanner = Scanner()
        return True

    def _rest_of(self, current: OpenFile) -> bool:
        return os.fstat(current.fd).st_size > self._offset

    def _find_successor(self, current: OpenFile) -> OpenFile | None:
        """The file written right after ``current``, once it or a newer one has bytes."""
        newer: list[OpenFile] = []
        reached = False
        for path in _paths(self._live):
            try:
                file = OpenFile.open(path)
            except FileNotFoundError:
                if path == self._live:
                    continue  # between two renames
                reached = True  # ours is gone: go on with the oldest there is
                break
            if file.inode == current.inode:
                os.close(file.fd)
                reached = True
                break
            newer.append(file)
        successor = newer[-1] if reached and any(file.size for file in newer) else None
        for file in newer:
            if file is not successor:
                os.close(file.fd)
        return successor


def _paths(live: Path) -> Iterator[Path]:
    yield live
    for number in range(1, _MOST_FILES):
        yield live.with_name(f"{live.name}.{number}")
