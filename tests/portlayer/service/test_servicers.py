"""The servicers over a real unix socket, with the fake host behind."""

from __future__ import annotations

import asyncio
import errno
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from portlayer.errors import PortLayerError
from portlayer.hypervisor.base import HypervisorError
from portlayer.portlayer_pb2 import (
    AttachOpen,
    ContainerEvent,
    ContainerRef,
    ContainerState,
    ContainerStatsRequest,
    CopyInChunk,
    EventsSubscription,
    ExecOpen,
    ExecRef,
    Handle,
    InputChunk,
    KeyPrefix,
    KeyRef,
    KeyValue,
    KillRequest,
    LayerHeader,
    LayerRef,
    ListContainersRequest,
    LogsRequest,
    Network,
    NetworkRef,
    OutputChunk,
    PathRequest,
    PutLayerChunk,
    Reason,
    RemoveContainerRequest,
    RemoveVolumeRequest,
    ResizeContainerRequest,
    StopRequest,
    UpdateContainerRequest,
    Volume,
    VolumeRef,
    WaitReply,
    WaitRequest,
)
from portlayer.portlayer_pb2_grpc import (
    ContainersStub,
    InteractionStub,
    KeyValuesStub,
    LayersStub,
    NetworksStub,
    SystemStub,
    VolumesStub,
    add_ContainersServicer_to_server,
    add_InteractionServicer_to_server,
    add_KeyValuesServicer_to_server,
    add_LayersServicer_to_server,
    add_NetworksServicer_to_server,
    add_SystemServicer_to_server,
    add_VolumesServicer_to_server,
)
from portlayer.service.containers import Containers
from portlayer.service.interaction import Interaction
from portlayer.service.keyvalues import KeyValues
from portlayer.service.layers import Layers
from portlayer.service.networks import Networks
from portlayer.service.server import bind, make_server, unbind
from portlayer.service.system import System
from portlayer.service.volumes import Volumes
from portlayer.storage import KeyValueStore, LayerInfo, VolumeInfo
from tests.portlayer.fakes.network import NETWORK
from tests.portlayer.world import World, mount
from tether.tether_pb2 import Empty, Process, Resources

ID = "1" * 64
CHAIN = f"sha256:{'9' * 64}"


class FakeImageStore:
    def __init__(self) -> None:
        self.layers: dict[str, bytes] = {}

    def _info(self, chain: str) -> LayerInfo:
        return LayerInfo(
            chain_id=chain,
            parent="",
            diff_id="d",
            size=len(self.layers[chain]),
            archive_size=len(self.layers[chain]),
            disk_bytes=1,
            path=Path("/layers") / chain[7:],
            empty=False,
            labels={},
        )

    async def put(self, *, chain_id: str, chunks: AsyncIterator[bytes], **_: Any) -> LayerInfo:
        data = b"".join([chunk async for chunk in chunks])
        self.layers[chain_id] = data
        return self._info(chain_id)

    def list(self) -> list[LayerInfo]:
        return [self._info(chain) for chain in self.layers]

    def get(self, chain_id: str) -> LayerInfo:
        if chain_id not in self.layers:
            raise PortLayerError(Reason.NO_SUCH_LAYER, f"no layer {chain_id}")
        return self._info(chain_id)

    async def remove(self, chain_id: str, *, users: set[str]) -> None:
        if chain_id in users:
            raise PortLayerError(Reason.LAYER_IN_USE, "in use")
        del self.layers[chain_id]

    async def export(self, chain_id: str) -> AsyncIterator[bytes]:
        yield self.layers[chain_id]


class FakeVolumeStores:
    def __init__(self) -> None:
        self.volumes: dict[str, VolumeInfo] = {}

    async def create(self, **facts: Any) -> VolumeInfo:
        made = VolumeInfo(store="default", capacity=5, path=Path("/v") / facts["name"], **facts)
        return self.volumes.setdefault(facts["name"], made)

    def get(self, name: str) -> VolumeInfo:
        if name not in self.volumes:
            raise PortLayerError(Reason.NO_SUCH_VOLUME, f"get {name}: no such volume")
        return self.volumes[name]

    def list(self) -> list[VolumeInfo]:
        return list(self.volumes.values())

    async def remove(self, name: str) -> None:
        return self.volumes.pop(self.get(name).name)

    async def used_bytes(self, name: str) -> int:
        return 3


class Stubs:
    def __init__(self, channel: grpc.aio.Channel, path: Path) -> None:
        self.path = path
        self.containers: Any = ContainersStub(channel)
        self.interaction: Any = InteractionStub(channel)
        self.layers: Any = LayersStub(channel)
        self.volumes: Any = VolumesStub(channel)
        self.networks: Any = NetworksStub(channel)
        self.documents: Any = KeyValuesStub(channel)
        self.system: Any = SystemStub(channel)


@pytest_asyncio.fixture
async def stubs(world: World) -> AsyncIterator[Stubs]:
    house = world.execution.house
    documents = KeyValueStore(world.root / "kv")
    documents.open()
    (world.root / "kernel").write_bytes(b"Linux version 6.1.0-test (gcc)")
    server = make_server()
    add_ContainersServicer_to_server(Containers(world.execution), server)
    add_InteractionServicer_to_server(Interaction(world.execution), server)
    add_LayersServicer_to_server(Layers(FakeImageStore(), house.registry), server)
    add_VolumesServicer_to_server(Volumes(FakeVolumeStores(), house), server)
    add_NetworksServicer_to_server(Networks(world.network, house.hub), server)
    add_KeyValuesServicer_to_server(KeyValues(documents), server)
    add_SystemServicer_to_server(System(house), server)
    path = world.root / "s"
    bind(server, path)
    await server.start()
    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        yield Stubs(channel, path)
    await server.stop(None)
    unbind(path)


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        if hasattr(call, "read"):
            while await call.read() is not grpc.aio.EOF:
                pass
        else:
            await call
    return caught.value


def reason(error: grpc.aio.AioRpcError) -> str:
    return dict(error.trailing_metadata()).get("mooring-reason", "")


async def test_the_socket_is_ours_alone(stubs: Stubs) -> None:
    assert stat.S_IMODE(stubs.path.stat().st_mode) == 0o600


async def test_a_whole_life(world: World, stubs: Stubs) -> None:
    handle = await stubs.containers.Commit(Handle(id=ID, spec=world.spec()))
    assert handle.change_version == 1
    state = await stubs.containers.Start(ContainerRef(id=ID))
    assert state.status == ContainerState.RUNNING
    assert (await stubs.containers.Get(ContainerRef(id=ID))).handle == handle
    assert len((await stubs.containers.List(ListContainersRequest())).containers) == 1
    await stubs.containers.Pause(ContainerRef(id=ID))
    await stubs.containers.Unpause(ContainerRef(id=ID))
    await stubs.containers.Update(UpdateContainerRequest(id=ID, resources=Resources(cpu_shares=7)))
    assert (await stubs.containers.Open(ContainerRef(id=ID))).spec.resources.cpu_shares == 7
    await stubs.containers.Resize(ResizeContainerRequest(id=ID, rows=1, columns=2))
    await stubs.containers.Top(ContainerRef(id=ID))
    stats = [s async for s in stubs.containers.WatchStats(ContainerStatsRequest(id=ID))]
    assert [s.time for s in stats] == [1, 2]
    size = await stubs.containers.Size(ContainerRef(id=ID))
    assert (size.rw_bytes, size.root_bytes) == (10, 100)
    restarted = await stubs.containers.Restart(StopRequest(id=ID, timeout=1))
    assert restarted.status == ContainerState.RUNNING
    stopped = await stubs.containers.Stop(StopRequest(id=ID, timeout=1))
    assert stopped.exit_code == 143
    diff = await stubs.containers.Diff(ContainerRef(id=ID))
    assert diff.entries[0].path == b"/etc/x"
    await stubs.containers.Remove(RemoveContainerRequest(id=ID))
    error = await refused(stubs.containers.Get(ContainerRef(id=ID)))
    assert error.code() == grpc.StatusCode.NOT_FOUND
    assert reason(error) == "NO_SUCH_CONTAINER"


async def test_wait_says_when_it_is_armed(world: World, stubs: Stubs) -> None:
    await world.running(ID)
    call = stubs.containers.Wait(WaitRequest(id=ID, condition=WaitRequest.NEXT_EXIT))
    assert await call.read() == WaitReply()
    await stubs.containers.Kill(KillRequest(id=ID, signal=9))
    assert (await call.read()).exit_code == 137
    assert await call.read() is grpc.aio.EOF


async def test_a_wait_that_is_given_up_leaves_nothing(world: World, stubs: Stubs) -> None:
    await world.running(ID)
    container = world.execution.get(ID)
    call = stubs.containers.Wait(WaitRequest(id=ID, condition=WaitRequest.NEXT_EXIT))
    await call.read()
    assert container._exit_waiters
    call.cancel()
    while container._exit_waiters:
        await asyncio.sleep(0.001)


async def test_failed_launches_carry_reason_and_code(world: World, stubs: Stubs) -> None:
    world.script = lambda guest: guest.fail(126, "permission denied: ünïcode\nsecond line")
    await world.create(ID)
    error = await refused(stubs.containers.Start(ContainerRef(id=ID)))
    assert reason(error) == "LAUNCH_FAILED"
    assert dict(error.trailing_metadata())["mooring-exit-code"] == "126"
    assert error.details() == "permission denied: ünïcode\nsecond line"


async def test_long_words_of_a_guest_fit_the_status(world: World, stubs: Stubs) -> None:
    world.script = lambda guest: guest.fail(126, "\u2603" * 10_000)
    await world.create(ID)
    error = await refused(stubs.containers.Start(ContainerRef(id=ID)))
    assert reason(error) == "LAUNCH_FAILED"
    assert error.details().startswith("\u2603" * 500)


async def test_an_unexpected_error_is_internal_and_names_the_operation(
    world: World, stubs: Stubs, caplog: pytest.LogCaptureFixture
) -> None:
    await world.create(ID)
    world.network.plug = None  # type: ignore[assignment]
    call = stubs.containers.Start(ContainerRef(id=ID), metadata=(("mooring-operation", "op-77"),))
    error = await refused(call)
    assert error.code() == grpc.StatusCode.INTERNAL
    assert "op-77" in error.details()
    assert "TypeError" in caplog.text
    assert "Traceback" in caplog.text


async def test_a_hypervisors_error_is_internal(world: World, stubs: Stubs) -> None:
    await world.create(ID)
    world.faults.start(fail_at=0)
    error = await refused(stubs.containers.Start(ContainerRef(id=ID)))
    assert error.code() == grpc.StatusCode.INTERNAL
    assert "injected into network.plug" in error.details()


async def test_a_full_disk_has_its_own_reason(world: World, stubs: Stubs) -> None:
    await world.create(ID)
    full = HypervisorError("configure VM 1: No space left on device")
    full.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    world.faults.fail_on["hypervisor.configure"] = full
    error = await refused(stubs.containers.Start(ContainerRef(id=ID)))
    assert (error.code(), reason(error)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "NO_SPACE")


async def test_version_conflicts_are_aborted(world: World, stubs: Stubs) -> None:
    await world.create(ID)
    stale = await stubs.containers.Open(ContainerRef(id=ID))
    stale.change_version = 9
    error = await refused(stubs.containers.Commit(stale))
    assert (error.code(), reason(error)) == (grpc.StatusCode.ABORTED, "VERSION_CONFLICT")


async def test_attach_exec_logs_and_files(world: World, stubs: Stubs) -> None:
    await world.running(ID, process=Process(argv=["cat"], open_stdin=True))
    attached = stubs.interaction.Attach()
    await attached.write(InputChunk(open=AttachOpen(id=ID, stdin=True, stdout=True)))
    assert (await attached.read()).stream == OutputChunk.READY
    await attached.write(InputChunk(data=b"typed"))
    guest = world.guest(ID)
    while bytes(guest.stdin) != b"typed":
        await guest.news.wait()
    guest.output(b"shown")
    assert (await shown(attached)).data == b"shown"
    executed = stubs.interaction.Exec()
    await executed.write(
        InputChunk(exec=ExecOpen(id=ID, exec_id="e1", process=Process(argv=["x"]), detach=True))
    )
    assert (await executed.read()).pid == 99
    assert await executed.read() is grpc.aio.EOF
    assert (await stubs.interaction.ExecInspect(ExecRef(id=ID, exec_id="e1"))).running
    assert len((await stubs.interaction.Execs(ContainerRef(id=ID))).execs) == 1
    records = [r async for r in stubs.interaction.Logs(LogsRequest(id=ID, stdout=True, tail=-1))]
    assert [record.data for record in records] == [b"shown"]

    def chunks() -> Iterator[CopyInChunk]:
        yield CopyInChunk(id=ID, path=b"/x", data=b"a")
        yield CopyInChunk(data=b"b")

    await stubs.interaction.CopyIn(chunks())
    pieces = [c async for c in stubs.interaction.CopyOut(PathRequest(id=ID, path=b"/x"))]
    assert pieces[0].stat.size == 2
    assert pieces[1].data == b"ab"
    assert (await stubs.interaction.StatPath(PathRequest(id=ID, path=b"/x"))).size == 2
    guest.exit(6)
    assert (await shown(attached)).exit_code == 6


async def shown(attached: Any) -> OutputChunk:
    """What comes next that is no word about input."""
    while (chunk := await attached.read()).stream == OutputChunk.STDIN_ACK:
        pass
    return chunk


@pytest.mark.parametrize("method", ["Attach", "Exec"])
async def test_streams_begin_with_their_opening(stubs: Stubs, method: str) -> None:
    call = getattr(stubs.interaction, method)()
    await call.write(InputChunk(data=b"x"))
    error = await refused(call)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_layers(world: World, stubs: Stubs) -> None:
    def chunks(*, commit: bool) -> Iterator[PutLayerChunk]:
        yield PutLayerChunk(header=LayerHeader(chain_id=CHAIN), data=b"t")
        yield PutLayerChunk(data=b"ar", commit=commit)

    error = await refused(stubs.layers.Put(chunks(commit=False)))
    assert "without a commit" in error.details()
    assert (await stubs.layers.List(Empty())).layers == []
    layer = await stubs.layers.Put(chunks(commit=True))
    assert (layer.chain_id, layer.size) == (CHAIN, 3)
    assert (await stubs.layers.Get(LayerRef(chain_id=CHAIN))) == layer
    exported = [c async for c in stubs.layers.Export(LayerRef(chain_id=CHAIN))]
    assert b"".join(chunk.data for chunk in exported) == b"tar"
    world.images.layers.add(CHAIN)
    await world.create(ID, layer=CHAIN)
    assert reason(await refused(stubs.layers.Remove(LayerRef(chain_id=CHAIN)))) == "LAYER_IN_USE"
    await world.execution.remove(ID, force=False)
    await stubs.layers.Remove(LayerRef(chain_id=CHAIN))


async def test_nothing_may_follow_a_commit(stubs: Stubs) -> None:
    def chunks() -> Iterator[PutLayerChunk]:
        yield PutLayerChunk(header=LayerHeader(chain_id=CHAIN))
        yield PutLayerChunk(commit=True)
        yield PutLayerChunk(data=b"more")

    assert "commit" in (await refused(stubs.layers.Put(chunks()))).details()


async def test_volumes(world: World, stubs: Stubs) -> None:
    events = stubs.system.Events(EventsSubscription())
    await events.read()
    volume = await stubs.volumes.Create(Volume(name="data", labels={"a": "b"}))
    assert (volume.store, volume.used_bytes, dict(volume.labels)) == ("default", 3, {"a": "b"})
    assert (await events.read()).volume.volume.name == "data"
    await world.create(ID, mounts=[mount()])
    assert list((await stubs.volumes.Get(VolumeRef(name="data"))).users) == [ID]
    assert reason(await refused(stubs.volumes.Remove(RemoveVolumeRequest(name="data")))) == "VOLUME_IN_USE"
    assert len((await stubs.volumes.List(Empty())).volumes) == 1
    await world.execution.remove(ID, force=False)
    await stubs.volumes.Remove(RemoveVolumeRequest(name="data"))
    await stubs.volumes.Remove(RemoveVolumeRequest(name="data", force=True))
    assert reason(await refused(stubs.volumes.Remove(RemoveVolumeRequest(name="data")))) == "NO_SUCH_VOLUME"


async def test_a_volume_that_vanishes_while_it_is_listed_is_left_out(
    stubs: Stubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stubs.volumes.Create(Volume(name="one"))
    await stubs.volumes.Create(Volume(name="two"))

    async def used_bytes(self: FakeVolumeStores, name: str) -> int:
        if name == "one":
            raise FileNotFoundError(name)
        return 1

    monkeypatch.setattr(FakeVolumeStores, "used_bytes", used_bytes)
    assert [volume.name for volume in (await stubs.volumes.List(Empty())).volumes] == ["two"]
    assert reason(await refused(stubs.volumes.Get(VolumeRef(name="one")))) == "NO_SUCH_VOLUME"


async def test_a_volume_that_is_being_removed_takes_no_new_user(world: World, stubs: Stubs) -> None:
    with world.execution.house.registry.removing_volume("data"):
        with pytest.raises(PortLayerError, match="being removed") as caught:
            await world.create(ID, mounts=[mount()])
        assert caught.value.reason == Reason.NO_SUCH_VOLUME
    await world.create(ID, mounts=[mount()])


async def test_networks(stubs: Stubs) -> None:
    made = await stubs.networks.Create(Network(name="n"))
    assert made.name == "n"
    assert (await stubs.networks.Get(NetworkRef(id=NETWORK))).id == NETWORK
    assert len((await stubs.networks.List(Empty())).networks) == 2
    await stubs.networks.Remove(NetworkRef(id=NETWORK))
    assert reason(await refused(stubs.networks.Get(NetworkRef(id="f" * 64)))) == "NO_SUCH_NETWORK"


async def test_documents(stubs: Stubs) -> None:
    first = await stubs.documents.Put(KeyValue(key="images/a", value=b"1"))
    second = await stubs.documents.Put(KeyValue(key="images/a", value=b"2", version=first.version))
    stale = KeyValue(key="images/a", value=b"3", version=first.version)
    assert reason(await refused(stubs.documents.Put(stale))) == "VERSION_CONFLICT"
    got = await stubs.documents.Get(KeyRef(key="images/a"))
    assert (got.value, got.version) == (b"2", second.version)
    assert [item.key for item in (await stubs.documents.List(KeyPrefix(prefix="images/"))).items] == [
        "images/a"
    ]
    await stubs.documents.Delete(KeyRef(key="images/a"))
    assert reason(await refused(stubs.documents.Get(KeyRef(key="images/a")))) == "NO_SUCH_KEY"


async def test_info(world: World, stubs: Stubs) -> None:
    await world.running(ID)
    info = await stubs.system.Info(Empty())
    assert (info.vch, info.hypervisor, info.kernel) == ("test", "fake", "6.1.0-test")
    assert info.status["Container VMs running"] == "1"
    assert info.cpus > 0
    assert info.memory > 1 << 28
    assert list(info.volume_stores) == ["default"]


async def test_events_begin_with_ready_and_a_slow_reader_is_cut_off(world: World, stubs: Stubs) -> None:
    world.execution.house.hub._limit = 3
    events = stubs.system.Events(EventsSubscription())
    assert (await events.read()).ready
    await world.create(ID)
    event = await events.read()
    assert (event.sequence, event.container.kind) == (1, ContainerEvent.CREATED)
    for _ in range(100):
        world.execution.house.announce(world.execution.get(ID), ContainerEvent.CHANGED)
    error = await refused(events)
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
