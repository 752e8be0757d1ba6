"""Which accelerator the VMs of a VCH get, decided by booting a guest.

``/dev/kvm`` proves nothing: there are hosts where it opens, makes VMs, and no
guest gets beyond its first instructions. So ``auto`` boots the VCH's own kernel
under KVM once, as the user and with the processor model of a real VM, and waits
for a word from its user space. The verdict is kept in a file and holds for one
boot of the host, one kernel, one QEMU and one set of device permissions.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from portlayer.hypervisor.base import HypervisorError
from portlayer.hypervisor.durable import write_file
from portlayer.hypervisor.qemu.probe import MARKER, initramfs
from portlayer.hypervisor.qemu.process import ENVIRONMENT, Credentials, identity

__all__ = ["Accelerator", "boot_probe"]

DEVICE = Path("/dev/kvm")
TIME_LIMIT = 20.0  # a guest under working KVM needs a fraction of a second, nested and loaded some seconds
OUTPUT_LIMIT = 16384
_log = logging.getLogger(__name__)


class Accelerator:
    """The choice of one VCH; asks the machine at most once."""

    def __init__(
        self, wanted: str, *, binary: str, version: str, kernel: Path, credentials: Credentials, verdict: Path
    ) -> None:
        if wanted not in ("auto", "kvm", "tcg"):
            raise HypervisorError(f"guest.accel is {wanted!r}: expected auto, kvm or tcg")
        self._binary = binary
        self._version = version
        self._kernel = kernel
        self._credentials = credentials
        self._verdict = verdict
        self._lock = asyncio.Lock()
        self._chosen = "" if wanted == "auto" else wanted

    async def choose(self) -> str:
        """ "kvm" or "tcg". Concurrent callers, also of other processes, wait for one probe."""
        async with self._lock:
            if not self._chosen:
                self._chosen = await self._decide()
            return self._chosen

    async def _decide(self) -> str:
        key = self._key()
        if key is None:
            _log.info("accelerator tcg: there is no %s", DEVICE)
            return "tcg"
        lock = await asyncio.to_thread(self._take_file_lock)
        try:
            remembered = self._read(key)
            if remembered is not None:
                return remembered
            failure = await boot_probe(self._binary, self._kernel, self._credentials)
            chosen = "tcg" if failure else "kvm"
            document = {"key": key, "accelerator": chosen, "reason": failure or "a guest booted"}
            await asyncio.to_thread(write_file, self._verdict, json.dumps(document, indent=1).encode())
            _log.info("accelerator %s: %s under KVM", chosen, document["reason"])
            return chosen
        finally:
            os.close(lock)

    def _key(self) -> Mapping[str, str] | None:
        try:
            device = DEVICE.stat()
        except FileNotFoundError:
            return None
        kernel = self._kernel.stat()
        return {
            "host boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            "kernel": f"{self._kernel} {kernel.st_size} {kernel.st_mtime_ns}",
            "qemu": self._version,
            "device": f"{device.st_mode:o} {device.st_uid} {device.st_gid}",
            "user": f"{self._credentials.uid} {self._credentials.gid} {self._credentials.groups}",
        }

    def _read(self, key: Mapping[str, str]) -> str | None:
        try:
            document = json.loads(self._verdict.read_text())
        except (FileNotFoundError, ValueError):
            return None
        if not isinstance(document, dict) or document.get("key") != key:
            return None
        chosen = document.get("accelerator")
        return chosen if chosen in ("kvm", "tcg") else None

    def _take_file_lock(self) -> int:
        path = self._verdict.with_name(f"{self._verdict.name}.lock")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return descriptor


async def boot_probe(
    binary: str,
    kernel: Path,
    credentials: Credentials,
    *,
    processor: Sequence[str] = ("-accel", "kvm", "-cpu", "host"),
    time_limit: float = TIME_LIMIT,
) -> str:
    """Boot a guest; returns why it did not come up, "" when it did."""
    with _probe_initramfs() as initrd:
        arguments = (
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *("-machine", "q35,sata=off,smbus=off,i8042=off,vmport=off,smm=off"),
            *processor,
            *("-m", "256M", "-kernel", str(kernel), "-initrd", str(initrd)),
            *("-append", "console=ttyS0 quiet reboot=t panic=-1"),
            *("-chardev", "stdio,id=console,signal=off", "-device", "isa-serial,chardev=console"),
        )
        process = await asyncio.create_subprocess_exec(
            binary,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=ENVIRONMENT,
            cwd="/",
            **identity(credentials),
        )
        assert process.stdout is not None
        output = b""
        try:
            async with asyncio.timeout(time_limit):
                while chunk := await process.stdout.read(4096):
                    output = (output + chunk)[-OUTPUT_LIMIT:]
                await process.wait()
        except BaseException as error:
            process.kill()  # not before: asyncio loses track of a child that it kills after its end
            await process.communicate()
            if not isinstance(error, TimeoutError):
                raise
            return f"no guest came up in {time_limit:.0f} s: {_last_words(output)}"
    return "" if MARKER.strip() in output else f"no guest came up: {_last_words(output)}"


@contextlib.contextmanager
def _probe_initramfs() -> Iterator[Path]:
    with tempfile.NamedTemporaryFile(prefix="mooring-probe-") as file:
        file.write(initramfs())
        file.flush()
        os.fchmod(file.fileno(), 0o644)
        yield Path(file.name)


def _last_words(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "not a word"
