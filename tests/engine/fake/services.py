"""The fake host behind real gRPC, on a unix socket."""

# ruff: noqa: N802 - gRPC names the methods

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import tarfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc

from portlayer import portlayer_pb2 as pb
from portlayer import portlayer_pb2_grpc as rpc
from tests.engine.fake.state import FakeHost, Kind, Machine, Process, Refusal, Status, abort
from tether import tether_pb2

EMPTY = tether_pb2.Empty()
EXEC_START = 0.1  # seconds


def unary(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(method)
    async def wrapped(self: Any, request: Any, context: Any) -> Any:
        self.host.operations.append(dict(context.invocation_metadata()).get("mooring-operation", ""))
        try:
            return await method(self, request, context)
        except Refusal as error:
            await abort(context, error)

    return wrapped


class Base:
    def __init__(self, host: FakeHost) -> None:
        self.host = host


class Containers(Base, rpc.ContainersServicer):
    @unary
    async def Open(self, request: pb.ContainerRef, context: Any) -> pb.Handle:
        return self.host.machine(request.id).handle

    @unary
    async def Commit(self, request: pb.Handle, context: Any) -> pb.Handle:
        return self.host.commit(request).handle

    @unary
    async def Get(self, request: pb.ContainerRef, context: Any) -> pb.Container:
        return self.host.machine(request.id).container()

    @unary
    async def List(self, request: pb.ListContainersRequest, context: Any) -> pb.ContainerList:
        return pb.ContainerList(containers=[m.container() for m in self.host.machines.values()])

    @unary
    async def Start(self, request: pb.ContainerRef, context: Any) -> pb.ContainerState:
        return self.host.start(request.id).state

    @unary
    async def StartFromCheckpoint(self, request: pb.CheckpointRequest, context: Any) -> pb.ContainerState:
        self._require_checkpoint(request)
        return self.host.start(request.id).state

    @unary
    async def Checkpoint(self, request: pb.CheckpointRequest, context: Any) -> tether_pb2.Empty:
        machine = self.host.machine(request.id)
        if request.name in machine.checkpoints:
            raise Refusal(pb.NAME_IN_USE, "it exists")
        machine.checkpoints.append(request.name)
        if not request.leave_running:
            self.host.running(request.id).signal(9)
            await machine.stopped.wait()
        return EMPTY

    @unary
    async def Checkpoints(self, request: pb.ContainerRef, context: Any) -> pb.CheckpointList:
        return pb.CheckpointList(names=self.host.machine(request.id).checkpoints)

    @unary
    async def RemoveCheckpoint(self, request: pb.CheckpointRequest, context: Any) -> tether_pb2.Empty:
        self._require_checkpoint(request).checkpoints.remove(request.name)
        return EMPTY

    def _require_checkpoint(self, request: pb.CheckpointRequest) -> Machine:
        machine = self.host.machine(request.id)
        if request.name not in machine.checkpoints:
            raise Refusal(pb.NO_SUCH_CHECKPOINT, "there is none")
        return machine

    @unary
    async def Stop(self, request: pb.StopRequest, context: Any) -> pb.ContainerState:
        return (await self.host.stop(request)).state

    @unary
    async def Restart(self, request: pb.StopRequest, context: Any) -> pb.ContainerState:
        await self.host.stop(request)
        return self.host.start(request.id).state

    @unary
    async def Kill(self, request: pb.KillRequest, context: Any) -> tether_pb2.Empty:
        process = self.host.running(request.id)
        self.host.emit_container(Kind.KILLED, self.host.machine(request.id), signal=request.signal)
        process.signal(request.signal)
        return EMPTY

    @unary
    async def Pause(self, request: pb.ContainerRef, context: Any) -> tether_pb2.Empty:
        machine = self.host.machine(request.id)
        machine.state.status = Status.PAUSED
        self.host.emit_container(Kind.PAUSED, machine)
        return EMPTY

    @unary
    async def Unpause(self, request: pb.ContainerRef, context: Any) -> tether_pb2.Empty:
        machine = self.host.machine(request.id)
        machine.state.status = Status.RUNNING
        self.host.emit_container(Kind.UNPAUSED, machine)
        return EMPTY

    @unary
    async def Update(self, request: pb.UpdateContainerRequest, context: Any) -> pb.Handle:
        machine = self.host.machine(request.id)
        machine.handle.spec.resources.CopyFrom(request.resources)
        if request.set_restart:
            machine.handle.spec.restart.CopyFrom(request.restart)
        machine.handle.change_version += 1
        return machine.handle

    @unary
    async def Remove(self, request: pb.RemoveContainerRequest, context: Any) -> tether_pb2.Empty:
        await self.host.remove(request)
        return EMPTY

    async def Wait(self, request: pb.WaitRequest, context: Any) -> AsyncIterator[pb.WaitReply]:
        try:
            machine = self.host.machine(request.id)
        except Refusal as error:
            await abort(context, error)
            return
        exited, stopped, removed = machine.exited, machine.stopped, machine.removed
        yield pb.WaitReply()
        if request.condition == pb.WaitRequest.NOT_RUNNING:
            await stopped.wait()
        elif request.condition == pb.WaitRequest.NEXT_EXIT:
            await exited.wait()
        else:
            await removed.wait()
        yield pb.WaitReply(exit_code=machine.state.exit_code)

    @unary
    async def Resize(self, request: pb.ResizeContainerRequest, context: Any) -> tether_pb2.Empty:
        machine = self.host.machine(request.id)
        process = machine.execs.get(request.exec_id) if request.exec_id else machine.process
        assert process is not None
        process.size = (request.rows, request.columns)
        return EMPTY

    @unary
    async def Top(self, request: pb.ContainerRef, context: Any) -> tether_pb2.TopReply:
        process = self.host.running(request.id)
        return tether_pb2.TopReply(
            processes=[
                tether_pb2.ProcessInfo(
                    pid=101,
                    ppid=1,
                    user="root",
                    argv=[word.encode() for word in process.spec.argv],
                    comm=process.spec.argv[0],
                    cpu_ns=3_000_000_000,
                    rss=2048 * 1024,
                    vsz=4096 * 1024,
                    stat="S",
                    start_time=process.started_at,
                )
            ]
        )

    async def WatchStats(
        self, request: pb.ContainerStatsRequest, context: Any
    ) -> AsyncIterator[tether_pb2.Stats]:
        try:
            process = self.host.running(request.id)
        except Refusal as error:
            await abort(context, error)
            return
        number = 0
        while not process.exited.done():
            number += 1
            yield tether_pb2.Stats(
                time=number * 1_000_000_000,
                cpu_usage=number * 500_000_000,
                system_cpu=number * 1_000_000_000,
                online_cpus=1,
                memory_usage=50 << 20,
                memory_limit=1 << 30,
                memory_stat={"inactive_file": 10 << 20},
                pids=3,
                networks=[tether_pb2.NetworkCounters(name="eth0", rx_bytes=1000 * number, tx_bytes=7)],
                blocks=[tether_pb2.BlockCounters(major=8, read_bytes=4096, write_bytes=8192)],
            )
            if request.interval == 0:
                return
            if number >= 2:
                await asyncio.wait({asyncio.ensure_future(asyncio.shield(process.exited))}, timeout=0.2)

    @unary
    async def Size(self, request: pb.ContainerRef, context: Any) -> pb.ContainerSizeReply:
        self.host.machine(request.id)
        return pb.ContainerSizeReply(rw_bytes=1000, root_bytes=5000)

    @unary
    async def Diff(self, request: pb.ContainerRef, context: Any) -> pb.DiffReply:
        self.host.machine(request.id)
        return pb.DiffReply(
            entries=[
                pb.DiffEntry(path=b"/etc", kind=pb.DiffEntry.MODIFIED),
                pb.DiffEntry(path=b"/etc/new-\xff", kind=pb.DiffEntry.ADDED),
                pb.DiffEntry(path=b"/bin/old", kind=pb.DiffEntry.DELETED),
            ]
        )


class Interaction(Base, rpc.InteractionServicer):
    async def Attach(
        self, request_iterator: AsyncIterator[pb.InputChunk], context: Any
    ) -> AsyncIterator[pb.OutputChunk]:
        opening = (await anext(request_iterator)).open
        try:
            machine = self.host.machine(opening.id)
        except Refusal as error:
            await abort(context, error)
            return
        seen = 0 if opening.from_start else len(machine.records)
        yield pb.OutputChunk(stream=pb.OutputChunk.READY)
        await machine.started.wait() if machine.process is None else None
        process = machine.process
        assert process is not None
        feeding = asyncio.create_task(_feed(request_iterator, process if opening.stdin else None))
        try:
            wanted = {1} if not opening.stderr else {1, 2} if opening.stdout else {2}
            async for record in _follow(machine, process, seen):
                if record.stream in wanted:
                    kind = pb.OutputChunk.STDOUT if record.stream == 1 else pb.OutputChunk.STDERR
                    yield pb.OutputChunk(stream=kind, data=record.data)
            yield pb.OutputChunk(stream=pb.OutputChunk.EXITED, exit_code=process.exited.result())
        finally:
            feeding.cancel()
            machine.detached.set()

    async def Exec(
        self, request_iterator: AsyncIterator[pb.InputChunk], context: Any
    ) -> AsyncIterator[pb.OutputChunk]:
        opening = (await anext(request_iterator)).exec
        try:
            self.host.running(opening.id)
            process = Process(opening.process)
            process.start()
        except Refusal as error:
            await abort(context, error)
            return
        machine = self.host.machine(opening.id)
        machine.execs[opening.exec_id] = process
        process.exited.add_done_callback(
            lambda future: self.host.emit_container(
                Kind.EXEC_DIED, machine, exec_id=opening.exec_id, exit_code=future.result()
            )
        )
        # No guest starts a process in no time. It matters to docker-py, which loses (with dockerd, too) what
        # arrives in one read with the HTTP head.
        await asyncio.sleep(EXEC_START)
        yield pb.OutputChunk(stream=pb.OutputChunk.READY, pid=77)
        if opening.detach:
            return
        feeding = asyncio.create_task(_feed(request_iterator, process if opening.stdin else None))
        try:
            seen = 0
            while True:
                changed = process.changed
                for record in process.records[seen:]:
                    kind = pb.OutputChunk.STDOUT if record.stream == 1 else pb.OutputChunk.STDERR
                    yield pb.OutputChunk(stream=kind, data=record.data)
                    seen += 1
                if process.exited.done() and seen == len(process.records):
                    break
                if seen == len(process.records):
                    await changed.wait()
            yield pb.OutputChunk(stream=pb.OutputChunk.EXITED, exit_code=process.exited.result())
        finally:
            feeding.cancel()

    @unary
    async def ExecInspect(self, request: pb.ExecRef, context: Any) -> tether_pb2.ExecState:
        machine = self.host.machine(request.id)
        if request.exec_id not in machine.execs:
            raise Refusal(pb.NO_SUCH_EXEC, "no such exec")
        return _exec_state(request.exec_id, machine.execs[request.exec_id])

    @unary
    async def Execs(self, request: pb.ContainerRef, context: Any) -> tether_pb2.ExecListReply:
        machine = self.host.machine(request.id)
        return tether_pb2.ExecListReply(execs=[_exec_state(*item) for item in machine.execs.items()])

    async def Logs(self, request: pb.LogsRequest, context: Any) -> AsyncIterator[pb.LogRecord]:
        try:
            machine = self.host.machine(request.id)
        except Refusal as error:
            await abort(context, error)
            return
        wanted = {1} if not request.stderr else {1, 2} if request.stdout else {2}
        records = [r for r in machine.records if r.stream in wanted and r.time >= request.since]
        if request.until:
            records = [r for r in records if r.time <= request.until]
        if request.tail >= 0:
            records = records[len(records) - min(request.tail, len(records)) :]
        for record in records:
            yield record
        if request.follow and machine.process is not None:
            async for record in _follow(machine, machine.process, len(machine.records)):
                if record.stream in wanted:
                    yield record

    @unary
    async def StatPath(self, request: pb.PathRequest, context: Any) -> tether_pb2.PathStat:
        machine = self.host.machine(request.id)
        path = request.path.rstrip(b"/") or b"/"
        if path not in machine.files:
            raise Refusal(pb.NO_SUCH_PATH, "no such path")
        return _stat(path, machine.files[path])

    async def CopyOut(self, request: pb.PathRequest, context: Any) -> AsyncIterator[pb.CopyOutChunk]:
        machine = self.host.machines[request.id]
        if request.path not in machine.files:
            await abort(context, Refusal(pb.NO_SUCH_PATH, "no such path"))
            return
        data = machine.files[request.path]
        yield pb.CopyOutChunk(stat=_stat(request.path, data))
        for start in range(0, len(data), 10_000):
            yield pb.CopyOutChunk(data=data[start : start + 10_000])

    async def CopyIn(self, request_iterator: AsyncIterator[pb.CopyInChunk], context: Any) -> Any:
        opening = await anext(request_iterator)
        if opening.path == b"/missing":
            await abort(context, Refusal(pb.NO_SUCH_PATH, "no such path"))
        data = b"".join([chunk.data async for chunk in request_iterator])
        try:
            tarfile.open(fileobj=io.BytesIO(data)).close()
        except tarfile.TarError as error:
            await abort(context, Refusal(pb.BAD_LAYER, str(error)))
        self.host.machine(opening.id).files[opening.path.rstrip(b"/")] = data
        return EMPTY


class Volumes(Base, rpc.VolumesServicer):
    @unary
    async def Create(self, request: pb.Volume, context: Any) -> pb.Volume:
        volume = self.host.volumes.setdefault(request.name, request)
        volume.path = f"/volumes/{volume.name}"
        self.host.emit(volume=pb.VolumeChange(kind=pb.VolumeChange.CREATED, volume=volume))
        return volume

    @unary
    async def Get(self, request: pb.VolumeRef, context: Any) -> pb.Volume:
        if request.name not in self.host.volumes:
            raise Refusal(pb.NO_SUCH_VOLUME, f"get {request.name}: no such volume")
        volume = pb.Volume()
        volume.CopyFrom(self.host.volumes[request.name])
        volume.users.extend(self.host.users(request.name))
        return volume

    @unary
    async def List(self, request: tether_pb2.Empty, context: Any) -> pb.VolumeList:
        volumes = pb.VolumeList(volumes=self.host.volumes.values())
        for volume in volumes.volumes:
            volume.users.extend(self.host.users(volume.name))
        return volumes

    @unary
    async def Remove(self, request: pb.RemoveVolumeRequest, context: Any) -> tether_pb2.Empty:
        if request.name not in self.host.volumes:
            raise Refusal(pb.NO_SUCH_VOLUME, "no such volume")
        if self.host.users(request.name):
            raise Refusal(pb.VOLUME_IN_USE, "volume is in use")
        volume = self.host.volumes.pop(request.name)
        self.host.emit(volume=pb.VolumeChange(kind=pb.VolumeChange.REMOVED, volume=volume))
        return EMPTY


class Networks(Base, rpc.NetworksServicer):
    @unary
    async def List(self, request: tether_pb2.Empty, context: Any) -> pb.NetworkList:
        return pb.NetworkList(networks=[self.host.network(name) for name in self.host.networks])

    @unary
    async def Create(self, request: pb.Network, context: Any) -> pb.Network:
        if any(network.name == request.name for network in self.host.networks.values()):
            raise Refusal(pb.NAME_IN_USE, f"network with name {request.name} already exists")
        network = pb.Network()
        network.CopyFrom(request)
        network.id = f"{time.time_ns() + len(self.host.networks):064x}"[::-1]
        network.created_at = time.time_ns()
        if not network.pools:
            network.pools.add(subnet="172.30.9.0/24", gateway="172.30.9.1")
        self.host.networks[network.id] = network
        self.host.emit(network=pb.NetworkChange(kind=pb.NetworkChange.CREATED, network=network))
        return network

    @unary
    async def Remove(self, request: pb.NetworkRef, context: Any) -> tether_pb2.Empty:
        network = self.host.network(request.id)
        if network.endpoints:
            raise Refusal(
                pb.NETWORK_IN_USE,
                f"error while removing network: network {network.name} has active endpoints",
            )
        del self.host.networks[request.id]
        self.host.emit(network=pb.NetworkChange(kind=pb.NetworkChange.REMOVED, network=network))
        return EMPTY


class Layers(Base, rpc.LayersServicer):
    @unary
    async def List(self, request: tether_pb2.Empty, context: Any) -> pb.LayerList:
        return pb.LayerList(layers=self.host.layers.values())


class KeyValues(Base, rpc.KeyValuesServicer):
    @unary
    async def Put(self, request: pb.KeyValue, context: Any) -> pb.KeyValue:
        self.host.keys[request.key] = request
        return request

    @unary
    async def Get(self, request: pb.KeyRef, context: Any) -> pb.KeyValue:
        if request.key not in self.host.keys:
            raise Refusal(pb.NO_SUCH_KEY, "no such key")
        return self.host.keys[request.key]

    @unary
    async def List(self, request: pb.KeyPrefix, context: Any) -> pb.KeyValueList:
        return pb.KeyValueList(
            items=[value for key, value in self.host.keys.items() if key.startswith(request.prefix)]
        )

    @unary
    async def Delete(self, request: pb.KeyRef, context: Any) -> tether_pb2.Empty:
        self.host.keys.pop(request.key, None)
        return EMPTY


class System(Base, rpc.SystemServicer):
    @unary
    async def Info(self, request: tether_pb2.Empty, context: Any) -> pb.SystemInfo:
        return pb.SystemInfo(
            version="0.1.0",
            vch="test",
            vch_id="0" * 32,
            hypervisor="qemu",
            hypervisor_version="7.2",
            accelerator="tcg",
            machine_profile="fast",
            kernel="6.1.0",
            cpus=2,
            memory=8 << 30,
            operating_system="Debian GNU/Linux 12",
            architecture="x86_64",
            root="/var/lib/mooring/test",
        )

    async def Events(self, request: pb.EventsSubscription, context: Any) -> AsyncIterator[pb.PortlayerEvent]:
        queue: asyncio.Queue[pb.PortlayerEvent | None] = asyncio.Queue()
        self.host.subscribers.append(queue)
        try:
            yield pb.PortlayerEvent(ready=True)
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self.host.subscribers.remove(queue)


def _exec_state(exec_id: str, process: Process) -> tether_pb2.ExecState:
    done = process.exited.done()
    return tether_pb2.ExecState(
        exec_id=exec_id,
        running=not done,
        pid=0 if done else 77,
        exit_code=process.exited.result() if done else 0,
        started_at=process.started_at,
        finished_at=process.finished_at,
    )


def _stat(path: bytes, data: bytes) -> tether_pb2.PathStat:
    return tether_pb2.PathStat(
        name=path.rpartition(b"/")[2],
        size=len(data),
        mode=0o100644 if data else 0o040755,
        mtime=1_000_000_000,
    )


async def _feed(requests: AsyncIterator[pb.InputChunk], process: Process | None) -> None:
    async for chunk in requests:
        if process is not None:
            if chunk.data:
                process.stdin.put_nowait(chunk.data)
            if chunk.close:
                process.stdin.put_nowait(None)


async def _follow(machine: Machine, process: Process, seen: int) -> AsyncIterator[pb.LogRecord]:
    while True:
        changed = process.changed
        for record in machine.records[seen:]:
            yield record
            seen += 1
        if process.exited.done() and seen == len(machine.records):
            return
        if seen == len(machine.records):
            await changed.wait()


@contextlib.asynccontextmanager
async def serving(host: FakeHost, socket: Path, *, keep: bool = False) -> AsyncIterator[None]:
    """``keep``: the processes run on afterwards, as VMs do when their port layer dies."""
    server = grpc.aio.server()
    rpc.add_ContainersServicer_to_server(Containers(host), server)
    rpc.add_InteractionServicer_to_server(Interaction(host), server)
    rpc.add_VolumesServicer_to_server(Volumes(host), server)
    rpc.add_NetworksServicer_to_server(Networks(host), server)
    rpc.add_LayersServicer_to_server(Layers(host), server)
    rpc.add_KeyValuesServicer_to_server(KeyValues(host), server)
    rpc.add_SystemServicer_to_server(System(host), server)
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)
        if not keep:
            await host.close()
