"""A real port layer of its own VCH, and a gRPC client that speaks in short words."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from portlayer.portlayer_pb2 import (
    AttachOpen,
    Container,
    ContainerRef,
    ContainerSpec,
    ContainerState,
    Endpoint,
    ExecOpen,
    Handle,
    InputChunk,
    KillRequest,
    LayerHeader,
    LogsRequest,
    OutputChunk,
    PutLayerChunk,
    RemoveContainerRequest,
    StopRequest,
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
)
from tests.system.harness import GUEST, Host
from tether.tether_pb2 import Empty, Process
from vch.config import Defaults, Guest, VchConfig

__all__ = ["Client", "PortLayer", "Stream", "busybox_layer", "reason"]


class PortLayer:
    """``python -m portlayer`` inside the host's network namespace."""

    def __init__(self, host: Host, **config: Any) -> None:
        self.host = host
        root = host.directory / "portlayer"
        root.mkdir(mode=0o711, exist_ok=True)
        guest = config.pop("guest", Guest(kernel=GUEST / "kernel", initrd=GUEST / "initrd"))
        defaults = config.pop("defaults", Defaults(memory_mib=256, disk_bytes=1 << 30))
        self.config = VchConfig(
            name="portlayer",
            id="7" * 32,
            root=root,
            run=Path(f"/run/{host.name}"),
            guest=guest,
            qemu_user="nobody",
            defaults=defaults,
            **config,
        )
        self.config.run.mkdir(mode=0o711, exist_ok=True)
        self.config.save(self.config.paths.config)
        self.log = root / "portlayer.log"
        self.process: subprocess.Popen[bytes] | None = None

    def spawn(self) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "portlayer", "--debug", "--config", self.config.paths.config]
        return self.host.spawn(*words, log=self.log, start_new_session=True)

    async def start(self) -> None:
        self.process = self.spawn()
        while not self.config.paths.portlayer_socket.exists():
            assert self.process.poll() is None, self.log.read_text()
            await asyncio.sleep(0.02)

    async def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self.process.wait, 30)

    async def kill(self) -> None:
        """kill -9: what the next one finds is what was durable."""
        assert self.process is not None
        self.process.kill()
        await asyncio.to_thread(self.process.wait, 30)
        self.config.paths.portlayer_socket.unlink(missing_ok=True)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        async with grpc.aio.insecure_channel(f"unix:{self.config.paths.portlayer_socket}") as channel:
            yield Client(channel)


class Stream:
    """An attach or exec under way: what came so far, by stream."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self.out = bytearray()
        self.err = bytearray()
        self.code: int | None = None

    async def write(self, data: bytes, *, close: bool = False) -> None:
        await self._call.write(InputChunk(data=data, close=close))

    async def _next(self) -> bool:
        chunk = await self._call.read()
        if chunk is grpc.aio.EOF:
            return False
        if chunk.stream == OutputChunk.STDOUT:
            self.out += chunk.data
        elif chunk.stream == OutputChunk.STDERR:
            self.err += chunk.data
        elif chunk.stream == OutputChunk.EXITED:
            self.code = chunk.exit_code
        return True

    async def until(self, words: bytes) -> None:
        while words not in self.out:
            assert await self._next(), f"the stream ended without {words!r}: {self.out!r} {self.err!r}"

    async def end(self) -> Stream:
        while await self._next():
            pass
        return self

    def cancel(self) -> None:
        self._call.cancel()


class Client:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.containers: Any = ContainersStub(channel)
        self.interaction: Any = InteractionStub(channel)
        self.layers: Any = LayersStub(channel)
        self.volumes: Any = VolumesStub(channel)
        self.networks: Any = NetworksStub(channel)
        self.documents: Any = KeyValuesStub(channel)
        self.system: Any = SystemStub(channel)

    async def put_layer(self, tar: bytes, parent: str = "") -> str:
        diff = "sha256:" + hashlib.sha256(tar).hexdigest()
        chain = "sha256:" + hashlib.sha256(f"{parent} {diff}".encode()).hexdigest() if parent else diff

        def chunks() -> Iterator[PutLayerChunk]:
            yield PutLayerChunk(header=LayerHeader(chain_id=chain, parent=parent, diff_id=diff))
            for at in range(0, len(tar), 1 << 18):
                yield PutLayerChunk(data=tar[at : at + (1 << 18)])
            yield PutLayerChunk(commit=True)

        layer = await self.layers.Put(chunks())
        return str(layer.chain_id)

    async def bridge(self) -> str:
        networks = (await self.networks.List(Empty())).networks
        return next(network.id for network in networks if network.name == "bridge")

    async def create(self, layer: str, *argv: str, **fields: Any) -> str:
        identifier = os.urandom(32).hex()
        words = {"env": ["PATH=/bin"]} | {
            name: fields.pop(name) for name in ("env", "tty", "open_stdin", "user", "cwd") if name in fields
        }
        if "endpoints" not in fields:
            fields["endpoints"] = [Endpoint(network=await self.bridge())]
        fields.setdefault("name", f"t{identifier[:10]}")
        spec = ContainerSpec(
            layer=layer, process=Process(argv=argv, **words), hostname=identifier[:12], **fields
        )
        await self.containers.Commit(Handle(id=identifier, spec=spec))
        return identifier

    async def start(self, identifier: str) -> ContainerState:
        return await self.containers.Start(ContainerRef(id=identifier))

    async def run(self, layer: str, *argv: str, **fields: Any) -> str:
        identifier = await self.create(layer, *argv, **fields)
        await self.start(identifier)
        return identifier

    async def get(self, identifier: str) -> Container:
        return await self.containers.Get(ContainerRef(id=identifier))

    async def stop(self, identifier: str, timeout: int = 10) -> ContainerState:
        return await self.containers.Stop(StopRequest(id=identifier, timeout=timeout))

    async def kill(self, identifier: str, number: int = 9) -> None:
        await self.containers.Kill(KillRequest(id=identifier, signal=number))

    async def remove(self, identifier: str) -> None:
        await self.containers.Remove(RemoveContainerRequest(id=identifier, force=True))

    async def wait(self, identifier: str) -> WaitReply:
        call = self.containers.Wait(WaitRequest(id=identifier))
        await call.read()  # armed
        return await call.read()

    async def logs(self, identifier: str, **fields: Any) -> bytes:
        request = LogsRequest(id=identifier, **({"stdout": True, "stderr": True, "tail": -1} | fields))
        return b"".join([record.data async for record in self.interaction.Logs(request)])

    async def attach(self, identifier: str, *, stdin: bool = False, from_start: bool = False) -> Stream:
        opening = AttachOpen(id=identifier, stdin=stdin, stdout=True, stderr=True, from_start=from_start)
        call = self.interaction.Attach()
        await call.write(InputChunk(open=opening))
        ready = await call.read()
        assert ready.stream == OutputChunk.READY
        return Stream(call)

    async def exec(self, identifier: str, *argv: str, stdin: bool = False, **process: Any) -> Stream:
        words = Process(argv=argv, env=["PATH=/bin"], open_stdin=stdin, **process)
        opening = ExecOpen(
            id=identifier, exec_id=os.urandom(8).hex(), process=words, stdin=stdin, stdout=True, stderr=True
        )
        call = self.interaction.Exec()
        await call.write(InputChunk(exec=opening))
        ready = await call.read()
        assert ready.stream == OutputChunk.READY
        return Stream(call)


def reason(error: grpc.aio.AioRpcError) -> str:
    return str(dict(error.trailing_metadata() or ()).get("mooring-reason", ""))


APPLETS = (
    "sh ls cat echo sleep true false ps id uname head seq yes dd kill stty wc ip ping wget nc httpd "
    "hostname env touch mkdir printf sync tail sort md5sum tr mount"
)


def busybox_layer() -> bytes:
    """A base layer: busybox and the few directories a container needs."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("bin", "etc", "tmp", "root", "proc", "sys", "dev", "var", "data"):
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.DIRTYPE
            entry.mode = 0o1777 if name == "tmp" else 0o755
            tar.addfile(entry)
        _file(tar, "bin/busybox", Path("/usr/bin/busybox").read_bytes(), 0o755)
        for applet in APPLETS.split():
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type = tarfile.SYMTYPE
            entry.linkname = "busybox"
            tar.addfile(entry)
        _file(tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n")
        _file(tar, "data/from-image", b"image\n")
    return buffer.getvalue()


def _file(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    entry.mode = mode
    tar.addfile(entry, io.BytesIO(data))
