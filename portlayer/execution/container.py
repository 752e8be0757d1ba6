"""One container as the port layer holds it: its record, its state, who waits for it.

Everything durable is in :attr:`Container.record` (saved with the VM); the rest is
rebuilt after a restart from the hypervisor, the journal and the guest. The
status changes only through :meth:`Container.move`.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from portlayer.execution.record import Record
from portlayer.execution.restart import Backoff
from portlayer.execution.rooms import Attachment, Channel
from portlayer.execution.states import LIVE, Status, check_move
from portlayer.hypervisor.base import VmInfo
from portlayer.portlayer_pb2 import ContainerSpec, ContainerState, Handle, HealthProbe, WaitReply, WaitRequest
from tether.tether_pb2 import ExecState, HealthEvent, MainState, Resolver

__all__ = ["Container", "Health", "Run"]

_MOST_PROBES = 5
_MOST_EXECS = 256


@dataclass
class Health:
    """The guest's health probes, as far as it has told."""

    status: HealthEvent.Status.ValueType = HealthEvent.NONE
    failing_streak: int = 0
    probes: deque[HealthProbe] = field(default_factory=lambda: deque(maxlen=_MOST_PROBES))

    def take(self, event: HealthEvent) -> bool:
        """True when the status changed."""
        changed = event.status != self.status
        self.status = event.status
        self.failing_streak = event.failing_streak
        if event.finished_at:
            self.probes.append(
                HealthProbe(
                    started_at=event.started_at,
                    finished_at=event.finished_at,
                    exit_code=event.exit_code,
                    output=event.output[:4096],
                )
            )
        return changed


class Run:
    """One boot of a container's VM, from the decision to start it to its recorded end."""

    def __init__(self, *, previous: Status) -> None:
        self.previous = previous  # what the container is again when the start fails
        self.channel: Channel | None = None
        self.started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.spoke = asyncio.Event()  # the guest has said how the launch went
        self.reported = asyncio.Event()  # the guest has said how its process ended
        self.ended = asyncio.Event()  # the exit is recorded and everything is unplugged
        self.off = asyncio.Event()  # the VM has no power
        self.off_detail = ""
        self.report: MainState | None = None  # EXITED or FAILED as the guest said
        self.begun = False  # the process ran
        self.cut = ""  # why we cut the power, if we did
        self.killed = False  # a user did: the exit needs no further explanation
        self.console = ""  # the guest's last words when we had to cut its power
        self.adopted_at = 0  # found running at start-up: events before this are old news
        self.restart_cancelled = False  # a user stopped it: no automatic restart
        self.supervisor: asyncio.Task[None] | None = None

    def fail(self, error: BaseException) -> None:
        if not self.started.done():
            self.started.set_exception(error)
            self.started.exception()  # retrieved: nobody has to listen

    def succeed(self) -> None:
        if not self.started.done():
            self.started.set_result(None)


class Container:
    def __init__(self, identifier: str, record: Record, status: Status) -> None:
        self.id = identifier
        self.record = record
        self._status = status
        self.vm: VmInfo | None = None  # None until hypervisor.create has returned
        self.lock = asyncio.Lock()  # one transition at a time
        self.run: Run | None = None
        self.backoff = Backoff()
        self.restart_task: asyncio.Task[None] | None = None
        self.health = Health()
        self.execs: OrderedDict[str, ExecState] = OrderedDict()  # ended ones, the newest last
        self.problem = ""  # why it is DEAD
        self._exit_waiters: set[asyncio.Future[WaitReply]] = set()
        self._removal_waiters: set[asyncio.Future[WaitReply]] = set()
        self._movement: asyncio.Future[None] | None = None

    # -- what it is
    @property
    def spec(self) -> ContainerSpec:
        return self.record.spec

    @property
    def name(self) -> str:
        return self.record.spec.name

    @property
    def status(self) -> Status:
        return self._status

    @property
    def live(self) -> bool:
        return self._status in LIVE

    def move(self, status: Status) -> None:
        if status is self._status:
            return
        check_move(self._status, status)
        self._status = status
        if self._movement is not None:
            self._movement.set_result(None)
            self._movement = None

    async def moved(self) -> None:
        """Wait for the next change of the status. Look at it first: nothing waits in between."""
        if self._movement is None:
            self._movement = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._movement)

    def handle(self) -> Handle:
        return Handle(id=self.id, change_version=self.record.state.revision, spec=self.record.spec)

    def state(self) -> ContainerState:
        lasting = self.record.state
        return ContainerState(
            status=self._status.value,
            pid=self.vm.pid if self.vm is not None and self.live else 0,
            started_at=lasting.started_at,
            finished_at=lasting.finished_at,
            exit_code=lasting.exit_code,
            oom_killed=lasting.oom_killed,
            error=self.problem or lasting.error,
            restart_count=lasting.restart_count,
            health=self.health.status,
            failing_streak=self.health.failing_streak,
            probes=self.health.probes,
        )

    def attachment(self, *, running: bool) -> Attachment:
        """For the network room. A stopped container holds no ports."""
        spec = self.record.spec
        resolver = Resolver()
        resolver.CopyFrom(spec.resolver)
        return Attachment(
            container=self.id,
            name=spec.name,
            hostname=spec.hostname,
            endpoints=list(spec.endpoints),
            ports=list(spec.ports) if running else [],
            running=running,
            resolver=resolver,
        )

    def remember_exec(self, state: ExecState) -> None:
        self.execs.pop(state.exec_id, None)
        self.execs[state.exec_id] = state
        while len(self.execs) > _MOST_EXECS:
            self.execs.popitem(last=False)

    # -- who waits
    def arm_wait(self, condition: WaitRequest.Condition.ValueType) -> asyncio.Future[WaitReply]:
        """A future of the answer. From here on no exit can be missed."""
        future: asyncio.Future[WaitReply] = asyncio.get_running_loop().create_future()
        running = self.live or self._status is Status.RESTARTING
        if condition == WaitRequest.NOT_RUNNING and not running:
            future.set_result(self._answer())
        elif condition == WaitRequest.REMOVED:
            self._removal_waiters.add(future)
            future.add_done_callback(self._removal_waiters.discard)
        else:
            self._exit_waiters.add(future)
            future.add_done_callback(self._exit_waiters.discard)
        return future

    def notify_exit(self) -> None:
        self._resolve(self._exit_waiters)

    def notify_removed(self) -> None:
        if self._movement is not None:
            self._movement.set_result(None)
            self._movement = None
        self._resolve(self._exit_waiters)
        self._resolve(self._removal_waiters)

    def _resolve(self, waiters: set[asyncio.Future[WaitReply]]) -> None:
        for future in list(waiters):
            if not future.done():
                future.set_result(self._answer())

    def _answer(self) -> WaitReply:
        return WaitReply(exit_code=self.record.state.exit_code, error=self.record.state.error)
