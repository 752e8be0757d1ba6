"""What the journal says about how a run began and ended.

The end of a run is the last thing its guest writes, so only the last bytes of
the file are looked at, whatever its size; the start of a run comes within the
first records behind the mark made before it. Blocking; run it in a thread.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from google.protobuf.message import DecodeError

from portlayer.journal.reader import OpenFile
from portlayer.journal.records import Entry, Kind
from tether.tether_pb2 import MainState

__all__ = ["ending", "grew_since", "journal_end", "main_state", "opening"]

_LOOK_BACK = 256 * 1024
_LOOK_AHEAD = 256 * 1024
_LONGEST_WORDS = 4096
_STATES = {Kind.STARTED: MainState.RUNNING, Kind.EXITED: MainState.EXITED, Kind.FAILED: MainState.FAILED}


def journal_end(journal: Path) -> tuple[int, int]:
    """(inode, size) of the file now; (0, 0) when there is none."""
    try:
        status = journal.stat()
    except FileNotFoundError:
        return 0, 0
    return status.st_ino, status.st_size


def grew_since(journal: Path, inode: int, size: int) -> bool:
    """Whether a guest has written since :func:`journal_end` said this."""
    return journal_end(journal) not in ((inode, size), (0, 0))


def opening(journal: Path, inode: int, size: int) -> MainState | None:
    """STARTED or FAILED of the run that began at this mark; None when it is not there (yet)."""
    try:
        file = OpenFile.open(journal)
    except FileNotFoundError:
        return None
    try:
        start = size if file.inode == inode else 0
        entries = file.entries(start, min(file.size, start + _LOOK_AHEAD))
    finally:
        os.close(file.fd)
    for entry in entries:
        if entry.kind in _STATES:
            return main_state(entry)
    return None


def ending(journal: Path, inode: int, size: int) -> MainState | None:
    """EXITED or FAILED of the run that began at this mark; None when its guest did not say."""
    for path in (journal, journal.with_name(f"{journal.name}.1")):
        try:
            file = OpenFile.open(path)
        except FileNotFoundError:
            continue
        try:
            mark = size if file.inode == inode else 0
            start = max(mark, file.size - _LOOK_BACK)
            found = _last(file.entries(start, file.size))
        finally:
            os.close(file.fd)
        if found is not None or file.size > 0:
            return found
    return None


def _last(entries: Iterable[Entry]) -> MainState | None:
    found: MainState | None = None
    for entry in entries:
        if entry.kind == Kind.BOOT:
            found = None
        elif entry.kind in (Kind.EXITED, Kind.FAILED):
            found = main_state(entry)
    return found


def main_state(entry: Entry) -> MainState | None:
    """The message of a STARTED, EXITED or FAILED record; its words cut; None when it makes no sense."""
    try:
        state = MainState.FromString(entry.data)
    except DecodeError:
        return None
    state.state = _STATES[Kind(entry.kind)]
    state.error = state.error[:_LONGEST_WORDS]
    return state
