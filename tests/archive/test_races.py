"""Somebody inside the root swaps directories for links while we work, as a running container could."""

import io
import os
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import archive
from tests.archive.support import entry, root, tar

ROUNDS = 150


@contextmanager
def swapping(inside: Path, outside: Path) -> Iterator[None]:
    """``inside/a`` is a directory, then a link to ``outside``, and so on."""
    stop = threading.Event()
    real, link = inside / "real", inside / "link"
    link.symlink_to(outside)

    def work() -> None:
        while not stop.is_set():
            with suppress(OSError):
                os.rename(inside / "a", real)
                os.rename(link, inside / "a")
                os.rename(inside / "a", link)
                os.rename(real, inside / "a")

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_nothing_is_written_outside_and_nothing_read_from_there(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    (inside / "a" / "b").mkdir(parents=True)
    (outside / "b").mkdir(parents=True)
    (outside / "b" / "secret").write_bytes(b"secret")
    (inside / "a" / "b" / "mine").write_bytes(b"mine")
    before = sorted(outside.rglob("*"))
    times = [path.lstat().st_ctime_ns for path in (outside, *before)]
    data = tar(
        entry("a", tarfile.DIRTYPE, mode=0o777, mtime=5),
        (entry("a/b/file"), b"x"),
        entry("a/b/l", tarfile.LNKTYPE, linkname="a/b/file"),
        entry("a/b/s", tarfile.SYMTYPE, linkname="/"),
        entry("a/b/dir", tarfile.DIRTYPE, mode=0o700, mtime=7),
        entry("a/.wh.b"),
    )
    with root(inside) as fd, swapping(inside, outside):
        for number in range(ROUNDS):
            with suppress(archive.ArchiveError, OSError):
                options = archive.UnpackOptions(layer=number % 2 == 1)
                archive.unpack(fd, b"/", io.BytesIO(data), options=options)
            with suppress(archive.ArchiveError, OSError):
                assert b"secret" not in b"".join(archive.pack(fd, b"/a/b"))
            with suppress(OSError):
                archive.stat_path(fd, b"/a/b/secret")
                raise AssertionError("it saw a file outside")
    assert sorted(outside.rglob("*")) == before
    assert [path.lstat().st_ctime_ns for path in (outside, *before)] == times
