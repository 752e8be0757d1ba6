"""One boot of one VM, as the guest inside: what it does is up to the test's script."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from portlayer.channel import TetherError
from portlayer.hypervisor.base import (
    PowerState,
)
from tether.journal import JournalWriter, Kind
from tether.tether_pb2 import (
    AttachOutput,
    Empty,
    Event,
    ExecListReply,
    ExecReply,
    ExecRequest,
    ExecState,
    MainState,
    NetworkEvent,
    NetworkSetRequest,
    PathStat,
    SignalRequest,
    StatPathRequest,
    TimeSetReply,
    TopReply,
    UpdateRequest,
)
from tether.wire import Code

if TYPE_CHECKING:
    from tests.portlayer.fakes.hypervisor import FakeVm
    from tests.portlayer.world import World


class FakeGuest:
    """One boot of one VM. What it does is up to the test's ``script``."""

    def __init__(self, machine: FakeVm, host: World) -> None:
        self.vm = machine
        self.host = host
        self.writer = JournalWriter()
        self.events: list[Event] = []
        self.state = MainState()
        self.signals: list[int] = []
        self.stdin = bytearray()
        self.stdin_closed = False
        self.taking_stdin = True
        self.execs: dict[str, ExecState] = {}
        self.exec_output: dict[str, list[AttachOutput]] = {}
        self.network_sets: list[NetworkSetRequest] = []
        self.updates: list[UpdateRequest] = []
        self.answers: dict[str, Any] = {}  # method -> reply, exception or callable
        self.deaf = False  # answers nothing
        self.ignores: set[int] = set()
        self.times: list[int] = []
        self.frozen = False
        self.seeds: list[bytes] = []
        self.files: dict[bytes, bytes] = {}
        self.news = asyncio.Event()

    # what a guest does
    def write(self, kind: int, body: bytes, *, stream: int = 0, at: int | None = None) -> None:
        record = self.writer.record(kind, body, stream=stream, at=at or self.host.clock.now())
        self.raw(record)

    def raw(self, data: bytes) -> None:
        with self.vm.journal.open("ab") as file:
            file.write(data)

    def boot(self) -> None:
        self.raw(self.writer.boot(os.urandom(16)))

    def output(self, data: bytes, stream: int = 1) -> None:
        self.write(Kind.OUTPUT, data, stream=stream)

    def run(self) -> None:
        self.boot()
        self.state = MainState(state=MainState.RUNNING, pid=7, started_at=self.host.clock.now())
        self.write(Kind.STARTED, self.state.SerializeToString())
        self.publish(Event(main=self.state))

    def go_on(self) -> None:
        """From a snapshot: it runs, and its journal has nothing to say about it."""
        self.state = MainState(state=MainState.RUNNING, pid=7, started_at=1)

    def publish(self, event: Event) -> None:
        event.sequence = len(self.events) + 1
        event.time = event.time or self.host.clock.now()
        self.events.append(event)
        self.stir()

    def stir(self) -> None:
        self.news.set()
        self.news = asyncio.Event()

    def exit(self, code: int = 0, *, oom: bool = False) -> None:
        if self.vm.power is PowerState.OFF:
            return
        self.state = MainState(
            state=MainState.EXITED,
            started_at=self.state.started_at,
            finished_at=self.host.clock.now(),
            exit_code=code,
            oom_killed=oom,
        )
        self.write(Kind.EXITED, self.state.SerializeToString())
        self.publish(Event(main=self.state))
        self.vm.off("guest-shutdown")

    def fail(self, code: int, words: str) -> None:
        self.boot()
        self.state = MainState(state=MainState.FAILED, exit_code=code, error=words)
        self.write(Kind.FAILED, self.state.SerializeToString())
        self.publish(Event(main=self.state))
        self.vm.off("guest-shutdown")

    def crash(self) -> None:
        self.vm.off("crashed: qemu is gone")

    # what it answers
    def handle(self, method: str, request: Any) -> Any:
        if method in self.answers:
            answer = self.answers[method]
            if isinstance(answer, Exception):
                raise answer
            return answer(request) if callable(answer) else answer
        return getattr(self, f"_{method.lower()}")(request)

    def _signal(self, request: SignalRequest) -> Empty:
        self.signals.append(request.signal)
        if request.signal not in self.ignores:
            self.exit(128 + request.signal)
        return Empty()

    def _shutdown(self, request: Any) -> Empty:
        self.signals.append(-1)
        if -1 not in self.ignores:
            self.exit(137)
        return Empty()

    def _freeze(self, request: Any) -> Empty:
        self.frozen = True
        return Empty()

    def _thaw(self, request: Any) -> Empty:
        self.frozen = False
        return Empty()

    def _timeset(self, request: Any) -> TimeSetReply:
        self.times.append(request.time)
        return TimeSetReply()

    def _exec(self, request: ExecRequest) -> ExecReply:
        if request.process.argv[0] == "missing":
            raise TetherError(Code.NOT_FOUND, 'exec: "missing": executable file not found in $PATH')
        self.execs[request.exec_id] = ExecState(exec_id=request.exec_id, running=True, pid=99)
        self.exec_output.setdefault(request.exec_id, [])
        return ExecReply(pid=99)

    def _execlist(self, request: Any) -> ExecListReply:
        return ExecListReply(execs=self.execs.values())

    def _networkset(self, request: NetworkSetRequest) -> NetworkEvent:
        self.network_sets.append(request)
        return NetworkEvent(up=True)

    def _update(self, request: UpdateRequest) -> Empty:
        self.updates.append(request)
        return Empty()

    def _entropy(self, request: Any) -> Empty:
        self.seeds.append(request.seed)
        return Empty()

    def _top(self, request: Any) -> TopReply:
        return TopReply()

    def _resize(self, request: Any) -> Empty:
        return Empty()

    def _statpath(self, request: StatPathRequest) -> PathStat:
        if request.path not in self.files:
            raise TetherError(Code.NOT_FOUND, f"{request.path!r}: no such file")
        return PathStat(name=request.path, size=len(self.files[request.path]))
