"""What the channel's parts cost: frames, journal, and a pipe through a guest to the host.

Run it natively, and under `qemu-x86_64` for what TCG makes of it. One line per
number; MB are 10^6 bytes.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tether.journal import OUTPUT_PIECE, STDOUT, JournalReader, JournalWriter, Kind, entries
from tether.loop import Loop
from tether.recorder import Recorder
from tether.server import Server
from tether.session import Role, Session
from tether.stdio import Sessions
from tether.tether_pb2 import AttachOutput, AttachRequest, Empty, HelloReply, HelloRequest
from tether.wire import PIECE, Decoder, Type, encode

SIZE = int(os.environ.get("MB", "100")) * 1_000_000


def rate(what: str, work: Callable[[], int]) -> None:
    began = time.perf_counter()
    size = work()
    seconds = time.perf_counter() - began
    print(f"{what:55} {size / seconds / 1e6:8.0f} MB/s")


def encode_frames() -> int:
    body = os.urandom(PIECE)
    for _ in range(SIZE // PIECE):
        encode(Type.DATA, body, stream=1)
    return SIZE


def decode_frames(read_size: int) -> int:
    chunk = encode(Type.DATA, os.urandom(PIECE), stream=1) * 8
    pieces = [chunk[at : at + read_size] for at in range(0, len(chunk), read_size)]
    decoder = Decoder()
    for _ in range(SIZE // len(chunk)):
        for piece in pieces:
            decoder.feed(piece)
    return SIZE


def session_pair() -> int:
    host, guest = Session(Role.HOST), Session(Role.GUEST)
    host.reset(bytes(16))
    guest.receive(_all(host))
    host.receive(_all(guest))
    stream = host.open("M", b"")
    guest.receive(_all(host))
    data = os.urandom(PIECE)
    left = SIZE
    while left > 0:
        guest.send(stream, data)
        for _ in host.receive(guest.pull()):
            host.consume(stream, PIECE)
        guest.receive(host.pull())
        left -= PIECE
    return SIZE


def _all(session: Session) -> bytes:
    return b"".join(iter(session.pull, b""))


def write_journal(path: Path, piece: int) -> int:
    writer = JournalWriter()
    body = os.urandom(piece)
    with path.open("wb", buffering=0) as file:
        for _ in range(SIZE // piece):
            file.write(writer.record(Kind.OUTPUT, body, stream=STDOUT))
    return SIZE


def read_journal(path: Path) -> int:
    reader = JournalReader()
    with path.open("rb", buffering=0) as file:
        while data := file.read(1 << 16):
            reader.feed(data)
    return path.stat().st_size


def hop_journal(path: Path, bodies: bool) -> int:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        for entry in entries(mapped):
            if bodies:
                mapped[entry.start : entry.end]
    return path.stat().st_size


def pump_main(path: Path) -> int:
    """A process writes SIZE bytes; they go through pipe, pump and recorder to a file."""
    loop = Loop(_fail)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    recorder = Recorder(loop, fd)
    sessions = Sessions(loop, recorder)
    read, write = os.pipe()
    sessions.start_main(pid=1, stdout_fd=read, on_drained=loop.stop)
    pid = os.fork()
    if pid == 0:
        os.close(read)
        data = bytes(65536)
        for _ in range(SIZE // 65536):
            os.write(write, data)
        os._exit(0)
    os.close(write)
    loop.on_child(pid, lambda _: sessions.exited("", exit_code=0))
    loop.run()
    loop.close()
    os.close(fd)
    return SIZE


async def attach_exec() -> int:
    """The same through an exec's ring, the server, a socket, the host's client."""
    import socket

    from portlayer.channel import TetherChannel
    from tests.portlayer.channel.support import Link

    guest, host = socket.socketpair()
    loop = Loop(_fail)
    server = Server(loop, log=print)
    sink = os.open("/dev/null", os.O_WRONLY)
    sessions = Sessions(loop, Recorder(loop, sink))
    sessions.register(server)
    server.unary("Hello", HelloRequest, lambda _: HelloReply())
    server.serve(guest.fileno())
    read, write = os.pipe()
    sessions.start_exec("e", pid=1, stdout_fd=read)
    thread = threading.Thread(target=loop.run)
    thread.start()

    def work() -> None:
        data = bytes(65536)
        for _ in range(SIZE // 65536):
            os.write(write, data)
        os.close(write)

    worker = threading.Thread(target=work)
    worker.start()
    link = Link(host.fileno())
    channel = TetherChannel(link.connect, name="bench")
    await channel.start()
    received = 0
    async with await channel.stream("Attach", AttachRequest(exec_id="e", stdout=True)) as stream:
        await stream.response(Empty)
        while received < SIZE // 65536 * 65536:
            received += len(AttachOutput.FromString(await stream.receive()).data)
    await channel.close()
    await link.close()
    loop.stop()
    thread.join()
    worker.join()
    return received


def _fail(error: BaseException) -> None:
    raise SystemExit(f"the loop: {error!r}")


def main() -> None:
    rate("encode DATA frames", encode_frames)
    rate("decode DATA frames, reads of 64 KiB", lambda: decode_frames(65536))
    rate("decode DATA frames, reads of 4 KiB", lambda: decode_frames(4096))
    rate("a session's both ends, credit included", session_pair)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "journal"
        rate("write a journal, full records", lambda: write_journal(path, OUTPUT_PIECE))
        rate("read it whole", lambda: read_journal(path))
        rate("hop over it", lambda: hop_journal(path, False))
        rate("hop over it, taking the bodies", lambda: hop_journal(path, True))
        rate("write a journal, records of 100 bytes", lambda: write_journal(path, 100))
        rate("read it whole", lambda: read_journal(path))
        rate("hop over it", lambda: hop_journal(path, False))
        rate("main process → pipe → journal file", lambda: pump_main(path))
    if "--host" in sys.argv:
        rate("exec → pipe → ring → channel → host client", lambda: asyncio.run(attach_exec()))


if __name__ == "__main__":
    main()
