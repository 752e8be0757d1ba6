"""A port layer in memory, behind real gRPC: layers with their tars, documents, containers.

It keeps the contract's rules that the image room leans on: digests are checked, a layer without its
parent or with a wrong digest does not come to be, one that is stood on does not go.
"""

import contextlib
import hashlib
import io
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from portlayer import portlayer_pb2 as pb
from portlayer import portlayer_pb2_grpc as rpc
from tether import tether_pb2

Hook = Callable[[str, Any], Awaitable[None]]


async def refuse(context: Any, reason: "pb.Reason.ValueType", message: str) -> None:
    await context.abort(
        grpc.StatusCode.FAILED_PRECONDITION, message, (("mooring-reason", pb.Reason.Name(reason)),)
    )


@dataclass
class FakePortLayer:
    layers: dict[str, pb.Layer] = field(default_factory=dict)
    tars: dict[str, bytes] = field(default_factory=dict)
    keys: dict[str, bytes] = field(default_factory=dict)
    containers: dict[str, pb.Container] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)  # ("put", chain), ("key", key), …
    before: Hook | None = None  # called with the call's name before it has its effect; may raise

    async def note(self, what: str, name: str, context: Any) -> None:
        self.calls.append((what, name))
        if self.before is not None:
            try:
                await self.before(what, name)
            except RuntimeError as error:
                await context.abort(grpc.StatusCode.INTERNAL, str(error))

    def done(self, what: str) -> list[str]:
        return [name for kind, name in self.calls if kind == what]

    def names(self, chain_id: str) -> list[str]:
        with tarfile.open(fileobj=io.BytesIO(self.tars[chain_id])) as tar:
            return tar.getnames()

    def used(self) -> set[str]:
        """Layers that a container stands on."""
        return {container.handle.spec.layer for container in self.containers.values()}


class Layers(rpc.LayersServicer):
    def __init__(self, fake: FakePortLayer) -> None:
        self.fake = fake

    async def Put(self, request_iterator: AsyncIterator[pb.PutLayerChunk], context: Any) -> pb.Layer:  # noqa: N802
        fake = self.fake
        header: pb.LayerHeader | None = None
        data = bytearray()
        committed = False
        async for chunk in request_iterator:
            if chunk.HasField("header"):
                header = chunk.header
                await fake.note("begin", header.chain_id, context)
                if header.parent and header.parent not in fake.layers:
                    await refuse(context, pb.NO_SUCH_LAYER, f"no layer {header.parent}")
            data += chunk.data
            committed |= chunk.commit
        assert header is not None
        if not committed:
            return pb.Layer()
        found = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if found != header.diff_id:
            await refuse(context, pb.BAD_LAYER, f"layer {header.diff_id} has the digest {found}")
        await fake.note("put", header.chain_id, context)
        layer = pb.Layer(
            chain_id=header.chain_id,
            parent=header.parent,
            diff_id=header.diff_id,
            size=len(data),
            archive_size=len(data),
            path=f"/layers/{header.chain_id[7:]}/disk.vmdk",
        )
        fake.layers[header.chain_id] = layer
        fake.tars[header.chain_id] = bytes(data)
        return layer

    async def Get(self, request: pb.LayerRef, context: Any) -> pb.Layer:  # noqa: N802
        if request.chain_id not in self.fake.layers:
            await refuse(context, pb.NO_SUCH_LAYER, f"no layer {request.chain_id}")
        return self.fake.layers[request.chain_id]

    async def Export(self, request: pb.LayerRef, context: Any) -> AsyncIterator[pb.CopyOutChunk]:  # noqa: N802
        await self.fake.note("export", request.chain_id, context)
        yield pb.CopyOutChunk(data=self.fake.tars[request.chain_id])

    async def List(self, request: tether_pb2.Empty, context: Any) -> pb.LayerList:  # noqa: N802
        return pb.LayerList(layers=self.fake.layers.values())

    async def Remove(self, request: pb.LayerRef, context: Any) -> tether_pb2.Empty:  # noqa: N802
        fake = self.fake
        chain_id = request.chain_id
        if chain_id not in fake.layers:
            await refuse(context, pb.NO_SUCH_LAYER, f"no layer {chain_id}")
        if chain_id in fake.used() or any(layer.parent == chain_id for layer in fake.layers.values()):
            await refuse(context, pb.LAYER_IN_USE, f"layer {chain_id} is in use")
        await fake.note("remove", chain_id, context)
        del fake.layers[chain_id], fake.tars[chain_id]
        return tether_pb2.Empty()


class KeyValues(rpc.KeyValuesServicer):
    def __init__(self, fake: FakePortLayer) -> None:
        self.fake = fake

    async def Put(self, request: pb.KeyValue, context: Any) -> pb.KeyValue:  # noqa: N802
        await self.fake.note("key", request.key, context)
        self.fake.keys[request.key] = request.value
        return pb.KeyValue(key=request.key, version=1)

    async def Get(self, request: pb.KeyRef, context: Any) -> pb.KeyValue:  # noqa: N802
        if request.key not in self.fake.keys:
            await refuse(context, pb.NO_SUCH_KEY, f"no key {request.key}")
        return pb.KeyValue(key=request.key, value=self.fake.keys[request.key], version=1)

    async def List(self, request: pb.KeyPrefix, context: Any) -> pb.KeyValueList:  # noqa: N802
        return pb.KeyValueList(
            items=[
                pb.KeyValue(key=key, value=value, version=1)
                for key, value in self.fake.keys.items()
                if key.startswith(request.prefix)
            ]
        )

    async def Delete(self, request: pb.KeyRef, context: Any) -> tether_pb2.Empty:  # noqa: N802
        if request.key not in self.fake.keys:
            await refuse(context, pb.NO_SUCH_KEY, f"no key {request.key}")
        await self.fake.note("delete", request.key, context)
        del self.fake.keys[request.key]
        return tether_pb2.Empty()


class Containers(rpc.ContainersServicer):
    def __init__(self, fake: FakePortLayer) -> None:
        self.fake = fake

    async def List(self, request: pb.ListContainersRequest, context: Any) -> pb.ContainerList:  # noqa: N802
        return pb.ContainerList(containers=self.fake.containers.values())


@contextlib.asynccontextmanager
async def serving(fake: FakePortLayer, socket: Path) -> AsyncIterator[None]:
    server = grpc.aio.server(options=(("grpc.max_receive_message_length", 16 << 20),))
    rpc.add_LayersServicer_to_server(Layers(fake), server)
    rpc.add_KeyValuesServicer_to_server(KeyValues(fake), server)
    rpc.add_ContainersServicer_to_server(Containers(fake), server)
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)
