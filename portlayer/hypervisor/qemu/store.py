"""The durable side of every VM: ``vms/<id>/`` with its ``config.json``.

A VM exists exactly when its directory has its final name. ``config.json`` holds
configuration, change version and the port layer's documents in one file, so
that one rename changes all of them or none; ``boot.bin`` is derived from it at
each start. All calls block for a few file operations: callers use a thread.
"""

from __future__ import annotations

import base64
import binascii
import errno
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from portlayer.hypervisor.base import HypervisorError, NoSuchVm, Share, VmConfig
from portlayer.hypervisor.documents import decode_hardware, encode_hardware
from portlayer.hypervisor.durable import NEW, remove_directory, sweep, sync_directory, write_file
from portlayer.hypervisor.qemu.reserve import Reserve

__all__ = ["Record", "VmDirectory", "VmStore", "decode", "encode"]

FORMAT = 1
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Record:
    """What ``config.json`` holds."""

    config: VmConfig
    version: int


@dataclass(frozen=True)
class VmDirectory:
    """The files of one VM that outlive its runs."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def boot(self) -> Path:
        return self.path / "boot.bin"

    @property
    def journal(self) -> Path:
        return self.path / "journal"

    @property
    def console(self) -> Path:
        return self.path / "console.log"

    @property
    def memory(self) -> Path:
        """Saved memory that the next start continues from (clones)."""
        return self.path / "memory.state"

    @property
    def snapshots(self) -> Path:
        return self.path / "snapshots"


class VmStore:
    """All VM directories of one VCH, in ``root``. ``owner``: uid and gid QEMU runs as."""

    def __init__(self, root: Path, *, owner: tuple[int, int]) -> None:
        self._root = root
        self._owner = owner
        self.reserve = Reserve(root.with_name("reserve"))

    def open(self) -> dict[str, Record]:
        """Sweep what unfinished steps left behind and read every VM.

        A directory whose file cannot be read is reported and kept: it may hold
        the only journal of a container, and the other VMs must come up.
        """
        self._root.mkdir(mode=0o711, parents=True, exist_ok=True)
        for name in sweep(self._root):
            _log.info("swept %s", self._root / name)
        self.reserve.fill()
        records: dict[str, Record] = {}
        for entry in sorted(self._root.iterdir()):
            directory = VmDirectory(entry)
            try:
                record = decode(directory.config.read_bytes())
            except (OSError, HypervisorError) as error:
                _log.error("VM directory %s is not readable and is left alone: %s", entry, error)
                continue
            if record.config.id != entry.name:
                _log.error("VM directory %s holds VM %s and is left alone", entry, record.config.id)
                continue
            for parent in (entry, directory.snapshots):
                if parent.is_dir():
                    sweep(parent)
            records[entry.name] = record
        return records

    def directory(self, vm: str) -> VmDirectory:
        return VmDirectory(self._root / vm)

    def create(self, config: VmConfig, *, memory: Path | None = None) -> Record:
        """Make the directory under a temporary name and rename it: the VM exists from then on.

        ``memory`` is linked in as the saved memory of the first start.
        """
        final = VmDirectory(self._root / config.id)
        draft = VmDirectory(self._root / f"{NEW}{config.id}")
        record = Record(config=config, version=1)
        if draft.path.exists():  # a former attempt failed half-way
            shutil.rmtree(draft.path)
        draft.path.mkdir(mode=0o711)
        draft.path.chmod(0o711)  # QEMU passes through to the files that are its own
        write_file(draft.config, encode(record))
        self._own(draft.journal)
        self._own(draft.console)
        if memory is not None:
            draft.memory.hardlink_to(memory)
        sync_directory(draft.path)
        try:
            draft.path.rename(final.path)
        except OSError as error:
            remove_directory(draft.path)
            raise HypervisorError(f"create VM {config.id[:12]}: {error}") from error
        sync_directory(self._root)
        return record

    def save(self, record: Record) -> None:
        directory = self.directory(record.config.id)
        if not directory.path.is_dir():
            raise NoSuchVm(f"VM {record.config.id[:12]} has no directory any more")
        try:
            write_file(directory.config, encode(record))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            with self.reserve.lent():
                write_file(directory.config, encode(record))

    def prepare_start(self, config: VmConfig) -> VmDirectory:
        """Put ``boot.bin`` in place and make sure that QEMU can append to journal and console."""
        directory = self.directory(config.id)
        write_file(directory.boot, config.boot_config, mode=0o640, owner=self._group_only())
        self.ensure_streams(config.id)
        return directory

    def ensure_streams(self, vm: str) -> None:
        """A rotation that did not finish has moved the journal away; put an empty one there."""
        directory = self.directory(vm)
        self._own(directory.journal)
        self._own(directory.console)

    def delete(self, vm: str) -> None:
        remove_directory(self.directory(vm).path)

    def _own(self, path: Path) -> None:
        descriptor = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        try:
            if os.geteuid() == 0:
                os.fchown(descriptor, *self._owner)
        finally:
            os.close(descriptor)

    def _group_only(self) -> tuple[int, int] | None:
        return (0, self._owner[1]) if os.geteuid() == 0 else None


def encode(record: Record) -> bytes:
    config = record.config
    document = {
        "format": FORMAT,
        "version": record.version,
        "id": config.id,
        **encode_hardware(config),
        "shares": [{"tag": s.tag, "path": str(s.path), "read_only": s.read_only} for s in config.shares],
        "boot_config": _text(config.boot_config),
        "extra": {key: _text(value) for key, value in sorted(config.extra.items())},
    }
    return json.dumps(document, indent=1).encode()


def decode(data: bytes) -> Record:
    """The inverse of :func:`encode`.

    Raises:
        HypervisorError: this is not such a file, or one of another version of us.
    """
    try:
        document: dict[str, Any] = json.loads(data)
        if document["format"] != FORMAT:
            raise HypervisorError(f"config.json has format {document['format']!r}, expected {FORMAT}")
        return Record(
            version=int(document["version"]),
            config=decode_hardware(
                document["id"],
                document,
                shares=[
                    Share(tag=s["tag"], path=Path(s["path"]), read_only=s["read_only"])
                    for s in document.get("shares", ())
                ],
                boot_config=_bytes(document["boot_config"]),
                extra={key: _bytes(value) for key, value in document["extra"].items()},
            ),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HypervisorError(f"config.json cannot be read: {error!r}") from error


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise HypervisorError(f"config.json: {error}") from error
