"""An attach that is cut anywhere and resumed by offset neither loses nor repeats a byte, both ways."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from pathlib import Path

import pytest

from portlayer.channel import ChannelLost, TetherChannel, Timing
from tests.portlayer.channel.support import Link
from tests.tether.support import Guest
from tether.tether_pb2 import AttachInput, AttachOutput, AttachRequest, Empty

FAST = Timing(ping=0.2, silence=2, reset=0.1, handshake=10, retry_first=0.01, retry_most=0.05)


class Client:
    """An exec client as it should be: output resumes by offset, input by acknowledgement."""

    def __init__(self, channel: TetherChannel, text: bytes) -> None:
        self._channel = channel
        self._text = text
        self.output = {AttachOutput.STDOUT: bytearray(), AttachOutput.STDERR: bytearray()}
        self.lost = 0
        self.exit_code: int | None = None

    async def run(self) -> None:
        while self.exit_code is None:
            request = AttachRequest(
                exec_id="e",
                stdin=True,
                stdout=True,
                stderr=True,
                stdout_offset=len(self.output[AttachOutput.STDOUT]),
                stderr_offset=len(self.output[AttachOutput.STDERR]),
            )
            feeder: asyncio.Task[None] | None = None
            try:
                async with await self._channel.stream("Attach", request) as stream:
                    await stream.response(Empty)
                    while body := await stream.receive():
                        message = AttachOutput.FromString(body)
                        if message.stream == AttachOutput.STDIN_ACK:
                            if feeder is None:
                                feeder = asyncio.create_task(self._feed(stream, message.offset))
                        elif message.stream == AttachOutput.EXITED:
                            self.exit_code = message.exit.exit_code
                        else:
                            assert message.offset == len(self.output[message.stream]) + message.lost
                            self.lost += message.lost
                            self.output[message.stream] += message.data
            except ChannelLost:
                continue
            finally:
                if feeder is not None:
                    feeder.cancel()
                    await asyncio.gather(feeder, return_exceptions=True)

    async def _feed(self, stream, offset: int) -> None:  # type: ignore[no-untyped-def]
        while True:
            data = self._text[offset : offset + 20_000]
            last = offset + len(data) == len(self._text)
            await stream.send(AttachInput(offset=offset, data=data, close=last).SerializeToString())
            offset += len(data)
            if last:
                return


def echo(stdin: int, stdout: int, stderr: int, on_end: threading.Event) -> None:
    """The workload: stdin to stdout, and its complement to stderr."""
    flip = bytes(255 - n for n in range(256))
    with open(stdin, "rb", buffering=0) as source, open(stdout, "wb") as out, open(stderr, "wb") as err:
        while data := source.read(10_000):
            out.write(data)
            err.write(data.translate(flip))
    on_end.set()


@pytest.mark.parametrize("seed", range(12))
async def test_a_cut_attach_loses_nothing(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    text = chance.randbytes(3_000_000)
    guest = Guest(tmp_path / "journal")
    link = Link(guest.host_fd)
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    ended = threading.Event()
    worker = threading.Thread(target=echo, args=(in_read, out_write, err_write, ended))
    guest.sessions.start_exec("e", pid=1, stdin_fd=in_write, stdout_fd=out_read, stderr_fd=err_read)
    guest.start()
    worker.start()
    cuts = 0

    def next_cut() -> None:
        nonlocal cuts
        if cuts < 8:
            cuts += 1
            budget = chance.choice((100, 33_000, 70_000, 1_000_000, 2_000_000))
            if chance.random() < 0.5:
                link.cut_up = chance.randrange(budget)
            else:
                link.cut_down = chance.randrange(budget)

    link.on_connect = next_cut
    channel = TetherChannel(link.connect, name="c", timing=FAST)
    await channel.start()
    client = Client(channel, text)
    try:
        async with asyncio.timeout(60):
            running = asyncio.create_task(client.run())
            await asyncio.to_thread(ended.wait)
            guest.run(lambda: guest.sessions.exited("e", exit_code=3))
            await running
    finally:
        await channel.close()
        await link.close()
        guest.close()
        worker.join(10)
    assert client.output[AttachOutput.STDOUT] == text
    assert client.output[AttachOutput.STDERR] == text.translate(bytes(255 - n for n in range(256)))
    assert (client.lost, client.exit_code) == (0, 3)
    assert cuts > 3
