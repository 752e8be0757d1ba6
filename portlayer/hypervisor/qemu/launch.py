"""From a configuration to a running, answering QEMU: completely, or with everything undone."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from portlayer.hypervisor.base import HypervisorError, LaunchError, VmConfig
from portlayer.hypervisor.qemu.commandline import LaunchFiles, build
from portlayer.hypervisor.qemu.devices import free_target
from portlayer.hypervisor.qemu.host import Host
from portlayer.hypervisor.qemu.memory import Migration, restore
from portlayer.hypervisor.qemu.monitor import EventHandler, Monitor, MonitorLost
from portlayer.hypervisor.qemu.process import QemuProcess, spawn
from portlayer.hypervisor.qemu.runtime import Launched, RunDirectory, tail
from portlayer.hypervisor.qemu.share import offer
from portlayer.hypervisor.qemu.store import VmDirectory
from portlayer.hypervisor.qemu.tap import open_tap

__all__ = ["Launch", "hardware", "last_words", "launch"]

T = TypeVar("T")
GREETING_TIMEOUT = 60.0  # dozens of starts at once on few processors
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Launch:
    process: QemuProcess
    monitor: Monitor
    launched: Launched


async def launch(
    host: Host, config: VmConfig, handler: EventHandler, migration: Migration, *, memory: Path | None
) -> Launch:
    """Start QEMU and shake hands with its monitor; with ``memory`` it goes on from there.

    Raises:
        LaunchError: nothing runs and nothing is left; the message ends with QEMU's own words.
    """
    directory = host.store.directory(config.id)
    run = host.run_directory(config.id)
    accelerator = await host.accelerator.choose()
    launched = hardware(host, config, accelerator)
    process: QemuProcess | None = None
    try:
        await asyncio.to_thread(host.store.prepare_start, config)
        run.create()
        run.note_launched(launched)  # true as soon as the lock is held, and meaningless before
        process = await _spawn(host, config, accelerator, directory, run, incoming=memory is not None)
        _confine(host, config, process)
        monitor = await _greet(config.id, run, process, handler)
        if memory is not None:
            await _first_of(restore(monitor, migration, memory), process)
    except BaseException as error:
        words = last_words(run, directory)
        if process is not None:
            process.kill()
            await process.wait()
            process.close()
            words = f"{process.status or 'ended'}; {last_words(run, directory)}"
        run.remove()
        if host.cgroups is not None:
            host.cgroups.remove(config.id)
        if isinstance(error, (HypervisorError, OSError)):
            raise LaunchError(f"VM {config.id[:12]} did not start: {error}: {words}") from error
        raise
    return Launch(process=process, monitor=monitor, launched=launched)


async def _spawn(
    host: Host,
    config: VmConfig,
    accelerator: str,
    directory: VmDirectory,
    run: RunDirectory,
    *,
    incoming: bool,
) -> QemuProcess:
    with contextlib.ExitStack() as ours:  # our copies of what QEMU inherits

        def owned(descriptor: int) -> int:
            ours.callback(os.close, descriptor)
            return descriptor

        lock = owned(run.take_lock())
        monitor = ours.enter_context(run.listen(run.monitor)).fileno()
        channel = ours.enter_context(run.listen(run.channel)).fileno()
        taps = {nic.id: owned(open_tap(nic.id)) for nic in config.nics}
        shares = {share.tag: owned(await asyncio.to_thread(offer, share, run)) for share in config.shares}
        arguments = build(
            host.boot(accelerator),
            config,
            LaunchFiles(
                monitor=monitor,
                channel=channel,
                boot_config=directory.boot if config.boot_config else None,
                journal=directory.journal,
                console=directory.console,
                taps=taps,
                shares=shares,
                incoming=incoming,
            ),
        )
        pid = await asyncio.to_thread(
            spawn,
            arguments,
            credentials=host.credentials,
            descriptors=[lock, monitor, channel, *taps.values(), *shares.values()],
            output=owned(run.open_log()),
        )
        process = QemuProcess(pid)
        run.note_process(pid)
        return process


def _confine(host: Host, config: VmConfig, process: QemuProcess) -> None:
    try:
        process.volunteer()
    except OSError as error:  # when it is gone already, the greeting says so with its own words
        _log.warning("VM %s: process %d: %s", config.id[:12], process.pid, error)
    if host.cgroups is not None:
        host.cgroups.add(config.id, process.pid, memory_mib=config.memory_mib)


async def _greet(vm: str, run: RunDirectory, process: QemuProcess, handler: EventHandler) -> Monitor:
    """The first session, or the process's end, whichever comes first."""
    return await _first_of(Monitor.connect(vm, run.monitor, handler, timeout=GREETING_TIMEOUT), process)


async def _first_of(step: Coroutine[Any, Any, T], process: QemuProcess) -> T:
    """Do ``step`` as long as the process lives."""
    doing = asyncio.ensure_future(step)
    ending = asyncio.ensure_future(process.wait())
    try:
        await asyncio.wait((doing, ending), return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        raise MonitorLost("QEMU ended before it was ready")
    finally:
        ending.cancel()
        if not doing.done():
            await asyncio.wait((doing,), timeout=1)  # the peer's end ends it
        if not doing.cancel():
            doing.exception()


def hardware(host: Host, config: VmConfig, accelerator: str) -> Launched:
    """What a QEMU that starts from ``config`` has."""
    targets: dict[str, int] = {}
    for disk in config.disks:
        targets[disk.id] = free_target(targets.values())
    return Launched(
        profile=host.profile.value,
        accelerator=accelerator,
        disks=targets,
        nics=tuple(nic.id for nic in config.nics),
    )


def last_words(run: RunDirectory, directory: VmDirectory) -> str:
    """The end of what QEMU and the guest's kernel had to say, for an error message."""
    said = tail(run.log, 2048).decode(errors="replace").strip()
    console = tail(directory.console, 1024).decode(errors="replace").strip().splitlines()[-5:]
    words = [f"QEMU: {said}" if said else "QEMU said nothing"]
    if console:
        words.append(f"console: {' | '.join(line.strip() for line in console)}")
    return "; ".join(words)
