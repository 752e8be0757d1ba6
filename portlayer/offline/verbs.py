"""What the child can be asked for. Each verb is one function on a session and a channel."""

from __future__ import annotations

import os

import archive
import archive.paths
from portlayer.offline.changes import compare, pack_changes
from portlayer.offline.frames import CANCEL, DATA, END, Channel
from portlayer.offline.programs import run
from portlayer.offline.session import BUILD, Session
from portlayer.offline.setupfiles import without_setup_files
from portlayer.offline.skeleton import Recorder, replay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

__all__ = ["VERBS", "Cancelled"]

_LIST_SIZE = 1 << 18
_PIECE = 1 << 16
_FEATURES = (
    "none,has_journal,ext_attr,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,"
    "dir_nlink,extra_isize,metadata_csum"
)


class Cancelled(Exception):
    """The parent ended an upload before its end."""


def mount(session: Session, channel: Channel, arguments: dict[str, Any]) -> dict[str, Any]:
    session.mount(
        arguments["name"], arguments["path"], arguments["mode"], scratch=arguments.get("scratch", False)
    )
    return {}


def bind(session: Session, channel: Channel, arguments: dict[str, Any]) -> dict[str, Any]:
    session.bind(arguments["source"], os.fsencode(arguments["destination"]), read_only=arguments["read_only"])
    return {}


def format_disk(session: Session, channel: Channel, arguments: dict[str, Any]) -> dict[str, Any]:
    """An ext4 file system; ``directory`` is the only thing in it ("" = nothing).

    The disk is empty and reads as zeros: so neither inode tables nor the
    journal need to be zeroed, now or by the guest's lazy initialisation.
    Features are listed one by one: not what this host's mke2fs.conf thinks.
    No orphan_file (4.19 kernels do not know it), no resize_inode (64bit grows
    without), no reserved blocks (the workload is root on this disk).
    """
    disk = session.export("root", arguments["path"], BUILD)
    # a 64th of the disk; 4 MiB is the least ext4 takes, more than 32 fills the VMDK for nothing
    journal_mib = min(max(os.stat(disk.export).st_size >> 26, 4), 32)
    command = [
        "mke2fs",
        "-q",
        "-F",
        "-t",
        "ext4",
        "-b",
        "4096",
        "-I",
        "256",
        "-i",
        "16384",
        "-m",
        "0",
        "-e",
        "remount-ro",
    ]
    command += ["-L", arguments["label"], "-J", f"size={journal_mib}", "-O", _FEATURES]
    command += ["-E", "lazy_itable_init=1,nodiscard,assume_storage_prezeroed=1,root_owner=0:0", disk.export]
    run(command)
    root = session.attach(disk)
    os.rmdir("lost+found", dir_fd=root)  # no container has ever seen one; e2fsck makes it when it needs it
    if arguments["directory"]:
        os.mkdir(arguments["directory"], 0o755, dir_fd=root)
    return {}


def flatten(session: Session, channel: Channel, arguments: dict[str, Any]) -> dict[str, Any]:
    """Copy what ``source`` shows, its whole chain, into one new disk."""
    run(["qemu-img", "convert", "-q", "-f", "vmdk", "-O", "vmdk", arguments["source"], arguments["target"]])
    return {}


def grow(session: Session, channel: Channel, arguments: dict[str, Any]) -> dict[str, Any]:
    """Let the file system fill a new, larger disk. (Online, the kernel wants CAP_SYS_RESOURCE for it.)"""
    disk = session.export("root", arguments["path"], BUILD)
    run(["resize2fs", "-f", disk.export])
    return {}


def stat(session: Session, channel: Channel, arguments: dict[str, Any]) -> dict[str, Any]:
    result = archive.stat_path(session.root("root"), os.fsencode(arguments["path"]))
    return {
        "name": os.fsdecode(result.name),
        "size": result.size,
        "mode": result.mode,
        "mtime": result.mtime_ns,
        "link_target": os.fsdecode(result.link_target),
    }


def read(session: Session, channel: Channel, arguments: dict[str, Any]) -> dict[str, Any]:
    """The content of a small file, at most ``limit`` bytes of it; nothing when there is none."""
    try:
        fd = archive.paths.open_file(session.root("root"), os.fsencode(arguments["path"]))
    except FileNotFoundError:
        return {}
    try:
        left = arguments["limit"]
        while left and (piece := os.read(fd, min(left, _PIECE))):
            channel.send(DATA, piece)
            left -= len(piece)
    finally:
        os.close(fd)
    return {}


def pack(session: Session, channel: Channel, arguments: dict[str, Any]) -> dict[str, Any]:
    return _download(channel, archive.pack(session.root("root"), os.fsencode(arguments["path"])))


def unpack(session: Session, channel: Channel, arguments: dict[str, Any]) -> dict[str, Any]:
    owner = arguments.get("owner")
    options = archive.UnpackOptions(
        no_overwrite_dir_non_dir=arguments.get("no_overwrite_dir_non_dir", False),
        owner=(owner[0], owner[1]) if owner else None,
    )
    with archive.Unpacker(session.root("root"), os.fsencode(arguments["path"]), options=options) as unpacker:
        for body in _received(channel):
            unpacker.feed(body)
            session.wrote("root", len(body))
        result = unpacker.finish()
    return {"members": result.members, "size": result.size, "skipped_xattrs": result.skipped_xattrs}


def unpack_layer(session: Session, channel: Channel, arguments: dict[str, Any]) -> dict[str, Any]:
    """A layer's archive into its disk; what is no file's content goes into ``skeleton``."""
    root = session.root("root")
    recorder = Recorder(root, arguments["skeleton"], arguments["replaced"])
    try:
        with archive.Unpacker(root, options=archive.UnpackOptions(layer=True)) as unpacker:
            for body in _received(channel):
                for piece in recorder.feed(body):
                    unpacker.feed(piece)
                session.wrote("root", len(body))
            result = unpacker.finish()
        return {"size": result.size, "archive_size": recorder.finish()}
    finally:
        recorder.close()


def _received(channel: Channel) -> Iterator[bytes]:
    """The bodies of an upload."""
    while True:
        kind, body = channel.receive()
        if kind == END:
            return
        if kind == CANCEL:
            raise Cancelled("the sender gave up")
        yield body


def changes(session: Session, channel: Channel, arguments: dict[str, Any]) -> dict[str, Any]:
    """A container's differences between ``lower`` and ``root``: kind, path, zero byte; repeated."""
    return _download(channel, _listed(_container_changes(session)))


def export_changes(session: Session, channel: Channel, arguments: dict[str, Any]) -> dict[str, Any]:
    """A container's differences as a layer's archive."""
    entries = _container_changes(session)
    return _download(channel, pack_changes(session.root("lower"), session.root("root"), entries))


def export_layer(session: Session, channel: Channel, arguments: dict[str, Any]) -> dict[str, Any]:
    """The archive that the layer was made of, byte for byte."""
    return _download(channel, replay(session.root("root"), arguments["skeleton"], arguments["replaced"]))


def _container_changes(session: Session) -> list[tuple[bytes, bytes]]:
    return without_setup_files(list(compare(session.root("lower"), session.root("root"))))


VERBS: dict[str, Callable[[Session, Channel, dict[str, Any]], dict[str, Any]]] = {
    "mount": mount,
    "bind": bind,
    "format": format_disk,
    "flatten": flatten,
    "grow": grow,
    "stat": stat,
    "read": read,
    "pack": pack,
    "unpack": unpack,
    "changes": changes,
    "export_changes": export_changes,
    "unpack_layer": unpack_layer,
    "export_layer": export_layer,
}


def _download(channel: Channel, chunks: Iterator[bytes]) -> dict[str, Any]:
    for chunk in chunks:
        if channel.cancelled():
            break
        channel.send(DATA, chunk)
    close = getattr(chunks, "close", None)
    if close is not None:
        close()
    return {}


def _listed(entries: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    buffer = bytearray()
    for kind, path in entries:
        buffer += kind + path + b"\0"
        if len(buffer) >= _LIST_SIZE:
            yield bytes(buffer)
            buffer.clear()
    yield bytes(buffer)
