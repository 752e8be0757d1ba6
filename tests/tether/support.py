"""A guest for tests: the real loop, server and sessions, on a thread or stepped by hand."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tether.events import EventLog
from tether.loop import Loop
from tether.recorder import Recorder
from tether.server import Server
from tether.session import Event, Role, Session, SessionStarted
from tether.stdio import Sessions
from tether.tether_pb2 import HelloReply, HelloRequest

SECONDS = 20.0  # safety net of every wait


def raising_loop() -> tuple[Loop, list[BaseException]]:
    errors: list[BaseException] = []
    return Loop(errors.append), errors


def run_until(loop: Loop, predicate: Callable[[], bool]) -> None:
    """Run the loop on this thread until the predicate holds."""
    deadline = time.monotonic() + SECONDS
    late = False

    def check() -> None:
        nonlocal late
        late = time.monotonic() > deadline
        if late or predicate():
            loop.stop()
        else:
            loop.after(0.001, check)

    loop.soon(check)
    loop.run()
    assert not late, "it did not happen"


class Guest:
    """Everything of a tether that talks, without boot, files or processes of its own."""

    def __init__(self, journal: Path) -> None:
        self.loop, self.errors = raising_loop()
        self.log: list[str] = []
        self.channel_fd, self.host_fd = (end.detach() for end in socket.socketpair())
        self.journal_fd = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.recorder = Recorder(self.loop, self.journal_fd)
        self.events = EventLog()
        self.sessions = Sessions(self.loop, self.recorder, self.events)
        self.server = Server(self.loop, log=self.log.append)
        self.server.unary("Hello", HelloRequest, self._hello)
        self.events.register(self.server)
        self.sessions.register(self.server)
        self.server.serve(self.channel_fd)
        self._thread: threading.Thread | None = None

    def _hello(self, _: HelloRequest) -> HelloReply:
        return HelloReply(protocol=1, version="test", boot_nonce="boot-1")

    def start(self) -> None:
        self._thread = threading.Thread(target=self.loop.run, name="guest")
        self._thread.start()

    def run(self, action: Callable[[], None]) -> None:
        """Do something on the guest's thread and wait for it."""
        done = threading.Event()
        failure: list[BaseException] = []

        def act() -> None:
            try:
                action()
            except BaseException as error:
                failure.append(error)
            finally:
                done.set()

        read, write = os.pipe()

        def ready(_: int) -> None:
            self.loop.remove(read)
            os.close(read)
            os.close(write)
            act()

        os.write(write, b"x")
        self.loop.add(read, select.EPOLLIN, ready)
        assert done.wait(SECONDS)
        if failure:
            raise failure[0]

    def close(self) -> None:
        if self._thread is not None:
            self.loop.stop()
            self._thread.join(SECONDS)
            assert not self._thread.is_alive()
        self.server.close()
        self.recorder.close()
        self.loop.close()
        for fd in (self.channel_fd, self.host_fd, self.journal_fd):
            os.close(fd)
        assert self.errors == []


class SteppedHost:
    """A host's session on the guest's own loop: deterministic, one thread."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.session = Session(Role.HOST)
        self.events: list[Event] = []
        self.reading = True
        self._out = b""
        os.set_blocking(guest.host_fd, False)
        guest.loop.add(guest.host_fd, select.EPOLLIN, self._readable)

    def reset(self) -> None:
        self.session.reset(os.urandom(16))
        self.flush()
        self.wait(lambda: any(isinstance(event, SessionStarted) for event in self.events))
        self.events.clear()

    def flush(self) -> None:
        while True:
            self._out = self._out or self.session.pull()
            if not self._out:
                return
            try:
                count = os.write(self.guest.host_fd, self._out)
            except BlockingIOError:
                self.guest.loop.after(0.001, self.flush)
                return
            self._out = self._out[count:]

    def wait(self, predicate: Callable[[], bool]) -> None:
        run_until(self.guest.loop, predicate)

    def hold(self) -> None:
        """Stop reading."""
        self.guest.loop.remove(self.guest.host_fd)

    def unhold(self) -> None:
        self.guest.loop.add(self.guest.host_fd, select.EPOLLIN, self._readable)

    def _readable(self, _: int) -> None:
        self.events += self.session.receive(os.read(self.guest.host_fd, 65536))
        self.flush()
