"""Input to a process in a guest, by offset, so that a lost connection repeats nothing.

What the guest has not acknowledged is kept, bounded: a process that does not
read makes its writers wait. One buffer serves all writers of one process.
"""

from __future__ import annotations

import asyncio

from portlayer.execution.rooms import GuestStream
from tether.tether_pb2 import AttachInput
from tether.wire import MAX_BODY

__all__ = ["InputBuffer"]

LIMIT = 256 * 1024
_PIECE = MAX_BODY - 64  # an AttachInput must fit a frame


class InputBuffer:
    def __init__(self, *, limit: int = LIMIT) -> None:
        self._limit = limit
        self._data = bytearray()
        self._start: int | None = None  # offset of _data[0]; the guest's first ACK tells
        self._origin: int | None = None  # the first ACK: where the first byte put in here belongs
        self._put = 0  # bytes put in here in all
        self._resumed: int | None = None  # where the first byte to come belongs, if that is known
        self._skip = 0  # bytes to come that the guest has already
        self._moved = asyncio.Event()  # replaced whenever the guest has taken more
        self._closing = False
        self._over = False
        self._news = asyncio.Event()  # for the sender
        self._room = asyncio.Event()  # for writers
        self._room.set()

    async def write(self, data: bytes) -> None:
        """Take ``data`` over; waits while the guest is too far behind. Nothing happens once over."""
        view = memoryview(data)[self._skip :]
        self._skip -= len(data) - len(view)
        while view and not self._over and not self._closing:
            free = self._limit - len(self._data)
            if free <= 0:
                self._room.clear()
                await self._room.wait()
                continue
            self._data += view[:free]
            self._put += min(free, len(view))
            view = view[free:]
            self._news.set()

    def resume(self, offset: int) -> None:
        """What is written next begins at ``offset`` of the process's input; it may have a part of it.

        One writer's word is as good as his being the only one.
        """
        if self._start is None:
            self._resumed = offset
        else:
            self._skip = max(0, self._start + len(self._data) - offset)

    @property
    def position(self) -> int:
        """Where the next byte written goes, counted from the first; see `offset`."""
        return self._put

    def offset(self, position: int) -> int | None:
        """The same in the process's input; None while the guest has not said."""
        return None if self._origin is None else self._origin + position

    @property
    def accepted(self) -> int | None:
        """How much input the process has been sent in all; None while the guest has not said."""
        return self._start

    async def moved(self, known: int | None) -> None:
        """Return as soon as `accepted` is another than this."""
        while self._start == known:
            await self._moved.wait()

    def close(self) -> None:
        """Nothing more comes: stdin closes behind what was written."""
        self._closing = True
        self._news.set()
        self._room.set()

    def end(self) -> None:
        """The process is gone; whatever is left is dropped."""
        self._over = True
        self._data.clear()
        self._room.set()
        self._news.set()

    def acknowledge(self, offset: int) -> None:
        """The guest has taken over everything before ``offset`` (it may say what it likes)."""
        if self._start is None:
            self._start = self._origin = offset
            if self._resumed is not None:
                self._skip = max(0, offset - self._resumed)
                have = min(self._skip, len(self._data))
                del self._data[:have]
                self._put -= have
                self._skip -= have
        taken = min(max(offset - self._start, 0), len(self._data))
        del self._data[:taken]
        self._start += taken
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()
        self._room.set()
        self._news.set()

    async def feed(self, stream: GuestStream) -> None:
        """Send over one connection what is there and what comes; runs until cancelled or closed."""
        sent: int | None = None
        while not self._over:
            self._news.clear()
            if self._start is not None:
                position = self._start if sent is None else max(sent, self._start)
                sent = await self._send(stream, position)
                if self._closing and sent == self._start + len(self._data):
                    await stream.send(AttachInput(offset=sent, close=True).SerializeToString())
                    return
            await self._news.wait()

    async def _send(self, stream: GuestStream, position: int) -> int:
        while self._start is not None:
            at = position - self._start
            piece = bytes(self._data[at : at + _PIECE])
            if not piece:
                break
            await stream.send(AttachInput(offset=position, data=piece).SerializeToString())
            position = max(position + len(piece), self._start)
        return position
