"""Standard streams of the main process and of execs, and who is attached to them.

The main process's output goes to the journal, all of it: when the journal port
is slow its pipes are read slower. Whoever attaches to it on the channel as well
costs it nothing, and may lose bytes (counted). An exec's output goes to a ring
per stream and from there to the attached reader, who resumes by offset; while
there is a reader, or one is expected, the ring never overwrites what he has not
got (tether/output.py).

``EXITED`` is the last thing a reader sees: it follows all output.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Callable, Mapping

from tether.attach import Reader
from tether.call import Call, RpcError
from tether.events import EventLog
from tether.journal import STDERR, STDOUT, Kind
from tether.loop import Loop, Timer
from tether.output import ExecOutput, MainOutput, Output
from tether.pump import Pump
from tether.recorder import Recorder
from tether.server import Server
from tether.stdin import Stdin
from tether.tether_pb2 import AttachOutput, AttachRequest, Empty, ExecListReply, ExecState
from tether.wire import Code

__all__ = ["Sessions"]

MAIN = ""  # the main process's exec ID
_FIRST = 10.0  # seconds an exec's output waits for its first reader
_AGAIN = 30.0  # and for one who was cut off; so long do finished execs keep their output
_FINISHED = 256  # states kept
_FINISHED_OUTPUT = 8 << 20  # bytes of output kept of all of them
_GATHER = 0.01  # seconds, see tether/pump.py
_TIOCSWINSZ = 0x5414  # asm-generic/ioctls.h


class _Process:
    """The main process or an exec, from before its start to after its end."""

    def __init__(
        self, loop: Loop, exec_id: str, sinks: Mapping[AttachOutput.Stream.ValueType, Output]
    ) -> None:
        self._loop = loop
        self.outputs = sinks
        self.stdin = Stdin(loop)
        self.state = ExecState(exec_id=exec_id)
        self.over = False
        self.readers: list[Reader] = []
        self.on_drained: Callable[[], None] | None = None
        self._pumps: list[Pump] = []
        self._terminal = -1
        self._patience: Timer | None = None

    def start(
        self,
        pid: int,
        stdin_fd: int | None,
        outputs: Mapping[AttachOutput.Stream.ValueType, int | None],
        pty_fd: int | None,
    ) -> None:
        self.state.running = True
        self.state.pid = pid
        self.state.started_at = time.time_ns()
        if pty_fd is not None:
            self._terminal = pty_fd
            self.stdin.start(os.dup(pty_fd), terminal=True)
            outputs = {AttachOutput.STDOUT: pty_fd}
        else:
            self.stdin.start(stdin_fd, terminal=False)
        conversation = pty_fd is not None or stdin_fd is not None
        for stream, output in self.outputs.items():
            fd = outputs.get(stream)
            if fd is None:
                output.ended = True
            else:
                self._pump(fd, output, gather=0 if conversation else _GATHER)

    def _pump(self, fd: int, output: Output, *, gather: float) -> None:
        ended = lambda: self._ended(output)  # noqa: E731
        self._pumps.append(Pump(self._loop, fd, _Tap(self, output), ended, gather=gather))

    def end(self, exit_code: int, error: str) -> None:
        self.over = True
        self.state.running = False
        self.state.exit_code = exit_code
        self.state.error = error
        self.state.finished_at = time.time_ns()
        self.stdin.close()
        if not self._pumps:
            for output in self.outputs.values():
                output.ended = True
        for pump in self._pumps:
            pump.finish()
        self._look_for_the_end()

    def _ended(self, output: Output) -> None:
        output.ended = True
        self._terminal = -1
        self._look_for_the_end()

    @property
    def drained(self) -> bool:
        return self.over and all(output.ended for output in self.outputs.values())

    def _look_for_the_end(self) -> None:
        if not self.drained:
            return
        for reader in list(self.readers):
            reader.exited(self.state)
        if self.on_drained is not None:
            self.on_drained()
            self.on_drained = None

    def resize(self, rows: int, columns: int) -> None:
        if self._terminal < 0:
            raise ValueError("it has no terminal")
        fcntl.ioctl(self._terminal, _TIOCSWINSZ, struct.pack("<4H", rows, columns, 0, 0))

    # -- readers

    def attach(self, reader: Reader) -> None:
        self.readers.append(reader)
        if self._patience is not None:
            self._patience.cancel()
        reader.begin()
        if self.drained:
            reader.exited(self.state)

    def detach(self, reader: Reader, lost: bool) -> None:
        if reader in self.readers:
            self.readers.remove(reader)
            for output in self.outputs.values():
                output.leave(reader)
            if not self.readers:
                self.wait_for_reader(_AGAIN if lost else 0)

    def wait_for_reader(self, seconds: float) -> None:
        """For so long may output wait for somebody to attach."""
        if self._patience is not None:
            self._patience.cancel()
        if seconds:
            self._patience = self._loop.after(seconds, self._nobody_came)
        else:
            self._nobody_came()

    def _nobody_came(self) -> None:
        self._patience = None
        for output in self.outputs.values():
            output.expect_nobody()
        if self.drained:
            self.drop_output()

    @property
    def output_held(self) -> int:
        return sum(output.ring.end - output.ring.start for output in self.outputs.values())

    def drop_output(self) -> None:
        if not self.readers:
            for output in self.outputs.values():
                output.ring.drop()


class _Tap:
    """A pump's sink: the output, and then its readers."""

    def __init__(self, process: _Process, output: Output) -> None:
        self._process = process
        self._output = output
        self.when_room = output.when_room
        self.chunk = output.chunk

    @property
    def room(self) -> bool:
        return self._output.room

    def read_from(self, fd: int, limit: int) -> int:
        count = self._output.read_from(fd, limit)
        if count:
            for reader in tuple(self._process.readers):
                reader.push()
        return count


class Sessions:
    def __init__(
        self,
        loop: Loop,
        recorder: Recorder,
        events: EventLog | None = None,
        *,
        ring: int = 1 << 20,
    ) -> None:
        """``ring``: bytes of each exec stream kept for its reader."""
        self._loop = loop
        self._recorder = recorder
        self._events = events
        self._ring = ring
        self._main = _Process(
            loop,
            MAIN,
            {
                AttachOutput.STDOUT: MainOutput(recorder, STDOUT),
                AttachOutput.STDERR: MainOutput(recorder, STDERR),
            },
        )
        self._execs: dict[str, _Process] = {}  # oldest first

    def register(self, server: Server) -> None:
        """Serve Attach and ExecList."""
        server.streaming("Attach", AttachRequest, self._attach)
        server.unary("ExecList", Empty, self._list)

    def start_main(
        self,
        *,
        pid: int,
        stdin_fd: int | None = None,
        stdout_fd: int | None = None,
        stderr_fd: int | None = None,
        pty_fd: int | None = None,
        on_drained: Callable[[], None] | None = None,
    ) -> None:
        """The main process runs. The descriptors are pipe ends, or the pty's master: ours from now on.

        ``on_drained`` is called once, after `exited` and after the last byte of
        its output has been handed to the journal port: then record EXITED.
        """
        if on_drained is not None:
            self._main.on_drained = lambda: self._recorder.when_flushed(on_drained)
        outputs = {AttachOutput.STDOUT: stdout_fd, AttachOutput.STDERR: stderr_fd}
        self._main.start(pid, stdin_fd, outputs, pty_fd)

    def start_exec(
        self,
        exec_id: str,
        *,
        pid: int,
        stdin_fd: int | None = None,
        stdout_fd: int | None = None,
        stderr_fd: int | None = None,
        pty_fd: int | None = None,
    ) -> None:
        """An exec runs; descriptors as for `start_main`. Its pipes are read at once.

        Raises:
            ValueError: that ID is known; look with `state` first.
        """
        process = self._new_exec(exec_id)
        process.wait_for_reader(_FIRST)
        outputs = {AttachOutput.STDOUT: stdout_fd, AttachOutput.STDERR: stderr_fd}
        process.start(pid, stdin_fd, outputs, pty_fd)

    def exited(self, exec_id: str, *, exit_code: int, error: str = "") -> None:
        """The process has ended ("" is the main process); ``exit_code`` is 128 + signal when killed.

        An exec's end is published as an event and recorded; its state is kept
        for the last 256 of them. Descriptors close when they are drained.
        """
        process = self._main if exec_id == MAIN else self._execs[exec_id]
        process.end(exit_code, error)
        if process is not self._main:
            self._finished(process)

    def failed(self, exec_id: str, *, exit_code: int, error: str) -> None:
        """A process never started: remember it as finished, so that its ID answers."""
        if exec_id != MAIN and exec_id not in self._execs:
            self._new_exec(exec_id)
        self.exited(exec_id, exit_code=exit_code, error=error)

    def state(self, exec_id: str) -> ExecState | None:
        """What is known of an exec (or of the main process, ""): running, or one of the last to finish."""
        process = self._main if exec_id == MAIN else self._execs.get(exec_id)
        return None if process is None else process.state

    @property
    def running(self) -> int:
        """Execs that run now."""
        return sum(not process.over for process in self._execs.values())

    def resize(self, exec_id: str, *, rows: int, columns: int) -> None:
        """Set a pty's size; the workload gets SIGWINCH.

        Raises:
            KeyError: no such process.
            ValueError: it has no pty.
        """
        process = self._main if exec_id == MAIN else self._execs[exec_id]
        process.resize(rows, columns)

    def _new_exec(self, exec_id: str) -> _Process:
        if exec_id == MAIN or exec_id in self._execs:
            raise ValueError(f"exec {exec_id!r} is known")
        outputs = {
            stream: ExecOutput(self._loop, self._ring)
            for stream in (AttachOutput.STDOUT, AttachOutput.STDERR)
        }
        process = _Process(self._loop, exec_id, outputs)
        self._execs[exec_id] = process
        return process

    def _finished(self, process: _Process) -> None:
        self._recorder.record(Kind.EXEC, process.state.SerializeToString())
        if self._events is not None:
            self._events.publish(exec=process.state)
        over = [(exec_id, old) for exec_id, old in self._execs.items() if old.drained and not old.readers]
        kept = 0
        for _, old in reversed(over):
            kept += old.output_held
            if kept > _FINISHED_OUTPUT:
                old.drop_output()
        for exec_id, _ in over[:-_FINISHED]:
            del self._execs[exec_id]

    def _attach(self, request: AttachRequest, call: Call) -> None:
        process = self._main if request.exec_id == MAIN else self._execs.get(request.exec_id)
        if process is None:
            raise RpcError(Code.NOT_FOUND, f"no exec {request.exec_id}")
        wanted = {
            stream: process.outputs[stream]
            for stream, asked in (
                (AttachOutput.STDOUT, request.stdout),
                (AttachOutput.STDERR, request.stderr),
            )
            if asked
        }
        reader = Reader(call, wanted, process.stdin if request.stdin else None, process.detach)
        offsets = {AttachOutput.STDOUT: request.stdout_offset, AttachOutput.STDERR: request.stderr_offset}
        try:
            for stream, output in wanted.items():
                output.join(reader, offsets[stream])
        except ValueError as error:
            for output in wanted.values():
                output.leave(reader)
            raise RpcError(Code.OUT_OF_RANGE, str(error)) from error
        call.respond(Empty())
        process.attach(reader)

    def _list(self, _: Empty) -> ExecListReply:
        return ExecListReply(execs=[process.state for process in self._execs.values()])
