"""docker cp's endpoints: stat header, tar out, tar in (compressed too), errors."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import stat
import tarfile
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from engine.containers.files import go_file_mode
from tests.engine.conftest import Api
from tests.engine.fake.state import FakeHost


def archive(size: int = 100_000) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("file")
        info.size = size
        tar.addfile(info, io.BytesIO(bytes(size)))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (stat.S_IFREG | 0o644, 0o644),
        (stat.S_IFDIR | 0o755, 1 << 31 | 0o755),
        (stat.S_IFLNK | 0o777, 1 << 27 | 0o777),
        (stat.S_IFCHR | 0o600, 1 << 26 | 1 << 21 | 0o600),
        (stat.S_IFBLK | 0o600, 1 << 26 | 0o600),
        (stat.S_IFIFO | 0o600, 1 << 25 | 0o600),
        (stat.S_IFSOCK | 0o600, 1 << 24 | 0o600),
        (stat.S_IFREG | 0o4755, 1 << 23 | 0o755),
        (stat.S_IFREG | 0o2755, 1 << 22 | 0o755),
        (stat.S_IFDIR | 0o1777, 1 << 31 | 1 << 20 | 0o777),
    ],
)
def test_go_file_modes(mode: int, expected: int) -> None:
    assert go_file_mode(mode) == expected


async def test_stat_and_copy_out(api: Api, host: FakeHost) -> None:
    container = await api.create()
    data = archive()
    host.machines[container].files[b"/etc/motd"] = data
    head = await api("HEAD", f"/containers/{container}/archive?path=/etc/motd")
    found = json.loads(base64.b64decode(head.headers["x-docker-container-path-stat"]))
    assert found == {
        "name": "motd",
        "size": len(data),
        "mode": 0o644,
        "mtime": "1970-01-01T00:00:01Z",
        "linkTarget": "",
    }
    got = await api("GET", f"/containers/{container}/archive?path=/etc/motd")
    assert (got.headers["content-type"], got.body) == ("application/x-tar", data)
    assert got.headers["x-docker-container-path-stat"] == head.headers["x-docker-container-path-stat"]


@pytest.mark.parametrize(
    "compress",
    [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.ZstdCompressor().compress],
    ids=["plain", "gzip", "bzip2", "xz", "zstd"],
)
async def test_copy_in(api: Api, host: FakeHost, compress: Callable[[bytes], bytes]) -> None:
    container = await api.create()
    data = archive(3_000_000)
    reply = await api("PUT", f"/containers/{container}/archive?path=/srv", raw=compress(data))
    assert reply.status == 200, reply.body
    assert host.machines[container].files[b"/srv"] == data


@pytest.mark.parametrize(
    ("method", "path", "raw", "status", "message"),
    [
        ("GET", "", b"", 400, "bad parameter: 'path' cannot be empty"),
        ("GET", "/nowhere", b"", 404, "Could not find the file /nowhere in container box"),
        ("PUT", "/missing", b"x" * 600, 404, "Could not find the file /missing in container box"),
        ("PUT", "/srv", gzip.compress(b"x" * 5000, mtime=0)[:20], 400, "the gzip archive is cut short"),
        ("PUT", "/srv", b"\x1f\x8b\x08" + b"garbage" * 10, 400, "the gzip archive is damaged"),
        ("PUT", "/srv", b"\x28\xb5\x2f\xfd" + b"garbage" * 10, 400, "the zstd archive is damaged"),
    ],
)
async def test_errors(api: Api, method: str, path: str, raw: bytes, status: int, message: str) -> None:
    await api.create(name="box")
    reply = await api(method, f"/containers/box/archive?path={path}", raw=raw)
    assert reply.status == status
    assert reply.message.startswith(message)


async def test_missing_file_answers_head_with_404(api: Api) -> None:
    await api.create(name="box")
    assert (await api("HEAD", "/containers/box/archive?path=/nowhere")).status == 404


async def test_compressed_zeros_are_unpacked_piece_by_piece(api: Api, host: FakeHost) -> None:
    container = await api.create()
    data = archive(200 << 20)
    reply = await api(
        "PUT", f"/containers/{container}/archive?path=/srv", raw=zstandard.ZstdCompressor().compress(data)
    )
    assert reply.status == 200
    assert len(host.machines[container].files[b"/srv"]) == len(data)


@given(st.integers(min_value=0, max_value=(1 << 32) - 1))
def test_any_mode_has_a_go_mode(mode: int) -> None:
    assert 0 <= go_file_mode(mode) < 1 << 32
