"""`docker cp`: through the guest while the container runs, on its opened disk otherwise.

Offline, the container's lock is held: its VM cannot start while its disk is
mounted on the host. Volumes that another VM has open are left out; a path below
one of them is refused, because what would be found there is not the volume.
"""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from portlayer.channel import ChannelError, TetherError
from portlayer.errors import PortLayerError
from portlayer.execution.container import Container
from portlayer.execution.guest import ask, guest_error, running_channel
from portlayer.execution.house import House
from portlayer.execution.rooms import GuestStream, OfflineTree
from portlayer.execution.states import STOPPED, Status, require
from portlayer.portlayer_pb2 import Reason
from tether.tether_pb2 import CopyInRequest, CopyOutRequest, Empty, PathStat, StatPathRequest
from tether.wire import Code

__all__ = ["copy_in", "copy_out", "stat_path"]

_LONGEST_PATH = 4096
_CALL = "copy files of"


async def stat_path(house: House, container: Container, path: bytes) -> PathStat:
    _check(path)
    if _through_guest(container):
        request = StatPathRequest(path=path)
        return await ask(container, "StatPath", request, PathStat, call=_CALL, timeout=house.timeouts.call)
    async with _offline(house, container, path, writable=False) as tree:
        return await tree.stat(path)


async def copy_out(house: House, container: Container, path: bytes) -> AsyncIterator[PathStat | bytes]:
    """The path's status, then a tar stream."""
    _check(path)
    if _through_guest(container):
        stream = await _stream(house, container, "CopyOut", CopyOutRequest(path=path))
        async with stream:
            try:
                yield await stream.response(PathStat)
                while data := await stream.receive():
                    yield data
            except ChannelError as error:
                raise _failure(container, error) from error
        return
    async with _offline(house, container, path, writable=False) as tree:
        yield await tree.stat(path)
        async for data in tree.copy_out(path):
            yield data


async def copy_in(
    house: House,
    container: Container,
    path: bytes,
    chunks: AsyncIterator[bytes],
    *,
    no_overwrite_dir_non_dir: bool,
    copy_uid_gid: bool,
) -> None:
    _check(path)
    if _through_guest(container):
        request = CopyInRequest(
            path=path, no_overwrite_dir_non_dir=no_overwrite_dir_non_dir, copy_uid_gid=copy_uid_gid
        )
        async with await _stream(house, container, "CopyIn", request) as stream:
            try:
                async for data in chunks:
                    await stream.send(data)
                await stream.send(b"", end=True)
                await stream.response(Empty)
            except ChannelError as error:
                raise _failure(container, error) from error
        return
    async with _offline(house, container, path, writable=True) as tree:
        await tree.copy_in(
            path,
            chunks,
            no_overwrite_dir_non_dir=no_overwrite_dir_non_dir,
            copy_uid_gid=copy_uid_gid,
            user=container.spec.process.user,
        )


def _check(path: bytes) -> None:
    if not path or len(path) > _LONGEST_PATH or b"\0" in path:
        raise PortLayerError(Reason.UNSPECIFIED, "a path has 1 to 4096 bytes, none of them zero")


def _through_guest(container: Container) -> bool:
    if container.status in STOPPED or container.status is Status.RESTARTING:
        return False
    require(container.name, _CALL, container.status, (Status.RUNNING, Status.STOPPING))
    return True


async def _stream(
    house: House, container: Container, method: str, request: CopyInRequest | CopyOutRequest
) -> GuestStream:
    channel = running_channel(container, _CALL)
    try:
        async with asyncio.timeout(house.timeouts.call):
            return await channel.stream(method, request)
    except TimeoutError as error:
        words = f"cannot {_CALL} container {container.name}: its guest does not answer"
        raise PortLayerError(Reason.GUEST_LOST, words) from error
    except ChannelError as error:
        raise guest_error(container, _CALL, error) from error


def _failure(container: Container, error: ChannelError) -> PortLayerError:
    if isinstance(error, TetherError):
        if error.code is Code.ALREADY_EXISTS:
            return PortLayerError(Reason.IS_DIRECTORY_CONFLICT, str(error)[:4096])
        if error.code is Code.RESOURCE_EXHAUSTED:
            return PortLayerError(Reason.NO_SPACE, str(error)[:4096])
    return guest_error(container, _CALL, error)


@asynccontextmanager
async def _offline(
    house: House, container: Container, path: bytes, *, writable: bool
) -> AsyncIterator[OfflineTree]:
    async with container.lock, AsyncExitStack() as stack:
        require(container.name, _CALL, container.status, (*STOPPED, Status.RESTARTING))
        volumes = _free_volumes(house, container, path, stack)
        tree = await stack.enter_async_context(
            house.rooms.disks.offline(container.id, volumes=volumes, writable=writable)
        )
        yield tree


def _free_volumes(
    house: House, container: Container, path: bytes, stack: AsyncExitStack
) -> list[tuple[Path, str, bool]]:
    registry = house.registry
    for shared in container.spec.host_mounts:
        if _below(path, shared.destination):
            raise PortLayerError(
                Reason.NOT_SUPPORTED,
                f"{shared.destination} of container {container.name} is a path of the host: "
                "files are copied there while the container runs, or on the host",
            )
    volumes: list[tuple[Path, str, bool]] = []
    disks = house.disk_volumes(container.spec)
    for mount in container.spec.mounts:
        if mount.volume not in disks and _below(path, mount.destination):
            raise PortLayerError(
                Reason.NOT_SUPPORTED,
                f"{mount.destination} of container {container.name} is a directory of the host: "
                "files are copied there while the container runs, or on the host",
            )
    for name, read_only in disks.items():
        user = registry.volume_conflict(container, name, read_only=False)
        for mount in container.spec.mounts:
            if mount.volume != name or mount.subpath:
                continue
            if user is None:
                volumes.append((house.rooms.volumes.get(name).path, mount.destination, read_only))
            elif _below(path, mount.destination):
                raise PortLayerError(
                    Reason.VOLUME_IN_USE,
                    f"{mount.destination} of container {container.name} is volume {name}, "
                    f"which container {user} is using",
                )
        if user is None:
            registry.hold_offline(container, name)
            stack.callback(registry.release_offline, container, name)
    return volumes


def _below(path: bytes, destination: str) -> bool:
    clean = posixpath.normpath(b"/" + path.lstrip(b"/"))
    mount = posixpath.normpath(destination).encode()
    return clean == mount or clean.startswith(mount.rstrip(b"/") + b"/")
