"""The process around the servicers: its lock, its socket, its kernel's name."""

from __future__ import annotations

import struct
from pathlib import Path

import grpc.aio
import pytest

from portlayer.operation import current_operation, set_operation
from portlayer.service.daemon import AlreadyServed, _only_one
from portlayer.service.kernel import kernel_release
from portlayer.service.server import bind, make_server


def test_a_second_one_is_refused(tmp_path: Path) -> None:
    with _only_one(tmp_path):
        second = _only_one(tmp_path)
        with pytest.raises(AlreadyServed, match="another port layer"):
            second.__enter__()
    with _only_one(tmp_path):
        pass


async def test_a_dead_ones_socket_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("left over")
    server = make_server()
    bind(server, tmp_path / "s")
    assert (tmp_path / "s").is_socket()
    await server.stop(None)


async def test_a_path_that_is_too_long_is_refused_with_its_limit(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="107"):
        bind(grpc.aio.server(), tmp_path / ("x" * 120))


def test_the_release_of_a_bzimage(tmp_path: Path) -> None:
    image = bytearray(0x5000)
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x20E, 0x3000)
    image[0x3200:0x3220] = b"6.1.99-cloud (builder) #1".ljust(32, b"\0")
    (tmp_path / "k").write_bytes(image)
    assert kernel_release(tmp_path / "k") == "6.1.99-cloud"


def test_the_release_of_a_vmlinux(tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(b"\x7fELF" + bytes(70_000) + b"Linux version 6.1.7-mooring (x) #2 SMP\n")
    assert kernel_release(tmp_path / "k") == "6.1.7-mooring"


def test_a_kernel_that_does_not_say(tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(b"x" * 100)
    assert kernel_release(tmp_path / "k") == ""


@pytest.mark.parametrize(
    ("wanted", "got"),
    [("abc-1.2_X", "abc-1.2_X"), ("evil\nline", "evilline"), ("x" * 500, "x" * 64)],
)
def test_operation_ids_are_cleaned(wanted: str, got: str) -> None:
    set_operation(wanted)
    assert current_operation() == got


def test_a_missing_operation_id_is_made() -> None:
    assert len(set_operation("")) == 12
