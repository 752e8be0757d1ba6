"""A hijacked terminal or pipe session: bytes between a client and the port layer, each way at its own pace.

Used by attach and by exec. Ends when the output ends, when the user types the
detach keys, or when the client is gone. Whoever is slow is waited for: the
client by the transport's back-pressure, the guest by gRPC's.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
from dataclasses import dataclass

from engine.containers.detachkeys import DetachScanner
from engine.containers.lasting import LastingAttach
from engine.containers.multiplex import STDERR, STDOUT, SYSTEM_ERROR, frame
from engine.http import Disconnected, Duplex
from engine.rpc import PortLayerError, Session
from portlayer import portlayer_pb2 as pb

__all__ = ["End", "Options", "PortSession", "run_session"]

_STREAMS = {pb.OutputChunk.STDOUT: STDOUT, pb.OutputChunk.STDERR: STDERR}

PortSession = Session[pb.InputChunk, pb.OutputChunk] | LastingAttach


class End(enum.Enum):
    FINISHED = "finished"  # the process ended or closed its output
    DETACHED = "detached"  # by keys, or by the end of an input that stays open for others
    LOST = "lost"  # the client went away


@dataclass(frozen=True, kw_only=True)
class Options:
    tty: bool
    stdin: bool
    close_stdin: bool  # the end of the client's input closes the process's
    detach_keys: bytes


async def run_session(duplex: Duplex, session: PortSession, options: Options) -> End:
    """Pump until one side is done; never raises for a client that left or a guest that was lost."""
    output = asyncio.create_task(_pump_output(duplex, session, multiplexed=not options.tty))
    source = asyncio.create_task(_pump_input(duplex, session, options))
    try:
        done, _ = await asyncio.wait({output, source}, return_when=asyncio.FIRST_COMPLETED)
        if output in done:
            return output.result()
        end = source.result()
        if end is None:  # input is over, output goes on
            return await output
        return end
    finally:
        for task in (output, source):
            task.cancel()
        await asyncio.wait({output, source})


async def _pump_output(duplex: Duplex, session: PortSession, *, multiplexed: bool) -> End:
    try:
        while (chunk := await session.receive()) is not None:
            if chunk.stream == pb.OutputChunk.EXITED:
                break
            if chunk.stream in _STREAMS and chunk.data:
                data = chunk.data
                await duplex.write(frame(_STREAMS[chunk.stream], data) if multiplexed else data)
    except Disconnected:
        return End.LOST
    except PortLayerError as error:
        text = error.message.encode()
        with contextlib.suppress(Disconnected):
            await duplex.write(frame(SYSTEM_ERROR, text) if multiplexed else b"\r\n%s\r\n" % text)
    return End.FINISHED


async def _pump_input(duplex: Duplex, session: PortSession, options: Options) -> End | None:
    """``None``: the input ended and the session goes on."""
    scanner = DetachScanner(options.detach_keys if options.tty else b"")
    try:
        while data := await duplex.read():
            if not options.stdin:
                continue
            data, detached = scanner.feed(data)
            if data:
                await session.send(pb.InputChunk(data=data))
            if detached:
                return End.DETACHED
        if not options.stdin:
            return None
        if held := scanner.finish():
            await session.send(pb.InputChunk(data=held))
        if options.close_stdin and not options.tty:
            await session.send(pb.InputChunk(close=True))
            return None
    except Disconnected:
        if options.stdin and options.close_stdin and not options.tty:  # "once" is over
            with contextlib.suppress(PortLayerError):
                await session.send(pb.InputChunk(close=True))
        return End.LOST
    except PortLayerError:
        return None  # the output side hears of it too and tells the client
    return End.DETACHED
