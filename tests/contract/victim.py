"""A port layer that dies: does one thing and is killed -9 at the nth step that leaves a trace.

Run as ``python -m tests.contract.victim <directory> <profile> <verb> <vm> <step>``.
Exit status 0: the verb was through before step n came.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from portlayer.hypervisor.base import Hypervisor
from portlayer.hypervisor.qemu.monitor import Monitor
from tests.contract.backend import QemuBackend
from tests.contract.guest import BootFiles
from tests.contract.scene import Scene


class Fuse:
    """Counts what the verb does to disk, processes and QEMU; burns through after the nth."""

    def __init__(self, step: int) -> None:
        self._left = step

    def arm(self) -> None:
        for name in ("rename", "mkdir", "unlink", "rmdir", "fsync", "link"):
            self._wrap(os, name)
        self._wrap(subprocess, "Popen")
        run = Monitor.run

        async def counted(monitor: Monitor, *arguments: Any, **words: Any) -> Any:
            result = await run(monitor, *arguments, **words)
            self.burn()
            return result

        Monitor.run = counted  # type: ignore[method-assign]

    def burn(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def _wrap(self, module: Any, name: str) -> None:
        original: Callable[..., Any] = getattr(module, name)

        def counted(*arguments: Any, **words: Any) -> Any:
            result = original(*arguments, **words)
            self.burn()
            return result

        setattr(module, name, counted)


async def act(hypervisor: Hypervisor, backend: QemuBackend, verb: str, vm: str) -> None:
    match verb:
        case "create":
            await hypervisor.create(Scene(backend).config(id=vm, boot_config=b"new", extra={"a": b"1"}))
        case "configure":
            info = await hypervisor.get(vm)
            config = dataclasses.replace(info.config, name="changed", extra={"a": b"2"})
            await hypervisor.configure(config, version=info.version)
        case "start":
            await hypervisor.start(vm)
        case "power_off":
            await hypervisor.power_off(vm)
        case "delete":
            await hypervisor.delete(vm)
        case "add_disk":
            await hypervisor.add_disk(vm, backend.disk("hot"))
        case "rotate":
            await hypervisor.rotate_journal(vm, keep=9)


async def main(directory: str, profile: str, verb: str, vm: str, step: str) -> None:
    boot = Path(directory) / "boot"
    files = BootFiles(kernel=boot / "kernel", initrd=boot / "initrd", iso=boot / "test.iso")
    backend = QemuBackend(Path(directory), files, profile)
    hypervisor = backend.hypervisor()
    await hypervisor.open()
    Fuse(int(step)).arm()
    await act(hypervisor, backend, verb, vm)
    await hypervisor.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
