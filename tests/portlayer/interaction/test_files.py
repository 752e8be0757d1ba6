"""Files of running and stopped containers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from portlayer.channel import TetherError
from portlayer.errors import PortLayerError
from portlayer.interaction.files import copy_in, copy_out, stat_path
from portlayer.portlayer_pb2 import Reason
from tests.portlayer.world import World, mount
from tether.tether_pb2 import PathStat
from tether.wire import Code

ID = "1" * 64


def room(world: World) -> tuple[Any, Any]:
    return world.execution.house, world.execution.get(ID)


async def chunks(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece


async def read(world: World, path: bytes) -> tuple[PathStat, bytes]:
    pieces = [piece async for piece in copy_out(*room(world), path)]
    assert isinstance(pieces[0], PathStat)
    return pieces[0], b"".join(pieces[1:])


async def write(world: World, path: bytes, *data: bytes) -> None:
    await copy_in(*room(world), path, chunks(*data), no_overwrite_dir_non_dir=False, copy_uid_gid=False)


async def test_running_goes_through_the_guest(world: World) -> None:
    await world.running(ID)
    await write(world, b"/x", b"a", b"b")
    assert world.guest(ID).files == {b"/x": b"ab"}
    assert await read(world, b"/x") == (PathStat(name=b"/x", size=2), b"ab")
    assert (await stat_path(*room(world), b"/x")).size == 2
    assert world.disks.mounted == []


async def test_stopped_goes_through_the_disk_with_its_volumes(world: World) -> None:
    await world.create(ID, mounts=[mount(), mount("other", "/ro", read_only=True)])
    await write(world, b"/x", b"ab")
    assert (await read(world, b"/x"))[1] == b"ab"
    (container, volumes, writable), reading = world.disks.mounted
    assert container == ID
    assert [(path.name, where, ro) for path, where, ro in volumes] == [
        ("data", "/data", False),
        ("other", "/ro", True),
    ]
    assert writable
    assert not reading[2]


@pytest.mark.parametrize("running", [True, False])
async def test_a_path_that_is_not_there(world: World, running: bool) -> None:
    await world.create(ID)
    if running:
        await world.execution.start(ID)
    with pytest.raises(PortLayerError) as caught:
        await stat_path(*room(world), b"/no")
    assert caught.value.reason == Reason.NO_SUCH_PATH
    with pytest.raises(PortLayerError) as caught:
        await read(world, b"/no")
    assert caught.value.reason == Reason.NO_SUCH_PATH


async def test_a_conflict_of_file_and_directory_keeps_its_reason(world: World) -> None:
    await world.running(ID)
    world.channel(ID).guest_stream = refuse  # type: ignore[method-assign]
    with pytest.raises(PortLayerError) as caught:
        await write(world, b"/x", b"a")
    assert caught.value.reason == Reason.IS_DIRECTORY_CONFLICT


async def refuse(*_: Any) -> AsyncIterator[Any]:
    yield TetherError(Code.ALREADY_EXISTS, "cannot overwrite a directory")


async def test_paused_is_refused(world: World) -> None:
    await world.running(ID)
    await world.execution.pause(ID)
    with pytest.raises(PortLayerError) as caught:
        await stat_path(*room(world), b"/x")
    assert caught.value.reason == Reason.PAUSED


@pytest.mark.parametrize("path", [b"", b"/a\0b", b"/" * 5000])
async def test_paths_are_bounded(world: World, path: bytes) -> None:
    await world.create(ID)
    with pytest.raises(PortLayerError, match="4096"):
        await stat_path(*room(world), path)


async def test_a_volume_that_another_vm_has_is_left_alone(world: World) -> None:
    await world.running(name="user", mounts=[mount()])
    await world.create(ID, name="stopped", mounts=[mount()])
    world.disks.disks[ID][b"/etc/x"] = b"1"
    assert (await read(world, b"/etc/x"))[1] == b"1"
    assert world.disks.mounted[-1][1] == ()
    for path in (b"/data", b"/data/file", b"/x/../data/file", b"data/file"):
        with pytest.raises(PortLayerError, match="user is using") as caught:
            await read(world, path)
        assert caught.value.reason == Reason.VOLUME_IN_USE


async def test_a_container_does_not_start_while_its_disk_is_open(world: World) -> None:
    await world.create(ID)
    world.disks.disks[ID][b"/x"] = b"1"
    stream = copy_out(*room(world), b"/x")
    await anext(stream)
    assert world.execution.get(ID).lock.locked()
    await stream.aclose()
    await world.execution.start(ID)


async def test_a_volume_that_is_open_offline_keeps_its_other_users_from_starting(world: World) -> None:
    await world.create(ID, name="one", mounts=[mount(read_only=True)])
    world.disks.disks[ID][b"/x"] = b"1"
    other = await world.create(name="two", mounts=[mount()])
    stream = copy_out(*room(world), b"/x")
    await anext(stream)
    with pytest.raises(PortLayerError) as caught:
        await world.execution.start(other)
    assert caught.value.reason == Reason.VOLUME_IN_USE
    await stream.aclose()
    await world.execution.start(other)
