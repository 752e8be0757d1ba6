"""The input buffer: bounded, by offset, over any number of connections."""

from __future__ import annotations

import asyncio

import pytest

from portlayer.interaction.input import InputBuffer
from tether.tether_pb2 import AttachInput
from tether.wire import MAX_BODY


class Wire:
    """One connection; remembers what was sent."""

    def __init__(self) -> None:
        self.frames: list[AttachInput] = []
        self.sizes: list[int] = []
        self.sent = asyncio.Event()

    async def send(self, data: bytes, *, end: bool = False) -> None:
        self.sizes.append(len(data))
        self.frames.append(AttachInput.FromString(data))
        self.sent.set()

    def content(self) -> bytes:
        said = bytearray()
        for frame in self.frames:
            said[frame.offset : frame.offset + len(frame.data)] = frame.data
        return bytes(said)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_nothing_is_sent_before_the_guest_has_said_where_it_is() -> None:
    buffer, wire = InputBuffer(), Wire()
    await buffer.write(b"x")
    task = asyncio.create_task(buffer.feed(wire))
    await settle()
    assert wire.frames == []
    buffer.acknowledge(100)
    await settle()
    assert [(frame.offset, frame.data) for frame in wire.frames] == [(100, b"x")]
    task.cancel()


async def test_a_frame_fits_a_frame() -> None:
    buffer, wire = InputBuffer(limit=1 << 20), Wire()
    buffer.acknowledge(2**60)
    await buffer.write(bytes(200_000))
    buffer.close()
    await buffer.feed(wire)
    assert max(wire.sizes) <= MAX_BODY
    assert wire.frames[-1].close
    assert wire.frames[-1].offset == 2**60 + 200_000


async def test_writers_wait_for_a_guest_that_does_not_read() -> None:
    buffer, wire = InputBuffer(limit=10), Wire()
    buffer.acknowledge(0)
    task = asyncio.create_task(buffer.feed(wire))
    writing = asyncio.create_task(buffer.write(b"0123456789abc"))
    await settle()
    assert not writing.done()
    assert wire.content() == b"0123456789"
    buffer.acknowledge(4)
    await writing
    await settle()
    assert wire.content() == b"0123456789abc"
    task.cancel()


async def test_the_next_connection_gets_what_was_not_acknowledged() -> None:
    buffer, first, second = InputBuffer(), Wire(), Wire()
    buffer.acknowledge(0)
    await buffer.write(b"abcdef")
    task = asyncio.create_task(buffer.feed(first))
    await first.sent.wait()
    task.cancel()
    buffer.acknowledge(3)
    buffer.close()
    await buffer.feed(second)
    assert [(f.offset, f.data, f.close) for f in second.frames] == [(3, b"def", False), (6, b"", True)]


@pytest.mark.parametrize("offset", [0, 99, 2**63])
async def test_a_guest_may_say_any_offset(offset: int) -> None:
    buffer = InputBuffer()
    buffer.acknowledge(50)
    await buffer.write(b"abc")
    buffer.acknowledge(offset)
    buffer.acknowledge(offset)
    await buffer.write(b"def")
    wire = Wire()
    buffer.close()
    await asyncio.wait_for(buffer.feed(wire), 5)


async def test_the_end_lets_every_writer_go() -> None:
    buffer = InputBuffer(limit=1)
    writing = asyncio.create_task(buffer.write(b"abc"))
    await settle()
    buffer.end()
    await writing
    await buffer.write(b"more")


async def test_a_resumed_writer_repeats_what_the_guest_may_not_have_and_it_arrives_once() -> None:
    buffer, wire = InputBuffer(), Wire()
    feeding = asyncio.ensure_future(buffer.feed(wire))
    buffer.resume(100)
    await buffer.write(b"0123")
    buffer.acknowledge(106)  # two bytes more than have been repeated
    await buffer.write(b"456789")
    await settle()
    assert [(frame.offset, frame.data) for frame in wire.frames] == [(106, b"6789")]
    assert buffer.offset(buffer.position) == 110
    feeding.cancel()


async def test_a_writer_who_resumes_into_a_buffer_in_use_repeats_nothing_either() -> None:
    buffer, wire = InputBuffer(), Wire()
    feeding = asyncio.ensure_future(buffer.feed(wire))
    buffer.acknowledge(50)
    await buffer.write(b"abc")
    buffer.resume(51)
    await buffer.write(b"bcd")
    await settle()
    assert b"".join(frame.data for frame in wire.frames) == b"abcd"
    feeding.cancel()


async def test_whoever_waits_hears_of_what_the_guest_has_taken() -> None:
    buffer = InputBuffer()
    waiting = asyncio.ensure_future(buffer.moved(None))
    await settle()
    assert not waiting.done()
    buffer.acknowledge(7)
    await waiting
    assert buffer.accepted == 7
