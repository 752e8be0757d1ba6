"""A port layer in memory: containers whose "processes" are small scripts, volumes, networks, keys.

A process is what its argv says: ``true``, ``false``, ``exit N``, ``echo WORDS``, ``warn WORDS``
(standard error), ``cat`` (echoes its input), ``flood BYTES``, ``missing`` (cannot be started); anything
else runs until it is told to stop. ``TERM`` ends it with 143, ``KILL`` with 137.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass, field
from typing import Any

import grpc

from portlayer import portlayer_pb2 as pb
from tether import tether_pb2

Status = pb.ContainerState
Kind = pb.ContainerEvent


class Refusal(Exception):
    def __init__(self, reason: pb.Reason.ValueType, message: str, exit_code: int = 0) -> None:
        super().__init__(message)
        self.reason = reason
        self.exit_code = exit_code


async def abort(context: Any, error: Refusal) -> None:
    metadata = [("mooring-reason", pb.Reason.Name(error.reason))]
    if error.exit_code:
        metadata.append(("mooring-exit-code", str(error.exit_code)))
    await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error), tuple(metadata))


class Process:
    """One running script with its output kept from the start."""

    def __init__(self, spec: tether_pb2.Process) -> None:
        self.spec = spec
        self.records: list[pb.LogRecord] = []
        self.stdin: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.changed = asyncio.Event()
        self.started_at = time.time_ns()
        self.finished_at = 0
        self.size = (0, 0)
        self.signals: list[int] = []
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self.spec.argv[0] == "missing":
            raise Refusal(pb.LAUNCH_FAILED, 'exec: "missing": executable file not found in $PATH', 127)
        self.task = asyncio.create_task(self._run())

    def write(self, data: bytes, stream: int = 1) -> None:
        self.records.append(pb.LogRecord(stream=stream, time=time.time_ns(), data=data))
        self._wake()

    def finish(self, code: int) -> None:
        if not self.exited.done():
            self.finished_at = time.time_ns()
            self.exited.set_result(code)
            self._wake()

    def signal(self, number: int) -> None:
        self.signals.append(number)
        if number in (9, 15, 2, 3):
            if self.task is not None:
                self.task.cancel()
            self.finish(128 + number)

    def _wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    async def _run(self) -> None:
        name, *words = self.spec.argv
        if name == "true":
            self.finish(0)
        elif name == "false":
            self.finish(1)
        elif name == "exit":
            self.finish(int(words[0]))
        elif name in ("echo", "warn"):
            self.write(" ".join(words).encode() + b"\n", 2 if name == "warn" else 1)
            self.finish(0)
        elif name == "env":
            self.write("".join(f"{item}\n" for item in self.spec.env).encode())
            self.finish(0)
        elif name == "flood":
            left = int(words[0])
            while left:
                piece = min(left, 32768)
                self.write(bytes(piece))
                left -= piece
            self.finish(0)
        elif name == "cat":
            while (data := await self.stdin.get()) is not None:
                self.write(data)
            self.finish(0)


@dataclass
class Machine:
    handle: pb.Handle
    state: pb.ContainerState
    process: Process | None = None
    started: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    removed: asyncio.Event = field(default_factory=asyncio.Event)
    detached: asyncio.Event = field(default_factory=asyncio.Event)  # some attach session has ended
    exits: int = 0
    exited: asyncio.Event = field(default_factory=asyncio.Event)
    execs: dict[str, Process] = field(default_factory=dict)
    files: dict[bytes, bytes] = field(default_factory=dict)  # path -> tar
    history: list[pb.LogRecord] = field(default_factory=list)
    checkpoints: list[str] = field(default_factory=list)

    @property
    def records(self) -> list[pb.LogRecord]:
        return self.history + (self.process.records if self.process else [])

    def container(self) -> pb.Container:
        return pb.Container(handle=self.handle, state=self.state, log_path="/journal", disk_path="/disk.vmdk")


class FakeHost:
    def __init__(self) -> None:
        self.machines: dict[str, Machine] = {}
        self.volumes: dict[str, pb.Volume] = {}
        self.keys: dict[str, pb.KeyValue] = {}
        self.networks: dict[str, pb.Network] = {}
        self.layers: dict[str, pb.Layer] = {}
        self.subscribers: list[asyncio.Queue[pb.PortlayerEvent | None]] = []
        self.operations: list[str] = []
        self.sequence = itertools.count(1)
        self.addresses = itertools.count(2)
        self.ports = itertools.count(32768)
        self.add_network("b" * 64, "bridge", "172.30.0.0/24", "172.30.0.1", builtin=True)
        self.networks["c" * 64] = pb.Network(id="c" * 64, name="none", type="none", builtin=True)

    def add_network(
        self, network: str, name: str, subnet: str, gateway: str, *, builtin: bool = False
    ) -> None:
        self.networks[network] = pb.Network(
            id=network,
            name=name,
            type="bridge",
            pools=[pb.Pool(subnet=subnet, gateway=gateway)],
            builtin=builtin,
        )

    def network(self, network_id: str) -> pb.Network:
        """The network with the endpoints of the containers that run on it."""
        if network_id not in self.networks:
            raise Refusal(pb.NO_SUCH_NETWORK, f"network {network_id} not found")
        network = pb.Network()
        network.CopyFrom(self.networks[network_id])
        for machine in self.machines.values():
            for endpoint in machine.handle.spec.endpoints:
                if endpoint.network == network_id and machine.state.status == Status.RUNNING:
                    network.endpoints.add(
                        container=machine.handle.id,
                        name=machine.handle.spec.name,
                        endpoint_id=endpoint.endpoint_id,
                        mac=endpoint.assigned_mac,
                        ipv4=endpoint.assigned_ipv4,
                    )
        return network

    # ------------------------------------------------------------ events

    def emit(self, **event: Any) -> None:
        message = pb.PortlayerEvent(sequence=next(self.sequence), time=time.time_ns(), **event)
        for queue in self.subscribers:
            queue.put_nowait(message)

    def emit_container(self, kind: pb.ContainerEvent.Kind.ValueType, machine: Machine, **more: Any) -> None:
        self.emit(
            container=pb.ContainerEvent(
                kind=kind, id=machine.handle.id, handle=machine.handle, state=machine.state, **more
            )
        )

    # ------------------------------------------------------------ containers

    def machine(self, container: str) -> Machine:
        if container not in self.machines:
            raise Refusal(pb.NO_SUCH_CONTAINER, f"no container {container}")
        return self.machines[container]

    def commit(self, handle: pb.Handle) -> Machine:
        for other in self.machines.values():
            if other.handle.spec.name == handle.spec.name and other.handle.id != handle.id:
                raise Refusal(pb.NAME_IN_USE, f"name {handle.spec.name} is in use")
        known = self.machines.get(handle.id)
        stored = pb.Handle()
        stored.CopyFrom(handle)
        stored.change_version += 1
        if known is not None:
            if known.handle.change_version != handle.change_version:
                raise Refusal(pb.VERSION_CONFLICT, "somebody else committed")
            known.handle = stored
            self.emit_container(Kind.CHANGED, known)
            return known
        for mount in handle.spec.mounts:
            if mount.volume not in self.volumes:
                raise Refusal(pb.NO_SUCH_VOLUME, f"no volume {mount.volume}")
        for endpoint in stored.spec.endpoints:
            number = next(self.addresses)
            endpoint.assigned_ipv4 = f"{endpoint.ipv4 or f'172.30.0.{number % 250}'}/24"
            endpoint.assigned_mac = endpoint.mac or f"02:42:ac:1e:{number // 256:02x}:{number % 256:02x}"
            endpoint.gateway_ipv4 = "172.30.0.1"
            endpoint.endpoint_id = f"{number:064x}"
        for port in stored.spec.ports:
            port.assigned_port = port.host_port or next(self.ports)
        machine = Machine(stored, pb.ContainerState(status=Status.CREATED))
        machine.stopped.set()
        self.machines[handle.id] = machine
        self.emit_container(Kind.CREATED, machine)
        return machine

    def start(self, container: str) -> Machine:
        machine = self.machine(container)
        if machine.state.status == Status.RUNNING:
            raise Refusal(pb.ALREADY_RUNNING, "it runs")
        process = Process(machine.handle.spec.process)
        process.start()
        if machine.process is not None:
            machine.history += machine.process.records
        machine.process = process
        machine.state.Clear()
        machine.state.status = Status.RUNNING
        machine.state.pid = 4242
        machine.state.started_at = process.started_at
        if machine.handle.spec.HasField("health"):
            machine.state.health = tether_pb2.HealthEvent.STARTING
        machine.stopped.clear()
        machine.started.set()
        self.emit_container(Kind.STARTED, machine)
        process.exited.add_done_callback(lambda future: self._exited(machine, process, future.result()))
        return machine

    def _exited(self, machine: Machine, process: Process, code: int) -> None:
        machine.state.status = Status.EXITED
        machine.state.exit_code = code
        machine.state.finished_at = process.finished_at
        machine.state.pid = 0
        machine.exits += 1
        machine.started.clear()
        machine.stopped.set()
        machine.exited.set()
        machine.exited = asyncio.Event()
        for running in machine.execs.values():
            running.signal(9)
        self.emit_container(Kind.DIED, machine)

    def running(self, container: str) -> Process:
        machine = self.machine(container)
        if machine.process is None or machine.state.status not in (Status.RUNNING, Status.PAUSED):
            raise Refusal(pb.NOT_RUNNING, f"container {container} is not running")
        return machine.process

    async def stop(self, request: pb.StopRequest) -> Machine:
        machine = self.machine(request.id)
        if machine.state.status == Status.RUNNING:
            self.running(request.id).signal(request.signal or machine.handle.spec.stop_signal or 15)
            await machine.stopped.wait()
            self.emit_container(Kind.STOPPED, machine)
        return machine

    async def remove(self, request: pb.RemoveContainerRequest) -> None:
        machine = self.machine(request.id)
        if machine.state.status in (Status.RUNNING, Status.PAUSED):
            if not request.force:
                raise Refusal(pb.ALREADY_RUNNING, "it runs")
            assert machine.process is not None
            machine.process.signal(9)
            await machine.stopped.wait()
        if self.machines.pop(request.id, None) is None:
            raise Refusal(pb.NO_SUCH_CONTAINER, "gone")
        machine.removed.set()
        self.emit_container(Kind.REMOVED, machine)

    def users(self, volume: str) -> list[str]:
        return [
            machine.handle.id
            for machine in self.machines.values()
            if any(mount.volume == volume for mount in machine.handle.spec.mounts)
        ]

    async def close(self) -> None:
        tasks = []
        for machine in self.machines.values():
            for process in [machine.process, *machine.execs.values()]:
                if process is not None and process.task is not None:
                    process.task.cancel()
                    tasks.append(process.task)
        await asyncio.gather(*tasks, return_exceptions=True)
