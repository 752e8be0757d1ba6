"""Main process and execs: output to journal and readers, resume, loss, ends."""

from __future__ import annotations

import os
import pty
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.tether.support import Guest, SteppedHost
from tether.journal import JournalReader, Kind
from tether.session import WINDOW, DataReceived, ErrorReceived, ResponseReceived
from tether.tether_pb2 import AttachInput, AttachOutput, AttachRequest, ExecListReply, ExecState
from tether.wire import Code

OUT, ERR = AttachOutput.STDOUT, AttachOutput.STDERR


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    guest = Guest(tmp_path / "journal")
    yield guest
    guest.close()


@pytest.fixture
def host(guest: Guest) -> SteppedHost:
    host = SteppedHost(guest)
    host.reset()
    return host


class Attached:
    """One Attach call of the stepped host."""

    def __init__(self, host: SteppedHost, exec_id: str, *, eat: bool = True, **request: object) -> None:
        self.host = host
        self.eat = eat
        self._seen = 0
        self.data = {OUT: b"", ERR: b""}
        self.lost = 0
        self.acks: list[int] = []
        self.exit: ExecState | None = None
        self.end = False
        asked = AttachRequest(exec_id=exec_id, **request)  # type: ignore[arg-type]
        self.stream = host.session.open("Attach", asked.SerializeToString())
        host.flush()
        host.wait(lambda: bool(self._answers()))

    def _answers(self) -> list[ResponseReceived | ErrorReceived]:
        return [
            event
            for event in self.host.events
            if isinstance(event, ResponseReceived | ErrorReceived) and event.stream == self.stream
        ]

    @property
    def error(self) -> ErrorReceived | None:
        last = self._answers()[-1]
        return last if isinstance(last, ErrorReceived) else None

    def look(self) -> None:
        """Take in what has arrived."""
        events = self.host.events
        while self._seen < len(events):
            event = events[self._seen]
            self._seen += 1
            if not isinstance(event, DataReceived) or event.stream != self.stream:
                continue
            if self.eat:
                self.host.session.consume(self.stream, len(event.body))
            assert not self.end
            self.end = event.end
            message = AttachOutput.FromString(event.body)
            if message.stream == AttachOutput.STDIN_ACK:
                self.acks.append(message.offset)
            elif message.stream == AttachOutput.EXITED:
                self.exit = message.exit
            else:
                self.lost += message.lost
                self.data[message.stream] += message.data
        self.host.flush()

    def wait(self, predicate: Callable[[], bool]) -> None:
        def holds() -> bool:
            self.look()
            return predicate()

        self.host.wait(holds)

    def type(self, offset: int, data: bytes, *, close: bool = False) -> None:
        message = AttachInput(offset=offset, data=data, close=close)
        self.host.session.send(self.stream, message.SerializeToString())
        self.host.flush()

    def cancel(self) -> None:
        self.host.session.cancel(self.stream)
        self.host.flush()


class Pipes:
    def __init__(self) -> None:
        self.in_read, self.in_write = os.pipe()
        self.out_read, self.out_write = os.pipe()
        self.err_read, self.err_write = os.pipe()
        self.fds = {"stdin_fd": self.in_write, "stdout_fd": self.out_read, "stderr_fd": self.err_read}

    def close(self) -> None:
        """The process ends."""
        for fd in (self.in_read, self.out_write, self.err_write):
            os.close(fd)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tether.pump._LINGER", 0.02)


def journal(tmp_path: Path) -> list[tuple[int, int, bytes]]:
    records = JournalReader().feed((tmp_path / "journal").read_bytes())
    return [(record.kind, record.stream, record.body) for record in records]


def test_main_output_is_in_the_journal_before_its_end_is_told(
    guest: Guest, host: SteppedHost, tmp_path: Path
) -> None:
    pipes = Pipes()
    at_end: list[list[tuple[int, int, bytes]]] = []
    guest.sessions.start_main(pid=5, **pipes.fds, on_drained=lambda: at_end.append(journal(tmp_path)))
    os.write(pipes.out_write, b"out")
    os.write(pipes.err_write, b"err")
    pipes.close()
    guest.sessions.exited("", exit_code=3)
    host.wait(lambda: bool(at_end))
    assert sorted(at_end[0]) == [(Kind.OUTPUT, 1, b"out"), (Kind.OUTPUT, 2, b"err")]
    state = guest.sessions.state("")
    assert state is not None
    assert (state.running, state.pid, state.exit_code) == (False, 5, 3)


def test_a_main_that_never_started_still_ends_its_readers(guest: Guest, host: SteppedHost) -> None:
    reader = Attached(host, "", stdout=True)
    guest.sessions.failed("", exit_code=127, error="no such file")
    reader.wait(lambda: reader.end)
    assert reader.exit is not None
    assert (reader.exit.exit_code, reader.exit.error) == (127, "no such file")


def test_a_reader_of_main_from_before_its_start_sees_everything(
    guest: Guest, host: SteppedHost, tmp_path: Path
) -> None:
    reader = Attached(host, "", stdin=True, stdout=True, stderr=True)
    reader.type(0, b"typed early")
    pipes = Pipes()
    guest.sessions.start_main(pid=5, **pipes.fds)
    os.write(pipes.out_write, b"hello")
    reader.wait(lambda: reader.data[OUT] == b"hello" and reader.acks[-1] == 11)
    assert os.read(pipes.in_read, 100) == b"typed early"
    pipes.close()
    guest.sessions.exited("", exit_code=0)
    reader.wait(lambda: reader.end)
    assert reader.lost == 0
    assert journal(tmp_path) == [(Kind.OUTPUT, 1, b"hello")]


def test_a_reader_of_main_who_is_late_or_slow_loses_bytes_and_costs_nobody_anything(
    guest: Guest, host: SteppedHost, tmp_path: Path
) -> None:
    pipes = Pipes()
    done: list[bool] = []
    guest.sessions.start_main(pid=5, **pipes.fds, on_drained=lambda: done.append(True))
    os.write(pipes.out_write, b"before")
    host.wait(lambda: journal(tmp_path) == [(Kind.OUTPUT, 1, b"before")])
    slow = Attached(host, "", eat=False, stdout=True)
    os.set_blocking(pipes.out_write, False)
    written = 6

    def flood() -> bool:
        nonlocal written
        slow.look()
        if written < 3_000_000:
            try:
                written += os.write(pipes.out_write, b"z" * 50_000)
            except BlockingIOError:
                return False
        return written >= 3_000_000

    host.wait(flood)
    pipes.close()
    guest.sessions.exited("", exit_code=0)
    host.wait(lambda: bool(done))
    assert sum(len(body) for kind, _, body in journal(tmp_path) if kind == Kind.OUTPUT) == written
    slow.eat = True
    host.session.consume(slow.stream, sum(map(len, slow.data.values())))
    slow.wait(lambda: slow.end)
    assert slow.lost > 0
    assert slow.lost + len(slow.data[OUT]) == written


def test_main_waits_for_its_journal_and_loses_nothing(
    tmp_path: Path,
) -> None:
    guest = Guest(tmp_path / "journal")
    read, write = os.pipe()
    guest.recorder.close()
    os.close(guest.journal_fd)
    guest.journal_fd = write
    guest.recorder.__init__(guest.loop, write)  # type: ignore[misc]
    host = SteppedHost(guest)
    pipes = Pipes()
    guest.sessions.start_main(pid=5, **pipes.fds)
    os.set_blocking(pipes.out_write, False)
    written = 0
    blocked = 0

    def fill() -> bool:
        nonlocal written, blocked
        try:
            count = os.write(pipes.out_write, b"%09d\n" % (written // 10) * 1)
            written += count
            blocked = 0
        except BlockingIOError:
            blocked += 1
        return blocked > 20

    host.wait(lambda: any(fill() for _ in range(2000)))
    os.set_blocking(read, False)
    reader = JournalReader()
    got = b""

    def empty() -> bool:
        nonlocal got
        try:
            got += b"".join(record.body for record in reader.feed(os.read(read, 1 << 20)))
        except BlockingIOError:
            return len(got) == written
        return False

    host.wait(empty)
    assert got == b"".join(b"%09d\n" % n for n in range(written // 10))
    assert reader.lost == 0
    pipes.close()
    guest.sessions.exited("", exit_code=0)
    host.wait(lambda: (empty(), guest.sessions._main.drained)[1])
    guest.close()
    os.close(read)


def test_an_exec_from_start_to_end(guest: Guest, host: SteppedHost, tmp_path: Path) -> None:
    pipes = Pipes()
    guest.sessions.start_exec("e1", pid=9, **pipes.fds)
    assert guest.sessions.running == 1
    reader = Attached(host, "e1", stdin=True, stdout=True, stderr=True)
    reader.type(0, b"in", close=True)
    reader.wait(lambda: reader.acks == [0, 2])
    assert os.read(pipes.in_read, 10) == b"in"
    assert os.read(pipes.in_read, 10) == b""
    os.write(pipes.out_write, b"out")
    os.write(pipes.err_write, b"err")
    pipes.close()
    guest.sessions.exited("e1", exit_code=4)
    reader.wait(lambda: reader.end)
    assert (reader.data, reader.lost) == ({OUT: b"out", ERR: b"err"}, 0)
    assert reader.exit is not None
    assert (reader.exit.exec_id, reader.exit.exit_code, reader.exit.running) == ("e1", 4, False)
    assert [event.exec.exec_id for event in guest.events.after(0)] == ["e1"]
    assert [kind for kind, _, _ in journal(tmp_path)] == [Kind.EXEC]
    assert guest.sessions.running == 0


def test_output_before_the_first_reader_waits_for_him(guest: Guest, host: SteppedHost) -> None:
    pipes = Pipes()
    guest.sessions.start_exec("e", pid=9, **pipes.fds)
    os.set_blocking(pipes.out_write, False)
    written, blocked = 0, 0

    def fill() -> bool:
        nonlocal written, blocked
        try:
            written += os.write(pipes.out_write, b"a" * 60_000)
            blocked = 0
        except BlockingIOError:
            blocked += 1
        return blocked > 20

    host.wait(fill)
    assert written > 1_000_000
    reader = Attached(host, "e", stdout=True)
    reader.wait(lambda: len(reader.data[OUT]) == written)
    assert reader.lost == 0
    pipes.close()
    guest.sessions.exited("e", exit_code=0)
    reader.wait(lambda: reader.end)


def test_a_short_exec_can_be_attached_after_its_end(guest: Guest, host: SteppedHost) -> None:
    pipes = Pipes()
    guest.sessions.start_exec("e", pid=9, **pipes.fds)
    os.write(pipes.out_write, b"quick")
    pipes.close()
    guest.sessions.exited("e", exit_code=0)
    host.wait(lambda: guest.sessions._execs["e"].drained)
    for _ in range(2):  # and again, had the first attach been cut off
        reader = Attached(host, "e", stdout=True)
        host.wait(lambda reader=reader: (reader.look(), reader.end)[1])
        assert (reader.data[OUT], reader.lost) == (b"quick", 0)
    resumed = Attached(host, "e", stdout=True, stdout_offset=3)
    resumed.wait(lambda: resumed.end)
    assert resumed.data[OUT] == b"ck"


def test_without_a_reader_the_newest_bytes_win_and_the_loss_is_counted(
    guest: Guest, host: SteppedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tether.stdio._FIRST", 0.001)
    pipes = Pipes()
    guest.sessions.start_exec("e", pid=9, **pipes.fds)
    os.set_blocking(pipes.out_write, False)
    written = 0

    def fill() -> bool:
        nonlocal written
        try:
            written += os.write(pipes.out_write, b"%09d\n" % (written // 10))
        except BlockingIOError:
            return False
        return written == 3_000_000

    host.wait(lambda: any(fill() for _ in range(5000)))
    host.wait(lambda: guest.sessions._execs["e"].outputs[OUT].ring.end == written)
    reader = Attached(host, "e", stdout=True)
    reader.wait(lambda: reader.lost + len(reader.data[OUT]) == written)
    assert reader.lost == written - (1 << 20)
    assert reader.data[OUT].endswith(b"%09d\n" % (written // 10 - 1))
    pipes.close()
    guest.sessions.exited("e", exit_code=0)


def test_a_reader_who_cancels_is_not_waited_for(guest: Guest, host: SteppedHost) -> None:
    pipes = Pipes()
    guest.sessions.start_exec("e", pid=9, **pipes.fds)
    reader = Attached(host, "e", eat=False, stdout=True)
    reader.cancel()
    os.set_blocking(pipes.out_write, False)
    written = 0

    def flood() -> bool:
        nonlocal written
        try:
            written += os.write(pipes.out_write, b"z" * 50_000)
        except BlockingIOError:
            return False
        return written > 4_000_000

    host.wait(flood)
    pipes.close()
    guest.sessions.exited("e", exit_code=0)


@pytest.mark.parametrize("offset", [0, 1, WINDOW // 2])
def test_a_reader_who_was_cut_off_is_waited_for_and_resumes_from_any_byte_he_may_have(
    guest: Guest, host: SteppedHost, offset: int
) -> None:
    pipes = Pipes()
    guest.sessions.start_exec("e", pid=9, **pipes.fds)
    text = b"".join(b"%09d\n" % n for n in range(400_000))
    os.set_blocking(pipes.out_write, False)
    written, stalled = 0, 0

    def is_stalled() -> bool:
        nonlocal written, stalled
        try:
            written += os.write(pipes.out_write, text[written : written + 60_000])
            stalled = 0
        except BlockingIOError:
            stalled += 1
        return stalled > 20

    Attached(host, "e", eat=False, stdout=True)
    host.wait(is_stalled)
    guest.loop.remove(guest.host_fd)
    new = SteppedHost(guest)
    new.reset()
    stalled = 0
    new.wait(is_stalled)
    # The first host had consumed nothing; it may have got anything up to the window.
    reader = Attached(new, "e", stdout=True, stdout_offset=offset)
    reader.wait(lambda: (is_stalled(), len(reader.data[OUT]) > 2_000_000)[1])
    assert reader.lost == 0
    assert text.startswith(reader.data[OUT], offset)
    pipes.close()
    guest.sessions.exited("e", exit_code=0)


def test_waiting_for_a_reader_who_was_cut_off_begins_where_he_was(guest: Guest, host: SteppedHost) -> None:
    pipes = Pipes()
    guest.sessions.start_exec("e", pid=9, **pipes.fds)
    os.set_blocking(pipes.out_write, False)
    written, stalled = 0, 0

    def fill() -> int:
        nonlocal written, stalled
        try:
            written += os.write(pipes.out_write, b"z" * 60_000)
            stalled = 0
        except BlockingIOError:
            stalled += 1
        return stalled

    reader = Attached(host, "e", stdout=True)
    reader.wait(lambda: (fill(), len(reader.data[OUT]) > 3_000_000)[1])
    guest.loop.remove(guest.host_fd)
    SteppedHost(guest).reset()
    ring = guest.sessions._execs["e"].outputs[OUT].ring
    stalled = 0
    host.wait(lambda: fill() > 20)
    # It took all that the ring can hold behind him, though he began 3 MB ago.
    assert ring.end - len(reader.data[OUT]) > 200_000
    assert ring.start <= len(reader.data[OUT])
    pipes.close()
    guest.sessions.exited("e", exit_code=0)


def test_resent_input_is_typed_once_and_a_gap_is_an_error(guest: Guest, host: SteppedHost) -> None:
    pipes = Pipes()
    guest.sessions.start_exec("e", pid=9, **pipes.fds)
    first = Attached(host, "e", stdin=True)
    first.type(0, b"hello ")
    first.wait(lambda: first.acks[-1] == 6)
    first.cancel()
    second = Attached(host, "e", stdin=True)
    second.wait(lambda: second.acks == [6])
    second.type(2, b"llo world")
    second.wait(lambda: second.acks[-1] == 11)
    assert os.read(pipes.in_read, 100) == b"hello world"
    second.type(50, b"?")
    host.wait(lambda: second.error is not None)
    assert second.error is not None
    assert second.error.code == Code.OUT_OF_RANGE
    assert guest.sessions._execs["e"].readers == []
    pipes.close()
    guest.sessions.exited("e", exit_code=0)


def test_input_for_a_process_that_does_not_read_is_held_in_bounds(guest: Guest, host: SteppedHost) -> None:
    pipes = Pipes()
    guest.sessions.start_exec("e", pid=9, **pipes.fds)
    reader = Attached(host, "e", stdin=True)
    for n in range(60):
        reader.type(n * 20_000, bytes((n,)) * 20_000)
    reader.wait(lambda: len(reader.acks) > 2)
    stdin = guest.sessions._execs["e"].stdin
    assert stdin.accepted < 60 * 20_000
    assert not stdin.room
    got = b""
    os.set_blocking(pipes.in_read, False)

    def read_some() -> bool:
        nonlocal got
        reader.look()
        try:
            got += os.read(pipes.in_read, 65536)
        except BlockingIOError:
            return len(got) == 60 * 20_000
        return False

    host.wait(read_some)
    assert got == b"".join(bytes((n,)) * 20_000 for n in range(60))
    pipes.close()
    guest.sessions.exited("e", exit_code=0)


def test_input_without_having_asked_for_it_is_an_error(guest: Guest, host: SteppedHost) -> None:
    pipes = Pipes()
    guest.sessions.start_exec("e", pid=9, **pipes.fds)
    reader = Attached(host, "e", stdout=True)
    reader.type(0, b"x")
    host.wait(lambda: reader.error is not None)
    assert reader.error is not None
    assert reader.error.code == Code.FAILED_PRECONDITION
    assert guest.sessions._execs["e"].readers == []
    pipes.close()
    guest.sessions.exited("e", exit_code=0)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"exec_id": "nobody"}, Code.NOT_FOUND),
        ({"exec_id": "e", "stdout": True, "stdout_offset": 1}, Code.OUT_OF_RANGE),
    ],
)
def test_attaching_to_what_is_not_there(
    guest: Guest, host: SteppedHost, request_: dict[str, object], code: Code
) -> None:
    pipes = Pipes()
    guest.sessions.start_exec("e", pid=9, **pipes.fds)
    reader = Attached(host, **request_)  # type: ignore[arg-type]
    assert reader.error is not None
    assert reader.error.code == code
    pipes.close()
    guest.sessions.exited("e", exit_code=0)


def test_a_terminal(guest: Guest, host: SteppedHost) -> None:
    master, slave = pty.openpty()
    tty.setraw(slave)
    guest.sessions.start_exec("t", pid=9, pty_fd=master)
    reader = Attached(host, "t", stdin=True, stdout=True, stderr=True)
    guest.sessions.resize("t", rows=30, columns=100)
    assert os.get_terminal_size(slave) == (100, 30)
    reader.type(0, b"ls\r", close=True)
    reader.wait(lambda: reader.acks[-1] == 3)
    assert os.read(slave, 10) == b"ls\r"
    os.write(slave, b"file\r\n")
    reader.wait(lambda: reader.data[OUT] == b"file\r\n")
    os.close(slave)
    guest.sessions.exited("t", exit_code=0)
    reader.wait(lambda: reader.end)
    with pytest.raises(ValueError, match="terminal"):
        guest.sessions.resize("t", rows=1, columns=1)
    with pytest.raises(KeyError):
        guest.sessions.resize("nobody", rows=1, columns=1)


def test_the_last_finished_execs_are_remembered(guest: Guest, host: SteppedHost) -> None:
    guest.sessions.failed("bad", exit_code=126, error="not executable")
    assert guest.sessions.state("bad") == guest.sessions.state("bad")
    for n in range(300):
        guest.sessions.failed(f"e{n}", exit_code=0, error="")
    assert guest.sessions.state("bad") is None
    assert guest.sessions.state("e299") is not None
    stream = host.session.open("ExecList", b"")
    host.flush()
    host.wait(lambda: bool(host.events))
    answer = host.events[0]
    assert isinstance(answer, ResponseReceived)
    assert answer.stream == stream
    assert [state.exec_id for state in ExecListReply.FromString(answer.body).execs] == [
        f"e{n}" for n in range(44, 300)
    ]


def test_an_exec_id_is_used_once(guest: Guest) -> None:
    guest.sessions.failed("e", exit_code=127, error="x")
    with pytest.raises(ValueError, match="known"):
        guest.sessions.start_exec("e", pid=1)
    with pytest.raises(ValueError, match="known"):
        guest.sessions.start_exec("", pid=1)


def test_output_kept_of_finished_execs_is_bounded(
    guest: Guest, host: SteppedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tether.stdio._FINISHED_OUTPUT", 1000)
    for n in range(5):
        pipes = Pipes()
        guest.sessions.start_exec(f"e{n}", pid=9, **pipes.fds)
        os.write(pipes.out_write, b"x" * 400)
        pipes.close()
        process = guest.sessions._execs[f"e{n}"]
        host.wait(lambda process=process: all(output.ended for output in process.outputs.values()))
        guest.sessions.exited(f"e{n}", exit_code=0)
    assert [process.output_held for process in guest.sessions._execs.values()] == [0, 0, 0, 400, 400]
    reader = Attached(host, "e0", stdout=True)
    reader.wait(lambda: reader.end)
    assert (reader.data[OUT], reader.lost) == (b"", 400)
