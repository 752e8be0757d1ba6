"""`docker exec`: a process started in a running guest, its streams over the channel.

An exec is named by its caller; starting the same name twice is one exec, so a
lost connection costs nothing: output resumes by offset, input by the guest's
acknowledgements. Output is not journaled.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence

from google.protobuf.message import DecodeError

from portlayer.channel import ChannelClosed, ChannelError, ChannelLost, TetherError
from portlayer.errors import PortLayerError
from portlayer.execution.container import Container
from portlayer.execution.guest import ask, guest_error, running_channel
from portlayer.execution.house import House
from portlayer.execution.states import Status, require
from portlayer.interaction.input import InputBuffer
from portlayer.operation import current_operation
from portlayer.portlayer_pb2 import ExecOpen, InputChunk, OutputChunk, Reason
from tether.tether_pb2 import (
    AttachOutput,
    AttachRequest,
    Empty,
    ExecListReply,
    ExecReply,
    ExecRequest,
    ExecState,
)
from tether.wire import Code

__all__ = ["exec_inspect", "exec_list", "run_exec"]

log = logging.getLogger(__name__)
_LONGEST_ID = 128
_KILLED = 137
_MOST_EXECS = 1024
_CODES = {Code.NOT_FOUND: 127, Code.PERMISSION_DENIED: 126, Code.INVALID_ARGUMENT: 128}


async def run_exec(
    house: House, container: Container, opening: ExecOpen, inputs: AsyncIterator[InputChunk]
) -> AsyncIterator[OutputChunk]:
    """READY with the pid, output, EXITED with the code; detached: READY and the end.

    Raises:
        PortLayerError: LAUNCH_FAILED with 126, 127 or 128 when the process cannot be started.
    """
    if not opening.exec_id or len(opening.exec_id) > _LONGEST_ID:
        raise PortLayerError(Reason.UNSPECIFIED, "an exec needs an ID of at most 128 characters")
    require(container.name, "exec in", container.status, (Status.RUNNING,))
    reply = await _begin(house, container, opening)
    yield OutputChunk(stream=OutputChunk.READY, pid=reply.pid)
    if opening.detach:
        return
    buffer = InputBuffer()
    writer = asyncio.create_task(_copy_input(buffer, inputs)) if opening.stdin else None
    try:
        async for chunk in _Session(container, opening, buffer).output():
            yield chunk
    finally:
        buffer.end()
        if writer is not None:
            writer.cancel()


async def _begin(house: House, container: Container, opening: ExecOpen) -> ExecReply:
    request = ExecRequest(exec_id=opening.exec_id, process=opening.process, operation=current_operation())
    channel = running_channel(container, "exec in")
    timeout = house.timeouts.call
    for attempt in (1, 2):
        try:
            return await channel.call("Exec", request, ExecReply, timeout=timeout)
        except ChannelLost as error:
            if attempt == 2:
                raise guest_error(container, "exec in", error) from error
        except TetherError as error:
            code = _CODES.get(error.code)
            if code is not None:
                raise PortLayerError(Reason.LAUNCH_FAILED, str(error)[:4096], exit_code=code) from error
            if error.code is Code.FAILED_PRECONDITION:
                raise PortLayerError(Reason.NOT_RUNNING, str(error)[:4096]) from error
            raise guest_error(container, "exec in", error) from error
        except ChannelError as error:
            raise guest_error(container, "exec in", error) from error
    raise AssertionError("unreachable")


async def _copy_input(buffer: InputBuffer, inputs: AsyncIterator[InputChunk]) -> None:
    async for chunk in inputs:
        if chunk.data:
            await buffer.write(chunk.data)
        if chunk.close:
            buffer.close()
            return


class _Session:
    """One attached exec, over as many connections as it takes."""

    def __init__(self, container: Container, opening: ExecOpen, buffer: InputBuffer) -> None:
        self._container = container
        self._opening = opening
        self._buffer = buffer
        self._channel = running_channel(container, "exec in")
        self._offsets = {AttachOutput.STDOUT: 0, AttachOutput.STDERR: 0}

    async def output(self) -> AsyncIterator[OutputChunk]:
        while True:
            try:
                async for chunk in self._connection():
                    yield chunk
                    if chunk.stream == OutputChunk.EXITED:
                        return
                raise PortLayerError(Reason.GUEST_LOST, "the guest ended the exec's stream without an exit")
            except ChannelLost:
                continue
            except ChannelClosed:
                yield self._ended_with_container()
                return
            except TetherError as error:
                raise guest_error(self._container, "exec in", error, not_found=Reason.NO_SUCH_EXEC) from error
            except DecodeError as error:
                raise PortLayerError(
                    Reason.GUEST_LOST, f"the guest does not speak our language: {error}"
                ) from error

    async def _connection(self) -> AsyncIterator[OutputChunk]:
        opening = self._opening
        request = AttachRequest(
            exec_id=opening.exec_id,
            stdin=opening.stdin,
            stdout=opening.stdout,
            stderr=opening.stderr,
            stdout_offset=self._offsets[AttachOutput.STDOUT],
            stderr_offset=self._offsets[AttachOutput.STDERR],
        )
        async with await self._channel.stream("Attach", request) as stream:
            await stream.response(Empty)
            feeder = asyncio.create_task(self._buffer.feed(stream)) if opening.stdin else None
            try:
                while body := await stream.receive():
                    chunk = self._translate(AttachOutput.FromString(body))
                    if chunk is not None:
                        yield chunk
            finally:
                if feeder is not None:
                    feeder.cancel()
                    await asyncio.gather(feeder, return_exceptions=True)

    def _translate(self, output: AttachOutput) -> OutputChunk | None:
        if output.stream == AttachOutput.STDIN_ACK:
            self._buffer.acknowledge(output.offset)
            return None
        if output.stream == AttachOutput.EXITED:
            return OutputChunk(stream=OutputChunk.EXITED, exit_code=output.exit.exit_code & 0xFF)
        if output.lost:
            log.warning("exec %s: %d bytes of output are lost", self._opening.exec_id, output.lost)
        self._offsets[output.stream] = output.offset + len(output.data)
        stdout = output.stream == AttachOutput.STDOUT
        return OutputChunk(stream=OutputChunk.STDOUT if stdout else OutputChunk.STDERR, data=output.data)

    def _ended_with_container(self) -> OutputChunk:
        known = self._container.execs.get(self._opening.exec_id)
        code = known.exit_code & 0xFF if known is not None else _KILLED
        return OutputChunk(stream=OutputChunk.EXITED, exit_code=code)


async def exec_list(house: House, container: Container) -> ExecListReply:
    """Running ones from the guest, ended ones from memory (the newest 256).

    A container that is just ending has only ended ones: no error, for `docker
    inspect` asks at any moment.
    """
    known = dict(container.execs)
    if container.status is Status.RUNNING:
        for state in await _running_execs(house, container):
            known[state.exec_id] = state
    return ExecListReply(execs=known.values())


async def _running_execs(house: House, container: Container) -> Sequence[ExecState]:
    timeout = house.timeouts.call
    try:
        reply = await ask(
            container, "ExecList", Empty(), ExecListReply, call="list execs of", timeout=timeout
        )
    except PortLayerError as error:
        if error.reason != Reason.NOT_RUNNING:
            raise
        return ()
    return reply.execs[:_MOST_EXECS]


async def exec_inspect(house: House, container: Container, exec_id: str) -> ExecState:
    if exec_id in container.execs:
        return container.execs[exec_id]
    for state in (await exec_list(house, container)).execs:
        if state.exec_id == exec_id:
            return state
    raise PortLayerError(Reason.NO_SUCH_EXEC, f"No such exec instance: {exec_id[:_LONGEST_ID]}")
