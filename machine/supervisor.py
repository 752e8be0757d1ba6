"""Keeps the two daemons of one VCH running: the port layer and the engine.

    python -m machine.supervisor --config vch.json

A daemon that dies is started again, sooner at first and later when it keeps
dying. When the supervisor itself dies, the kernel tells the daemons to stop
(PR_SET_PDEATHSIG): container VMs run on, and `vic-machine start` brings the
daemons back. One supervisor per VCH: a lock on its pid file decides.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import fcntl
import os
import signal
import sys
import time
from pathlib import Path

from vch import VchConfig

__all__ = ["Backoff", "is_running", "main", "pid_file"]

PR_SET_PDEATHSIG = 1  # linux/prctl.h
STOP_SECONDS = 20.0
DAEMONS = ("portlayer", "engine")  # the engine waits for the port layer by itself


class Backoff:
    """How long to wait before the next start of something that keeps dying."""

    def __init__(self, *, first: float = 0.1, most: float = 10.0, healthy_after: float = 20.0) -> None:
        self._first = first
        self._most = most
        self._healthy_after = healthy_after
        self._delay = first

    def after(self, lived: float) -> float:
        """The delay in seconds, given how many seconds the last run lived."""
        if lived >= self._healthy_after:
            self._delay = self._first
        delay = self._delay
        self._delay = min(self._delay * 2, self._most)
        return delay


def pid_file(config: VchConfig) -> Path:
    return config.run / "supervisor.pid"


def is_running(config: VchConfig) -> int:
    """The process ID of the VCH's supervisor, or 0."""
    try:
        with pid_file(config).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read() or 0)
    except FileNotFoundError:
        pass
    return 0


async def supervise(config: VchConfig, config_path: Path) -> None:
    """Run both daemons until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with asyncio.TaskGroup() as group:
        for name in DAEMONS:
            group.create_task(_keep_running(name, config_path, config.paths.log / f"{name}.log", stop))


async def _keep_running(name: str, config_path: Path, log: Path, stop: asyncio.Event) -> None:
    backoff = Backoff()
    while not stop.is_set():
        started = time.monotonic()
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                name,
                "--config",
                str(config_path),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        exit_task = asyncio.create_task(process.wait())
        stop_task = asyncio.create_task(stop.wait())
        await asyncio.wait({exit_task, stop_task}, return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            stop_task.cancel()
            await _end(process, exit_task)
            return
        lived = time.monotonic() - started
        delay = backoff.after(lived)
        print(f"{name} ended ({process.returncode}) after {lived:.1f} s; again in {delay:.1f} s", flush=True)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop_task, delay)


async def _end(process: asyncio.subprocess.Process, exited: asyncio.Task[int]) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(asyncio.shield(exited), STOP_SECONDS)
    except TimeoutError:
        process.kill()
        await exited


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def main() -> int:
    parser = argparse.ArgumentParser(prog="mooring-supervisor", description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True)
    config_path = parser.parse_args().config
    config = VchConfig.load(config_path)
    descriptor = os.open(pid_file(config), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"{config.name} has a supervisor already", file=sys.stderr)
        return 1
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    asyncio.run(supervise(config, config_path))
    pid_file(config).unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
