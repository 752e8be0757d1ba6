"""The files of one run of one VM: ``run/vm/<first 16 of id>/``.

``lock`` is the truth: QEMU inherits the descriptor that holds it, so the lock is
taken exactly as long as the process (or the child that is about to become it)
lives, whatever happens to us in between. ``qemu.pid`` and ``launch.json`` are
notes that spare a search. The directory is ours alone: QEMU is handed open
descriptors and needs no name in it.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import shutil
import socket
from dataclasses import dataclass, field
from pathlib import Path

from portlayer.hypervisor.base import HypervisorError
from portlayer.hypervisor.durable import NEW
from portlayer.hypervisor.qemu.commandline import process_name
from portlayer.hypervisor.qemu.process import find_by_name, is_named, start_time

__all__ = ["Launched", "RunDirectory"]

SOCKET_PATH_LIMIT = 107


@dataclass(frozen=True, kw_only=True)
class Launched:
    """The hardware the running process has, which ``config.json`` may be ahead of."""

    profile: str
    accelerator: str
    disks: dict[str, int] = field(default_factory=dict)  # id -> SCSI target
    nics: tuple[str, ...] = ()
    plugged: bool = False  # hardware came or went since the start

    def with_disk(self, disk: str, target: int) -> Launched:
        return dataclasses.replace(self, plugged=True, disks={**self.disks, disk: target})

    def without_disk(self, disk: str) -> Launched:
        left = {known: target for known, target in self.disks.items() if known != disk}
        return dataclasses.replace(self, plugged=True, disks=left)

    def with_nic(self, nic: str) -> Launched:
        return dataclasses.replace(self, plugged=True, nics=(*self.nics, nic))

    def without_nic(self, nic: str) -> Launched:
        return dataclasses.replace(self, plugged=True, nics=tuple(n for n in self.nics if n != nic))


@dataclass(frozen=True)
class RunDirectory:
    path: Path
    vm: str

    @property
    def monitor(self) -> Path:
        return self.path / "qmp.sock"

    @property
    def channel(self) -> Path:
        return self.path / "channel.sock"

    @property
    def log(self) -> Path:
        return self.path / "qemu.log"

    @property
    def _lock(self) -> Path:
        return self.path / "lock"

    @property
    def _pid(self) -> Path:
        return self.path / "qemu.pid"

    @property
    def _launched(self) -> Path:
        return self.path / "launch.json"

    def create(self) -> None:
        """An empty directory for a new run.

        Raises:
            HypervisorError: a former run is not over, or a socket in it would have a path that is too long.
        """
        if len(os.fsencode(self.channel)) > SOCKET_PATH_LIMIT:
            raise HypervisorError(f"{self.channel}: a socket's path has at most {SOCKET_PATH_LIMIT} bytes")
        if self.held():
            raise HypervisorError(f"VM {self.vm[:12]}: a process still holds {self._lock}")
        self.remove()
        self.path.mkdir(mode=0o700, parents=True)

    def remove(self) -> None:
        try:
            shutil.rmtree(self.path)
        except FileNotFoundError:
            return

    # -- handed over to QEMU

    def take_lock(self) -> int:
        """The descriptor that QEMU inherits. Close ours once it runs."""
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise HypervisorError(f"VM {self.vm[:12]}: a process still holds {self._lock}") from error
        return descriptor

    def listen(self, path: Path) -> socket.socket:
        """A listening socket that is there before QEMU is: clients connect at once and wait in the queue."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(path))
            listener.listen(1)
        except OSError:
            listener.close()
            raise
        return listener

    def open_log(self) -> int:
        return os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    # -- notes

    def note_process(self, pid: int) -> None:
        self._replace(self._pid, f"{pid} {start_time(pid) or 0}\n")

    def note_launched(self, launched: Launched) -> None:
        self._replace(self._launched, json.dumps(dataclasses.asdict(launched)))

    def launched(self) -> Launched | None:
        """What :meth:`note_launched` wrote, if it can be read."""
        try:
            raw = json.loads(self._launched.read_text())
            return Launched(**{**raw, "nics": tuple(raw["nics"])})
        except (OSError, ValueError, KeyError, TypeError):
            return None

    # -- found again

    def held(self) -> bool:
        """Whether some process holds the lock."""
        try:
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def process(self) -> int | None:
        """The pid of this run's process, when it lives.

        The number alone proves nothing: it must have started when we noted it
        and carry this VM's name.
        """
        name = process_name(self.vm)
        try:
            pid, started = (int(word) for word in self._pid.read_text().split())
        except (FileNotFoundError, ValueError):
            return find_by_name(name) if self.held() else None
        if start_time(pid) == started and is_named(pid, name):
            return pid
        return find_by_name(name) if self.held() else None

    def _replace(self, path: Path, text: str) -> None:
        temporary = path.with_name(f"{NEW}{path.name}")
        temporary.write_text(text)
        temporary.rename(path)
