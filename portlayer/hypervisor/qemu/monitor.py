"""One QMP session.

A wrapper with our error type around QEMU's own client. Two of its habits do not
suit a daemon and are turned off here: its default listener keeps every event for
ever (a guest causes events at will), and a command cancelled half-way makes its
late reply end the session.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from qemu.qmp import EventListener, Message, QMPClient, QMPError, Runstate
from qemu.qmp.qmp_client import ExecInterruptedError, ExecuteError

from portlayer.hypervisor.base import HypervisorError

__all__ = ["EventHandler", "Monitor", "MonitorError", "MonitorLost"]

EventHandler = Callable[[str, Mapping[str, Any]], None]
TIMEOUT = 30.0


class MonitorError(HypervisorError):
    """QEMU refused a command; ``reason`` is QEMU's own sentence."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class MonitorLost(HypervisorError):
    """There is no session, or it ended before the answer came."""


class _Handler(EventListener):
    """Hands events over as they come and keeps none."""

    def __init__(self, handler: EventHandler) -> None:
        super().__init__()
        self._handler = handler

    async def put(self, event: Message) -> None:
        data = event.get("data")
        self._handler(str(event["event"]), data if isinstance(data, dict) else {})


class Monitor:
    """A connected session. ``handler`` is called from the event loop for every QMP event."""

    def __init__(self, vm: str, client: QMPClient) -> None:
        self._vm = vm
        self._client = client

    @classmethod
    async def connect(cls, vm: str, path: Path, handler: EventHandler, *, timeout: float) -> Monitor:
        """Raises MonitorLost when there is nobody, or nobody answers in time."""
        client = QMPClient(f"vm-{vm[:12]}")
        client.logger.setLevel(logging.CRITICAL + 1)  # we report its errors ourselves, with the VM's name
        client.events.names = {"NONE"}
        client.register_listener(_Handler(handler))
        try:
            async with asyncio.timeout(timeout):
                await client.connect(str(path))
        except (QMPError, TimeoutError) as error:
            raise MonitorLost(f"VM {vm[:12]}: no answer on {path}: {error!r}") from error
        return cls(vm, client)

    @property
    def connected(self) -> bool:
        return bool(self._client.runstate == Runstate.RUNNING)

    async def execute(self, command: str, /, *, fd: int | None = None, **arguments: Any) -> Any:
        """Run one command; underscores in argument names stand for hyphens.

        ``fd`` is sent along with it (``getfd``).

        Raises:
            MonitorError: QEMU refused.
            MonitorLost: the session is gone; whether the command ran is unknown.
        """
        words = {key.replace("_", "-"): value for key, value in arguments.items()}
        return await self.run(command, words, fd=fd)

    async def run(self, command: str, arguments: Mapping[str, Any], *, fd: int | None = None) -> Any:
        """The same with the arguments exactly as given."""
        if not self.connected:
            raise MonitorLost(f"VM {self._vm[:12]}: {command}: no monitor session")
        if fd is not None:
            self._client.send_fd_scm(fd)
        task = asyncio.ensure_future(self._client.execute(command, dict(arguments)))
        try:
            async with asyncio.timeout(TIMEOUT):
                return await asyncio.shield(task)
        except ExecuteError as error:
            reason = str(error)
            raise MonitorError(f"VM {self._vm[:12]}: {command}: {reason}", reason) from error
        except ExecInterruptedError as error:
            raise MonitorLost(f"VM {self._vm[:12]}: {command}: the session ended") from error
        except TimeoutError as error:
            task.add_done_callback(_forget)
            raise MonitorLost(f"VM {self._vm[:12]}: {command}: no answer in {TIMEOUT:.0f} s") from error
        except asyncio.CancelledError:
            task.add_done_callback(_forget)
            raise

    async def drain(self) -> None:
        """After QEMU's end: wait until everything it said has been handled."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                while self._client.runstate == Runstate.RUNNING:
                    await self._client.runstate_changed()

    async def close(self) -> None:
        """End the session. QEMU goes on."""
        if self._client.runstate == Runstate.IDLE:
            return
        try:
            await self._client.disconnect()
        except (QMPError, EOFError, OSError):
            return  # the peer hung up first: the session is over either way


def _forget(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()
