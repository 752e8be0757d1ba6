"""How far a reader has got, in words that outlive the port layer.

A mark names for each stream the first byte that has not been handed on: the
journal file by its inode (a rotation renames it) and its beginning (inodes are
used again), the record's offset, the byte of its data. Whoever shows it to a new
port layer goes on exactly there. Marks are opaque to the engine; what comes back
is checked like anything from outside.

In the place of a stream there may also be the attach's END: where the journal ended
when it was made; the end of a run counts for it from there on.
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct

from portlayer.journal.reader import OpenFile, Position, Snapshot
from portlayer.journal.tail import TailStart

__all__ = ["END", "Places", "decode_mark", "encode_mark"]

Places = Mapping[int, tuple[Position, int]]  # by stream: record, byte of its data

_PLACE = Struct("<BQIQI")  # stream, inode (0: before the first file), beginning, offset, byte
END = 0
_STREAMS = (END, 1, 2)


def encode_mark(places: Places, snapshot: Snapshot) -> bytes:
    parts = []
    for stream, (position, byte) in places.items():
        inode = beginning = 0
        if snapshot.files:
            file = snapshot.files[position.file]
            inode, beginning = file.inode, file.beginning
        parts.append(_PLACE.pack(stream, inode, beginning, position.offset, byte))
    return b"".join(parts)


def decode_mark(mark: bytes, snapshot: Snapshot) -> TailStart:
    """Where to read on. What rotation has taken away meanwhile is left out.

    Raises:
        ValueError: that is no mark.
    """
    if not mark or len(mark) % _PLACE.size or len(mark) > len(_STREAMS) * _PLACE.size:
        raise ValueError("a mark of an impossible length")
    numbers = {file.inode: number for number, file in enumerate(snapshot.files)}
    first: dict[int, tuple[Position, int]] = {}
    for stream, inode, beginning, offset, byte in _PLACE.iter_unpack(mark):
        if stream not in _STREAMS or stream in first:
            raise ValueError(f"a mark with stream {stream}")
        number = numbers.get(inode)
        if number is not None and _is_it(snapshot.files[number], beginning, offset):
            first[stream] = (Position(number, offset), byte)
        else:
            first[stream] = (snapshot.start, 0)
    if not first.keys() - {END}:
        raise ValueError("a mark without a stream")
    return TailStart(min(position for stream, (position, _) in first.items() if stream != END), first)


def _is_it(file: OpenFile, beginning: int, offset: int) -> bool:
    return beginning in (0, file.beginning) and offset <= file.size
