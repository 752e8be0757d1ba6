"""The newc writer, checked by cpio itself."""

import io
import stat
import subprocess
from pathlib import Path

from imagebuild.cpio import CpioWriter, Node

NODES = (
    Node(name="dev", mode=stat.S_IFDIR | 0o755),
    Node(name="dev/null", mode=stat.S_IFCHR | 0o666, rdev=(1, 3)),
    Node(name="init", mode=stat.S_IFREG | 0o755, data=b"#!/bin/true\n"),
    Node(name="odd", mode=stat.S_IFREG | 0o600, data=b"12345"),
    Node(name="link", mode=stat.S_IFLNK | 0o777, data=b"init"),
)


def archive(*nodes: Node) -> bytes:
    buffer = io.BytesIO()
    writer = CpioWriter(buffer)
    for node in nodes:
        writer.add(node)
    writer.close()
    return buffer.getvalue()


def test_cpio_lists_what_was_added() -> None:
    listing = subprocess.run(
        ["cpio", "-itv", "--quiet", "--numeric-uid-gid"],
        input=archive(*NODES),
        capture_output=True,
        check=True,
    ).stdout.decode()
    rows = [line.split() for line in listing.splitlines()]
    assert [row[0] for row in rows] == ["drwxr-xr-x", "crw-rw-rw-", "-rwxr-xr-x", "-rw-------", "lrwxrwxrwx"]
    assert all(row[2:4] == ["0", "0"] for row in rows)
    assert rows[-1][-3:] == ["link", "->", "init"]


def test_cpio_unpacks_the_same_bytes(tmp_path: Path) -> None:
    plain = [node for node in NODES if not stat.S_ISCHR(node.mode)]
    subprocess.run(["cpio", "-id", "--quiet"], input=archive(*plain), cwd=tmp_path, check=True)
    assert (tmp_path / "odd").read_bytes() == b"12345"
    assert (tmp_path / "link").read_bytes() == b"#!/bin/true\n"


def test_every_member_starts_on_four_bytes() -> None:
    data = archive(*NODES)
    offsets = [index for index in range(len(data)) if data[index : index + 6] == b"070701"]
    assert len(offsets) == len(NODES) + 1  # and the trailer
    assert [offset % 4 for offset in offsets] == [0] * len(offsets)


def test_the_same_tree_gives_the_same_bytes() -> None:
    assert archive(*NODES) == archive(*NODES)
