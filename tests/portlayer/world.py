"""A host in memory: fakes of the rooms that behave, for tests of execution, interaction and service.

The durable half (VMs, journals in real files, disks) survives a restart of the
port layer; the volatile half (leases, taps, channels) does not. Every call of a
room can be made to fail: see :class:`Faults`.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from portlayer.channel import ChannelClosed, ChannelLost, TetherError
from portlayer.errors import PortLayerError
from portlayer.execution.events import EventHub
from portlayer.execution.house import House, Timeouts
from portlayer.execution.manager import Execution
from portlayer.execution.registry import Registry
from portlayer.execution.rooms import Attachment, PluggedNic, Rooms
from portlayer.hypervisor.base import (
    Capabilities,
    ConcurrentAccess,
    HypervisorError,
    InvalidState,
    Nic,
    NoSuchVm,
    PowerState,
    VmConfig,
    VmEvent,
    VmEventKind,
    VmInfo,
)
from portlayer.journal.watcher import JournalWatcher
from portlayer.portlayer_pb2 import (
    ContainerSpec,
    Endpoint,
    Handle,
    Network,
    PortBinding,
    PortlayerEvent,
    Reason,
    RestartPolicy,
    VolumeMount,
)
from tether.journal import JournalWriter, Kind
from tether.tether_pb2 import (
    AttachInput,
    AttachOutput,
    AttachRequest,
    Empty,
    Event,
    ExecListReply,
    ExecReply,
    ExecRequest,
    ExecState,
    HelloReply,
    Interface,
    MainState,
    NetworkEvent,
    NetworkSetRequest,
    PathStat,
    Process,
    Resolver,
    SignalRequest,
    StatPathRequest,
    Stats,
    TimeSetReply,
    TopReply,
    UpdateRequest,
)
from tether.wire import Code
from vch.config import Guest, VchConfig

NETWORK = "a" * 64
OTHER_NETWORK = "b" * 64


class Injected(HypervisorError):
    """A fault that a test asked for."""


class Faults:
    """Counts the rooms' calls; makes the one a test names fail."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fail_at: int | None = None
        self.fail_on: dict[str, Exception] = {}

    def start(self, fail_at: int | None = None) -> None:
        self.calls = []
        self.fail_at = fail_at

    def __call__(self, name: str) -> None:
        self.calls.append(name)
        if self.fail_at is not None and len(self.calls) - 1 == self.fail_at:
            raise Injected(f"injected into {name}")
        if name in self.fail_on:
            raise self.fail_on[name]


class Clock:
    """Time that moves only when a test says so; ``now`` grows by a little with every look."""

    def __init__(self) -> None:
        self.time = 1_700_000_000 * 10**9
        self.sleeps: list[float] = []
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []
        self.asked = asyncio.Event()

    def now(self) -> int:
        self.time += 1000
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((seconds, future))
        self.asked.set()
        await future

    async def slept(self) -> float:
        """Wait until somebody sleeps, then wake all sleepers; how long the last wanted to."""
        await self.asked.wait()
        self.asked.clear()
        for seconds, future in self._sleepers:
            self.time += int(seconds * 1e9)
            if not future.done():
                future.set_result(None)
        self._sleepers.clear()
        return self.sleeps[-1]


# ---------------------------------------------------------------- the guest


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


class FakeStream:
    """Both directions of a call with data."""

    def __init__(self, channel: FakeChannel, method: str, request: Any) -> None:
        self.channel = channel
        self.method = method
        self.request = request
        self.sent: list[bytes] = []
        self.ended = asyncio.Event()
        self._frames = channel.guest_stream(method, request, self)

    async def __aenter__(self) -> FakeStream:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.cancel()

    async def response(self, reply: type[Any]) -> Any:
        first = await anext(self._frames)
        if isinstance(first, Exception):
            raise first
        return first

    async def receive(self) -> bytes:
        async for frame in self._frames:
            if isinstance(frame, Exception):
                raise frame
            return frame if isinstance(frame, bytes) else frame.SerializeToString()
        return b""

    async def send(self, data: bytes, *, end: bool = False) -> None:
        self.channel.check()
        self.sent.append(data)
        if self.method == "Attach":
            self.channel.input(self.request, AttachInput.FromString(data))
        if end:
            self.ended.set()

    async def cancel(self) -> None:
        await self._frames.aclose()


class FakeChannel:
    def __init__(self, guest: Callable[[], FakeGuest | None]) -> None:
        self._guest = guest
        self._closed = asyncio.Event()
        self._cut = asyncio.Event()  # cut once: everything under way is lost
        self.calls: list[str] = []

    @property
    def guest(self) -> FakeGuest:
        guest = self._guest()
        if guest is None or self._closed.is_set():
            raise ChannelClosed("closed")
        return guest

    def check(self) -> None:
        _ = self.guest

    def cut(self) -> None:
        self._cut.set()
        self._cut = asyncio.Event()

    async def start(self) -> None: ...

    async def close(self) -> None:
        self._closed.set()
        self.cut()

    async def _up(self) -> FakeGuest:
        guest = self.guest
        while guest.deaf or guest.state.state == MainState.UNKNOWN:
            await self._until(guest.news.wait())
        return guest

    async def _until(self, awaitable: Awaitable[Any]) -> None:
        task = asyncio.ensure_future(awaitable)
        closed = asyncio.ensure_future(self._closed.wait())
        try:
            await asyncio.wait({task, closed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            task.cancel()
            closed.cancel()
        if self._closed.is_set():
            raise ChannelClosed("closed")

    async def ready(self) -> HelloReply:
        guest = await self._up()
        return HelloReply(protocol=1, main=guest.state)

    async def call(self, method: str, request: Any, reply: type[Any], *, timeout: float = 30) -> Any:
        self.calls.append(method)
        try:
            async with asyncio.timeout(timeout):
                guest = await self._up()
        except TimeoutError as error:
            raise TetherError(Code.DEADLINE_EXCEEDED, "no answer") from error
        return guest.handle(method, request)

    async def stream(self, method: str, request: Any) -> FakeStream:
        await self._up()
        return FakeStream(self, method, request)

    async def guest_stream(self, method: str, request: Any, stream: FakeStream) -> AsyncIterator[Any]:
        cut = self._cut
        guest = self.guest
        if method == "WatchStats":
            yield Stats(time=1)
            yield Stats(time=2)
            return
        if method == "CopyOut":
            if request.path not in guest.files:
                yield TetherError(Code.NOT_FOUND, "no such file")
                return
            yield PathStat(name=request.path, size=len(guest.files[request.path]))
            yield guest.files[request.path]
            return
        if method == "CopyIn":
            await stream.ended.wait()
            guest.files[request.path] = b"".join(stream.sent)
            yield Empty()
            return
        assert isinstance(request, AttachRequest)
        yield Empty()
        if request.stdin:
            yield AttachOutput(stream=AttachOutput.STDIN_ACK, offset=len(guest.stdin))
        sent = 0
        acknowledged = len(guest.stdin)
        offsets = {AttachOutput.STDOUT: request.stdout_offset, AttachOutput.STDERR: request.stderr_offset}
        while True:
            if cut.is_set():
                yield ChannelClosed("closed") if self._closed.is_set() else ChannelLost("cut")
                return
            if request.stdin and guest.taking_stdin and len(guest.stdin) != acknowledged:
                acknowledged = len(guest.stdin)
                yield AttachOutput(stream=AttachOutput.STDIN_ACK, offset=acknowledged)
            output = guest.exec_output.get(request.exec_id, [])
            while sent < len(output):
                frame = output[sent]
                sent += 1
                if frame.stream == AttachOutput.EXITED:
                    yield frame
                    return
                if frame.offset >= offsets[frame.stream]:
                    yield frame
            waiting = [asyncio.ensure_future(guest.news.wait()), asyncio.ensure_future(cut.wait())]
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in waiting:
                    task.cancel()

    def input(self, request: AttachRequest, message: AttachInput) -> None:
        guest = self.guest
        new = message.data[max(0, len(guest.stdin) - message.offset) :]
        assert message.offset <= len(guest.stdin), "input with a hole"
        guest.stdin += new
        guest.stdin_closed = guest.stdin_closed or message.close
        guest.stir()

    async def events(self) -> AsyncIterator[Event]:
        seen = 0
        while True:
            guest = self.guest
            news = guest.news
            if guest.deaf or seen >= len(guest.events):
                await self._until(news.wait())
                continue
            yield guest.events[seen]
            seen += 1


# ---------------------------------------------------------------- the rooms


@dataclass
class FakeVm:
    config: VmConfig
    journal: Path
    host: World
    version: int = 1
    power: PowerState = PowerState.OFF
    guest: FakeGuest | None = None
    console: bytes = b""
    snapshots: set[str] = field(default_factory=set)

    def info(self) -> VmInfo:
        pid = 4242 if self.power is not PowerState.OFF else 0
        return VmInfo(config=self.config, version=self.version, power=self.power, pid=pid)

    def off(self, detail: str) -> None:
        if self.power is not PowerState.OFF:
            self.power = PowerState.OFF
            self.host.hypervisor.emit(VmEvent(id=self.config.id, kind=VmEventKind.POWERED_OFF, detail=detail))


class FakeHypervisor:
    """VMs that outlive the port layer."""

    def __init__(self, host: World, root: Path) -> None:
        self.host = host
        self.root = root
        self.vms: dict[str, FakeVm] = {}
        self._watchers: list[asyncio.Queue[VmEvent]] = []
        self.suspend_emits = True

    def emit(self, event: VmEvent) -> None:
        for queue in self._watchers:
            queue.put_nowait(event)

    def _vm(self, vm: str) -> FakeVm:
        if vm not in self.vms:
            raise NoSuchVm(vm)
        return self.vms[vm]

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def capabilities(self) -> Capabilities:
        return CAPABILITIES

    async def create(self, config: VmConfig) -> VmInfo:
        self.host.faults("hypervisor.create")
        directory = self.root / config.id
        directory.mkdir()
        self.vms[config.id] = FakeVm(config, directory / "journal", self.host)
        return self.vms[config.id].info()

    async def configure(self, config: VmConfig, *, version: int) -> VmInfo:
        self.host.faults("hypervisor.configure")
        vm = self._vm(config.id)
        if version != vm.version:
            raise ConcurrentAccess(f"{config.id}: version {version}, not {vm.version}")
        vm.config, vm.version = config, version + 1
        return vm.info()

    async def start(self, vm: str, *, snapshot: str | None = None) -> VmInfo:
        self.host.faults("hypervisor.start")
        machine = self._vm(vm)
        if machine.power is not PowerState.OFF:
            raise InvalidState(f"{vm} is on")
        machine.power = PowerState.ON
        machine.guest = FakeGuest(machine, self.host)
        self.emit(VmEvent(id=vm, kind=VmEventKind.POWERED_ON))
        if snapshot is None:
            self.host.script(machine.guest)
        else:
            assert snapshot in machine.snapshots
            machine.guest.go_on()
        return machine.info()

    async def power_off(self, vm: str) -> None:
        self.host.faults("hypervisor.power_off")
        self._vm(vm).off("power-off")

    async def suspend(self, vm: str) -> None:
        self.host.faults("hypervisor.suspend")
        machine = self._vm(vm)
        if machine.power is not PowerState.ON:
            raise InvalidState(f"{vm} is {machine.power.value}, not on")
        machine.power = PowerState.SUSPENDED
        self.emit(VmEvent(id=vm, kind=VmEventKind.SUSPENDED))

    async def resume(self, vm: str) -> None:
        self.host.faults("hypervisor.resume")
        machine = self._vm(vm)
        if machine.power is not PowerState.SUSPENDED:
            raise InvalidState(f"{vm} is {machine.power.value}, not suspended")
        machine.power = PowerState.ON
        self.emit(VmEvent(id=vm, kind=VmEventKind.RESUMED))

    async def snapshot(self, vm: str, name: str, *, stop: bool = False) -> None:
        self.host.faults("hypervisor.snapshot")
        machine = self._vm(vm)
        machine.snapshots.add(name)
        if stop:
            machine.off("power-off")

    async def snapshots(self, vm: str) -> list[str]:
        return sorted(self._vm(vm).snapshots)

    async def delete_snapshot(self, vm: str, name: str) -> None:
        self._vm(vm).snapshots.remove(name)

    async def clone(self, vm: str, config: VmConfig) -> VmInfo:
        raise NotImplementedError

    async def delete(self, vm: str) -> None:
        self.host.faults("hypervisor.delete")
        machine = self.vms.pop(vm, None)
        if machine is not None:
            assert machine.power is PowerState.OFF
            for path in machine.journal.parent.iterdir():
                path.unlink()
            machine.journal.parent.rmdir()

    async def list(self) -> list[VmInfo]:
        return [vm.info() for vm in self.vms.values()]

    async def get(self, vm: str) -> VmInfo:
        return self._vm(vm).info()

    async def watch(self) -> AsyncIterator[VmEvent]:
        queue: asyncio.Queue[VmEvent] = asyncio.Queue()
        self._watchers.append(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._watchers.remove(queue)

    async def add_nic(self, vm: str, nic: Nic) -> None:
        self.host.faults("hypervisor.add_nic")
        machine = self._vm(vm)
        machine.config = replace(machine.config, nics=[*machine.config.nics, nic])
        machine.version += 1

    async def remove_nic(self, vm: str, nic_id: str) -> None:
        self.host.faults("hypervisor.remove_nic")
        machine = self._vm(vm)
        machine.config = replace(machine.config, nics=[n for n in machine.config.nics if n.id != nic_id])
        machine.version += 1

    async def add_disk(self, vm: str, disk: Any) -> None:
        raise NotImplementedError

    async def remove_disk(self, vm: str, disk_id: str) -> None:
        raise NotImplementedError

    async def open_channel(self, vm: str) -> Any:
        raise NotImplementedError

    def journal(self, vm: str) -> Path:
        return self.root / vm / "journal"

    async def rotate_journal(self, vm: str, *, keep: int) -> None:
        rotate(self.journal(vm), keep)

    async def console(self, vm: str, *, limit: int = 65536) -> bytes:
        return self._vm(vm).console[-limit:]


def rotate(journal: Path, keep: int) -> None:
    """As the hypervisor does: older files move up, at most ``keep`` stay."""
    files = [journal, *(journal.with_name(f"{journal.name}.{n}") for n in range(1, 50))]
    for number in range(len(files) - 2, -1, -1):
        if files[number].exists():
            if number + 1 > keep:
                files[number].unlink()
            else:
                files[number].rename(files[number + 1])
    journal.touch()


CAPABILITIES = Capabilities(
    name="fake",
    version="1",
    accelerator="none",
    profile="fast",
    hot_add_nic=True,
    hot_add_disk=True,
    max_disks=8,
    max_nics=4,
    max_shares=4,
)


class FakeNetwork:
    """Leases, taps and ports in memory, as strict as the real one about twins."""

    def __init__(self, host: World) -> None:
        self.host = host
        self.leases: dict[tuple[str, str], Endpoint] = {}
        self.taps: dict[tuple[str, str], str] = {}
        self.ports: dict[tuple[int, str], str] = {}
        self.opened: list[Attachment] = []
        self.names: list[str] = []
        self._addresses = itertools.count(2)
        self._free_ports = itertools.count(49153)

    async def open(self, containers: Sequence[Attachment]) -> None:
        self.opened = list(containers)
        for attachment in containers:
            for endpoint in attachment.endpoints:
                if endpoint.endpoint_id:
                    self.leases[attachment.container, endpoint.network] = endpoint
                if attachment.running:
                    self.taps[attachment.container, endpoint.network] = _tap(attachment.container, endpoint)
            for port in attachment.ports:
                self.ports[port.assigned_port, port.protocol] = attachment.container

    async def close(self) -> None: ...

    def get(self, ref: str) -> Network:
        if ref not in (NETWORK, OTHER_NETWORK):
            raise PortLayerError(Reason.NO_SUCH_NETWORK, f"network {ref} not found")
        return Network(id=ref, name="bridge")

    def list(self) -> list[Network]:
        return [self.get(NETWORK), self.get(OTHER_NETWORK)]

    async def create(self, network: Network) -> Network:
        return Network(id="c" * 64, name=network.name)

    async def remove(self, ref: str) -> None:
        self.get(ref)

    def allocate(self, container: str, name: str, endpoint: Endpoint) -> Endpoint:
        self.host.faults("network.allocate")
        self.get(endpoint.network)
        held = {lease.assigned_ipv4 for lease in self.leases.values()}
        address = endpoint.ipv4 or f"172.30.0.{next(self._addresses)}"
        if f"{address}/24" in held:
            raise PortLayerError(Reason.ADDRESS_IN_USE, f"Address {address} already in use")
        lease = Endpoint()
        lease.CopyFrom(endpoint)
        lease.assigned_ipv4 = f"{address}/24"
        lease.assigned_mac = "02:00:00:00:00:01"
        lease.gateway_ipv4 = "172.30.0.1"
        lease.endpoint_id = f"ep-{container[:4]}-{endpoint.network[:4]}"
        self.leases[container, endpoint.network] = lease
        return lease

    def release(self, container: str, network: str | None = None) -> None:
        for key in list(self.leases):
            if key[0] == container and network in (None, key[1]):
                del self.leases[key]

    def reserve_ports(self, container: str, ports: Sequence[PortBinding]) -> list[PortBinding]:
        self.host.faults("network.reserve_ports")
        reserved = []
        for port in ports:
            number = port.host_port or next(self._free_ports)
            if self.ports.get((number, port.protocol), container) != container:
                raise PortLayerError(Reason.PORT_IN_USE, f"port {number} is already allocated")
            bound = PortBinding()
            bound.CopyFrom(port)
            bound.assigned_port = number
            reserved.append(bound)
        for port in reserved:
            self.ports[port.assigned_port, port.protocol] = container
        return reserved

    def release_ports(self, container: str) -> None:
        self.ports = {key: holder for key, holder in self.ports.items() if holder != container}

    async def plug(self, attachment: Attachment) -> list[PluggedNic]:
        self.host.faults("network.plug")
        nics = []
        for endpoint in attachment.endpoints:
            assert endpoint.endpoint_id, "plugged without a lease"
            tap = _tap(attachment.container, endpoint)
            self.taps[attachment.container, endpoint.network] = tap
            nics.append(
                PluggedNic(
                    tap=tap,
                    mac=endpoint.assigned_mac,
                    bridge=f"mr{endpoint.network[:10]}",
                    network=endpoint.network,
                    mtu=1500,
                )
            )
        return nics

    async def unplug(self, container: str, network: str | None = None) -> None:
        self.host.faults("network.unplug")
        for key in list(self.taps):
            if key[0] == container and network in (None, key[1]):
                del self.taps[key]

    def interfaces(self, attachment: Attachment) -> tuple[list[Interface], Resolver]:
        found = [
            Interface(mac=e.assigned_mac, name=f"eth{n}", addresses=[e.assigned_ipv4])
            for n, e in enumerate(attachment.endpoints)
        ]
        return found, Resolver(servers=["172.30.0.1"])

    def update_names(self, attachment: Attachment) -> None:
        self.names.append(attachment.name)


def _tap(container: str, endpoint: Endpoint) -> str:
    return f"mt{container[:8]}{endpoint.network[:2]}"


@dataclass(frozen=True)
class FakeLayer:
    chain_id: str


class FakeImages:
    def __init__(self) -> None:
        self.layers = {f"sha256:{'1' * 64}"}

    def get(self, chain_id: str) -> FakeLayer:
        if chain_id not in self.layers:
            raise PortLayerError(Reason.NO_SUCH_LAYER, f"no such layer: {chain_id}")
        return FakeLayer(chain_id)


@dataclass
class FakeTree:
    files: dict[bytes, bytes]
    writable: bool

    async def stat(self, path: bytes) -> PathStat:
        if path not in self.files:
            raise PortLayerError(Reason.NO_SUCH_PATH, f"{path!r}: no such file")
        return PathStat(name=path, size=len(self.files[path]))

    async def copy_out(self, path: bytes) -> AsyncIterator[bytes]:
        yield self.files[path]

    async def copy_in(self, path: bytes, chunks: AsyncIterator[bytes], **_: bool | str) -> None:
        assert self.writable
        self.files[path] = b"".join([chunk async for chunk in chunks])


class FakeDisks:
    def __init__(self, host: World) -> None:
        self.host = host
        self.disks: dict[str, dict[bytes, bytes]] = {}
        self.mounted: list[tuple[str, tuple[Any, ...], bool]] = []
        self.pictures: list[str] = []  # copies that exist

    async def open(self, live: Collection[str]) -> None:
        self.disks = {name: files for name, files in self.disks.items() if name in live}

    async def create(self, container: str, *, layer: str, disk_bytes: int) -> Path:
        self.host.faults("disks.create")
        self.disks[container] = {}
        return self.path(container)

    async def remove(self, container: str) -> None:
        self.host.faults("disks.remove")
        self.disks.pop(container, None)

    def path(self, container: str) -> Path:
        return Path("/disks") / container

    async def size(self, container: str) -> tuple[int, int]:
        return 10, 100

    @asynccontextmanager
    async def offline(
        self, container: str, *, volumes: Sequence[Any] = (), writable: bool
    ) -> AsyncIterator[FakeTree]:
        self.mounted.append((container, tuple(volumes), writable))
        yield FakeTree(self.disks[container], writable)

    @asynccontextmanager
    async def picture(self, container: str) -> AsyncIterator[Path]:
        self.host.faults("disks.picture")
        self.pictures.append(container)
        try:
            yield Path("/pictures") / container
        finally:
            self.pictures.remove(container)

    async def diff(self, container: str, *, picture: Path | None = None) -> list[tuple[bytes, int]]:
        return [(b"/etc/x", 1)]

    async def export_diff(self, container: str, *, picture: Path | None = None) -> AsyncIterator[bytes]:
        yield b"of a picture" if picture else b"of the disk"


@dataclass(frozen=True)
class FakeVolume:
    path: Path
    shared: bool = False
    device: str = ""
    device_read_only: bool = False


class FakeVolumes:
    def __init__(self) -> None:
        self.names = {"data", "other"}

    def get(self, name: str) -> FakeVolume:
        if name not in self.names:
            raise PortLayerError(Reason.NO_SUCH_VOLUME, f"get {name}: no such volume")
        return FakeVolume(Path("/volumes") / name)


class Lifeline:
    """A room as one port layer sees it. After its death no call of it does anything any more:
    a killed process does not clean up."""

    def __init__(self, room: Any) -> None:
        self._room = room
        self.alive = True

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._room, name)
        if not callable(value):
            return value

        def call(*arguments: Any, **options: Any) -> Any:
            if not self.alive:
                raise asyncio.CancelledError
            return value(*arguments, **options)

        return call


# ---------------------------------------------------------------- all of it


def run_and_wait(guest: FakeGuest) -> None:
    """The usual guest: runs until it is told to end."""
    guest.run()


@dataclass
class World:
    """``boot`` starts a port layer on this host; ``crash`` takes it away without a word."""

    root: Path
    config: VchConfig = field(init=False)
    script: Callable[[FakeGuest], None] = run_and_wait
    timeouts: Timeouts = field(default_factory=lambda: Timeouts(boot=30, power_off=30, call=30, signal=30))

    def __post_init__(self) -> None:
        self.faults = Faults()
        self.clock = Clock()
        self.hypervisor = FakeHypervisor(self, self.root)
        self.images = FakeImages()
        self.disks = FakeDisks(self)
        self.volumes = FakeVolumes()
        self.network = FakeNetwork(self)
        self.channels: dict[str, FakeChannel] = {}
        self.config = VchConfig(
            name="test",
            id="0" * 32,
            root=self.root,
            run=self.root,
            guest=Guest(kernel=self.root / "kernel", initrd=self.root / "initrd"),
        )
        self.execution: Execution | None = None

    async def boot(self) -> Execution:
        self.network = FakeNetwork(self)
        self._lifelines = [Lifeline(room) for room in (self.hypervisor, self.disks, self.network)]
        hypervisor, disks, network = self._lifelines
        rooms = Rooms(
            hypervisor=hypervisor,
            capabilities=CAPABILITIES,
            images=self.images,
            disks=disks,
            volumes=self.volumes,
            network=network,
            channel=self._channel,
        )
        house = House(
            config=self.config,
            rooms=rooms,
            registry=Registry(self.config),
            hub=EventHub(self.clock.now),
            watcher=JournalWatcher(),
            clock=self.clock,
            timeouts=self.timeouts,
        )
        self.execution = Execution(house)
        self._subscription = house.hub.subscribe()
        await self.execution.open()
        return self.execution

    async def crash(self) -> None:
        """kill -9 of the port layer: nothing of it gets to say anything."""
        assert self.execution is not None
        house = self.execution.house
        for lifeline in self._lifelines:
            lifeline.alive = False
        for task in [*house._operations, *house._background]:
            task.cancel()
        await self.execution._power.supervisor.close()
        house.watcher.close()
        self.execution = None

    async def close(self) -> None:
        if self.execution is not None:
            await self.execution.close()

    def _channel(self, connect: Any, name: str) -> FakeChannel:
        def guest() -> FakeGuest | None:
            for identifier, vm in self.hypervisor.vms.items():
                if identifier.startswith(name):
                    return vm.guest if vm.power is not PowerState.OFF else None
            return None

        self.channels[name] = FakeChannel(guest)
        return self.channels[name]

    # -- shortcuts
    def vm(self, identifier: str) -> FakeVm:
        return self.hypervisor.vms[identifier]

    def guest(self, identifier: str) -> FakeGuest:
        guest = self.vm(identifier).guest
        assert guest is not None
        return guest

    def channel(self, identifier: str) -> FakeChannel:
        return self.channels[identifier[:12]]

    async def next_event(self) -> PortlayerEvent:
        return await anext(self._subscription)

    def spec(self, name: str = "web", **fields: Any) -> ContainerSpec:
        fields.setdefault("process", Process(argv=["/bin/server"]))
        fields.setdefault("endpoints", [Endpoint(network=NETWORK)])
        return ContainerSpec(name=name, **fields)

    async def create(self, identifier: str = "", **fields: Any) -> str:
        assert self.execution is not None
        identifier = identifier or os.urandom(32).hex()
        await self.execution.commit(Handle(id=identifier, spec=self.spec(**fields)))
        return identifier

    async def running(self, identifier: str = "", **fields: Any) -> str:
        assert self.execution is not None
        identifier = await self.create(identifier, **fields)
        await self.execution.start(identifier)
        return identifier


def always(condition: Any = RestartPolicy.ALWAYS, retries: int = 0) -> RestartPolicy:
    return RestartPolicy(condition=condition, maximum_retries=retries)


def mount(volume: str = "data", destination: str = "/data", *, read_only: bool = False) -> VolumeMount:
    return VolumeMount(volume=volume, destination=destination, read_only=read_only)
