"""The verbs of tether.proto, translated into calls on the Vm. No decisions are made here."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from tether.call import Call, RpcError
from tether.clock import add_entropy, set_time
from tether.diagnostics import diagnose, resident_bytes
from tether.execs import MAX_SESSIONS
from tether.linux import SyscallError
from tether.network import NetworkError
from tether.processes import list_processes
from tether.server import Server
from tether.signals import send_signal
from tether.stats import Sampler
from tether.storage import mount_points
from tether.tether_pb2 import (
    CopyInRequest,
    CopyOutRequest,
    DiagnosticsReply,
    Empty,
    EntropyRequest,
    ExecRequest,
    FreezeRequest,
    HelloReply,
    HelloRequest,
    LaunchRequest,
    NetworkEvent,
    NetworkSetRequest,
    ResizeRequest,
    ShutdownRequest,
    SignalRequest,
    StatPathRequest,
    StatsRequest,
    TimeSetReply,
    TimeSetRequest,
    TopReply,
    UpdateRequest,
)
from tether.users import user_names
from tether.vm import Vm
from tether.wire import Code

if TYPE_CHECKING:
    from tether.files import Files

__all__ = ["Service"]

PROTOCOL = 1
VERSION = "0.1.0"
FEATURES = ["exec", "attach", "files", "stats", "health", "network", "freeze", "time", "entropy", "update"]
_NANO = 1_000_000_000
_SHORTEST_INTERVAL = _NANO // 10


class Service:
    """Register with `register`; say when the VM became ready with `ready`."""

    def __init__(self, vm: Vm) -> None:
        self._vm = vm
        self._sampler = Sampler(vm.container.cgroup)
        self._boot_ns = 0
        self._import_ns = 0

    def ready(self, *, boot_ns: int, import_ns: int) -> None:
        self._boot_ns = boot_ns
        self._import_ns = import_ns

    def register(self, server: Server) -> None:
        vm = self._vm
        vm.events.register(server)
        vm.sessions.register(server)
        server.deferred("StatPath", StatPathRequest, lambda request, call: self._files().stat(request, call))
        server.streaming(
            "CopyOut", CopyOutRequest, lambda request, call: self._files().copy_out(request, call)
        )
        server.deferred("CopyIn", CopyInRequest, lambda request, call: self._files().copy_in(request, call))
        server.unary("Hello", HelloRequest, self._hello)
        server.unary("Main", Empty, lambda _: vm.container.state)
        server.deferred("Launch", LaunchRequest, self._launch)
        server.unary("Signal", SignalRequest, self._signal)
        server.unary("Resize", ResizeRequest, self._resize)
        server.deferred("Exec", ExecRequest, vm.execs.start)
        server.streaming("WatchStats", StatsRequest, self._watch_stats)
        server.unary("Top", Empty, self._top)
        server.streaming("Accept", Empty, self._accept)
        server.unary("NetworkSet", NetworkSetRequest, self._set_network)
        server.unary("TimeSet", TimeSetRequest, self._set_time)
        server.unary("Entropy", EntropyRequest, self._entropy)
        server.deferred("Freeze", FreezeRequest, self._freeze)
        server.unary("Thaw", Empty, self._thaw)
        server.unary("Update", UpdateRequest, self._update)
        server.unary("Diagnostics", Empty, self._diagnostics)
        server.unary("Shutdown", ShutdownRequest, self._shutdown)

    def _files(self) -> Files:
        # Late: there is `archive` behind it, 30 ms of every boot, for a verb that most VMs never hear.
        from tether.files import Files

        return Files(self._vm.loop, self._vm.container)

    # ---------------------------------------------------------------- life cycle

    def _hello(self, request: HelloRequest) -> HelloReply:
        vm = self._vm
        if request.operation:
            vm.log.note(f"hello, operation {request.operation}")
        return HelloReply(
            protocol=PROTOCOL,
            version=VERSION,
            kernel=os.uname().release,
            features=FEATURES,
            max_exec_sessions=MAX_SESSIONS,
            id=vm.config.id,
            boot_ns=self._boot_ns,
            import_ns=self._import_ns,
            rss=resident_bytes(),
            main=vm.container.state,
            boot_nonce=vm.nonce.hex(),
        )

    def _launch(self, request: LaunchRequest, call: Call) -> None:
        self._vm.log.note(f"launch, operation {request.operation}")
        self._vm.launch(call.respond)

    def _signal(self, request: SignalRequest) -> Empty:
        container = self._vm.container
        if request.exec_id:
            state = self._vm.sessions.state(request.exec_id)
            if state is None:
                raise RpcError(Code.NOT_FOUND, f"no exec {request.exec_id}")
            if not state.running:
                raise RpcError(Code.FAILED_PRECONDITION, f"exec {request.exec_id} is not running")
            pid, whole = state.pid, None
        else:
            self._require_running()
            pid, whole = container.state.pid, container.cgroup
        try:
            send_signal(pid, request.signal, request.scope, whole=whole)
        except ValueError as error:
            raise RpcError(Code.INVALID_ARGUMENT, str(error)) from error
        return Empty()

    def _resize(self, request: ResizeRequest) -> Empty:
        try:
            self._vm.sessions.resize(request.exec_id, rows=request.rows, columns=request.columns)
        except KeyError as error:
            raise RpcError(Code.NOT_FOUND, f"no exec {request.exec_id}") from error
        except ValueError as error:
            raise RpcError(Code.FAILED_PRECONDITION, str(error)) from error
        return Empty()

    def _shutdown(self, request: ShutdownRequest) -> Empty:
        self._vm.loop.soon(lambda: self._vm.shutdown(reason=request.reason, force=request.force))
        return Empty()

    def _require_running(self) -> None:
        if not self._vm.container.running:
            raise RpcError(Code.FAILED_PRECONDITION, "container is not running")

    # ---------------------------------------------------------------- what goes on inside

    def _watch_stats(self, request: StatsRequest, call: Call) -> None:
        self._require_running()
        interval = max(request.interval, _SHORTEST_INTERVAL) / _NANO

        def take() -> None:
            if not call.open:
                return
            if not self._vm.container.running:
                call.send(end=True)
                return
            if call.room > 0:
                call.send_message(
                    self._sampler.sample(self._vm.container.config.resources), end=request.interval == 0
                )
            if request.interval:
                self._vm.loop.after(interval, take)

        call.respond(Empty())
        take()

    def _top(self, _: Empty) -> TopReply:
        self._require_running()
        namespace = os.readlink(f"/proc/{self._vm.container.state.pid}/ns/pid")
        return TopReply(processes=list_processes(namespace, user_names(self._passwd())))

    def _accept(self, request: Empty, call: Call) -> None:
        if self._vm.relay is None:
            raise RpcError(Code.FAILED_PRECONDITION, "the container has no engine socket")
        self._vm.relay.accept(request, call)

    def _passwd(self) -> bytes:
        return self._vm.container.read_passwd()

    def _diagnostics(self, _: Empty) -> DiagnosticsReply:
        facts = {
            "boot_ns": str(self._boot_ns),
            "import_ns": str(self._import_ns),
            "rss": str(resident_bytes()),
        }
        return diagnose(list(self._vm.log.lines), facts)

    # ---------------------------------------------------------------- changes

    def _set_network(self, request: NetworkSetRequest) -> NetworkEvent:
        try:
            return self._vm.set_network(request)
        except (NetworkError, OSError) as error:
            raise RpcError(Code.FAILED_PRECONDITION, f"network: {error}") from error

    def _set_time(self, request: TimeSetRequest) -> TimeSetReply:
        return TimeSetReply(drift=_valid(lambda: set_time(request.time)))

    def _entropy(self, request: EntropyRequest) -> Empty:
        _valid(lambda: add_entropy(request.seed))
        return Empty()

    def _freeze(self, request: FreezeRequest, call: Call) -> None:
        vm = self._vm
        self._require_running()
        if vm.freezer.frozen:
            raise RpcError(Code.FAILED_PRECONDITION, "the file systems are frozen already")
        points = [path for path in mount_points(vm.config) if "/content/" not in path]
        vm.freezer.freeze(
            points,
            seconds=request.thaw_after / _NANO,
            done=lambda failure: (
                call.respond(Empty()) if failure is None else call.fail(Code.INTERNAL, str(failure))
            ),
        )

    def _thaw(self, _: Empty) -> Empty:
        self._vm.freezer.thaw()
        return Empty()

    def _update(self, request: UpdateRequest) -> Empty:
        vm = self._vm
        self._require_running()
        if request.HasField("resources"):
            try:
                vm.container.cgroup.limit(request.resources)
            except SyscallError as error:
                vm.container.cgroup.limit(vm.config.resources)
                raise RpcError(Code.FAILED_PRECONDITION, str(error)) from error
            vm.config.resources.CopyFrom(request.resources)
        if request.set_health:
            vm.config.health.CopyFrom(request.health)
            vm.health.start(request.health)
        return Empty()


def _valid(work: Callable[[], int | None]) -> int:
    try:
        return work() or 0
    except ValueError as error:
        raise RpcError(Code.INVALID_ARGUMENT, str(error)) from error
