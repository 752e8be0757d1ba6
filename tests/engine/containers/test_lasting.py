"""Streams that outlive their port layer: what is asked of the next one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from engine.containers.lasting import follow_logs, lasting_attach
from engine.rpc import PortLayer, PortLayerError, PortLayerUnavailable
from portlayer import portlayer_pb2 as pb

GONE = PortLayerUnavailable("it died")
Step = pb.OutputChunk | PortLayerError
READY = pb.OutputChunk(stream=pb.OutputChunk.READY, mark=b"start")
EXITED = pb.OutputChunk(stream=pb.OutputChunk.EXITED)


def out(data: bytes, mark: bytes = b"") -> pb.OutputChunk:
    return pb.OutputChunk(stream=pb.OutputChunk.STDOUT, data=data, mark=mark)


def ack(offset: int) -> pb.OutputChunk:
    return pb.OutputChunk(stream=pb.OutputChunk.STDIN_ACK, offset=offset)


class Session:
    def __init__(self, steps: list[Step]) -> None:
        self.steps = list(steps)
        self.sent: list[pb.InputChunk] = []

    async def send(self, chunk: pb.InputChunk) -> None:
        copy = pb.InputChunk()
        copy.CopyFrom(chunk)
        self.sent.append(copy)
        if not self.steps:
            raise GONE

    async def receive(self) -> pb.OutputChunk | None:
        step = self.steps.pop(0) if self.steps else GONE
        if isinstance(step, PortLayerError):
            raise step
        return step


class Port:
    """Port layers one after the other, each with its script."""

    def __init__(self, *lives: list[Any]) -> None:
        self.interaction = self
        self.Attach = self.Logs = None
        self.lives = [Session(life) for life in lives]
        self.used: list[Session] = []
        self.asked: list[pb.LogsRequest] = []

    async def ready(self, patience: float = 0) -> None:
        if not self.lives:
            raise PortLayerUnavailable("it does not come back")

    @asynccontextmanager
    async def session(self, _: object) -> AsyncIterator[Session]:
        self.used.append(self.lives.pop(0))
        yield self.used[-1]

    async def stream(self, _: object, wanted: pb.LogsRequest) -> AsyncIterator[pb.LogRecord]:
        copy = pb.LogsRequest()
        copy.CopyFrom(wanted)
        self.asked.append(copy)
        for step in self.lives.pop(0).steps:
            if isinstance(step, PortLayerError):
                raise step
            yield cast(Any, step)

    @property
    def as_port(self) -> PortLayer:
        return cast(PortLayer, self)


def record(data: bytes, mark: bytes) -> pb.LogRecord:
    return pb.LogRecord(stream=1, data=data, mark=mark)


async def test_logs_go_on_behind_the_last_record() -> None:
    first = [pb.LogRecord(mark=b"0"), record(b"a", b"1"), record(b"b", b"2"), GONE]
    port = Port(first, [GONE], [record(b"c", b"3")])
    request = pb.LogsRequest(follow=True, tail=5)
    assert [item.data async for item in follow_logs(port.as_port, request)] == [b"a", b"b", b"c"]
    assert [(item.mark, item.tail) for item in port.asked] == [(b"", 5), (b"2", 5), (b"2", 5)]


async def test_logs_without_a_mark_or_a_successor_end_as_before() -> None:
    with pytest.raises(PortLayerUnavailable, match="it died"):
        [item async for item in follow_logs(Port([GONE], []).as_port, pb.LogsRequest())]
    with pytest.raises(PortLayerUnavailable, match="come back"):
        [item async for item in follow_logs(Port([record(b"a", b"1"), GONE]).as_port, pb.LogsRequest())]


async def test_an_attach_goes_on_behind_the_last_chunk_and_repeats_what_was_not_acknowledged() -> None:
    port = Port([READY, ack(10), out(b"a", b"1"), ack(13)], [READY, ack(13), out(b"b", b"2"), EXITED])
    async with lasting_attach(port.as_port, pb.AttachOpen(id="x", stdin=True)) as session:
        await session.send(pb.InputChunk(data=b"abcdef"))
        chunk = await session.receive()
        assert chunk is not None and chunk.data == b"a"
        chunk = await session.receive()
        assert chunk is not None and chunk.data == b"b"
        chunk = await session.receive()
        assert chunk is not None and chunk.stream == pb.OutputChunk.EXITED
    opening, repeated = port.used[1].sent
    assert (opening.open.id, opening.open.mark, opening.open.stdin_offset) == ("x", b"1", 13)
    assert (repeated.data, repeated.close) == (b"def", False)


async def test_input_to_a_dead_port_layer_is_kept_with_its_end() -> None:
    port = Port([READY], [], [READY, EXITED])
    async with lasting_attach(port.as_port, pb.AttachOpen(stdin=True)) as session:
        await session.send(pb.InputChunk(data=b"one "))  # goes nowhere
        await session.send(pb.InputChunk(data=b"two", close=True))
        assert await session.receive() == EXITED
    opening, repeated = port.used[-1].sent
    assert not opening.open.HasField("stdin_offset")
    assert (repeated.data, repeated.close) == (b"one two", True)


async def test_a_refusal_is_no_death() -> None:
    port = Port([PortLayerError("no such container", status=404)], [])
    with pytest.raises(PortLayerError, match="no such"):
        async with lasting_attach(port.as_port, pb.AttachOpen()):
            pytest.fail("opened")
