"""Which paths of the host may be mounted, and as what."""

from __future__ import annotations

from pathlib import Path

import pytest

from portlayer.errors import PortLayerError
from portlayer.execution.hostpaths import FILE, HostPaths
from portlayer.portlayer_pb2 import HostMount, Reason
from tests.portlayer.world import World


def mounts_of(path: Path, *, create: bool = False, read_only: bool = False) -> list[HostMount]:
    return [HostMount(path=str(path), destination="/x", create=create, read_only=read_only)]


def test_directories_and_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    paths = HostPaths([tmp_path])
    shares, mounts = paths.of(mounts_of(tmp_path, read_only=True))
    assert (shares[0].path, shares[0].read_only) == (tmp_path, True)
    assert (mounts[0].share, mounts[0].subpath, mounts[0].read_only) == (shares[0].tag, "", True)
    _, mounts = paths.of(mounts_of(tmp_path / "file"))
    assert mounts[0].subpath == FILE


def test_a_directory_is_made_when_docker_would_make_it(tmp_path: Path) -> None:
    paths = HostPaths([tmp_path])
    with pytest.raises(PortLayerError, match="bind source path does not exist: "):
        paths.check(mounts_of(tmp_path / "new"))
    paths.check(mounts_of(tmp_path / "new" / "er", create=True))
    assert not (tmp_path / "new").exists(), "a check makes nothing"
    paths.of(mounts_of(tmp_path / "new" / "er", create=True))
    assert (tmp_path / "new" / "er").is_dir()


def test_only_what_is_shared(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "out").symlink_to("/etc")
    (shared / "loop").symlink_to("loop")
    for path in (tmp_path, Path("/etc"), shared / "out", shared / ".." / "x", shared / "out" / "passwd"):
        with pytest.raises(PortLayerError, match="is not allowed") as caught:
            HostPaths([shared]).check(mounts_of(path, create=True))
        assert caught.value.reason == Reason.NOT_SUPPORTED
    with pytest.raises(PortLayerError):
        HostPaths([shared]).check(mounts_of(shared / "loop", create=True))
    with pytest.raises(PortLayerError, match="--share-path"):
        HostPaths([]).check(mounts_of(shared))


async def test_a_container_without_leave_is_not_created(world: World) -> None:
    mount = HostMount(path="/etc", destination="/x")
    with pytest.raises(PortLayerError, match="not allowed"):
        await world.create(host_mounts=[mount])
    assert not world.execution.list()
