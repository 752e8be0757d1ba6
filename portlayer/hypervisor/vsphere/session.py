"""One session with a vCenter or an ESXi host, for blocking pyVmomi behind asyncio.

Rules, because pyVmomi's own are wrong for us (its session stub repeats every
call, CreateVM included):

* a *read* whose answer is lost or whose session has ended is made again;
* a *write* is made once. When its answer is lost, :class:`Unanswered` says so, and
  whoever called asks the server what became of it. A refusal for want of a session
  is not an answer lost: nothing happened, so after the login it is made again;
* refusals that pass (a task in progress, a host that does not answer its vCenter)
  are waited out, by :meth:`Collector.run` when they are a task's.

The password is read from its file for each login and kept nowhere.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from pyVim.connect import SmartStubAdapter
from pyVmomi import vim

from portlayer.hypervisor.base import HypervisorError
from portlayer.hypervisor.vsphere.faults import BUSY, LOST, Unanswered, describe, translate
from portlayer.hypervisor.vsphere.pin import tls_context
from vch.config import Vsphere

__all__ = ["Session", "read_credentials"]

T = TypeVar("T")
THREADS = 16
KEEP_ALIVE = 300.0  # a session ends after 30 idle minutes
ANSWER_TIMEOUT = 90  # above the long poll's own
READ_ATTEMPTS = 5
_log = logging.getLogger(__name__)


def read_credentials(target: Vsphere) -> tuple[str, str]:
    """User and password.

    Raises:
        HypervisorError: the file is missing, malformed, or open to others than its owner.
    """
    path = target.credentials
    try:
        mode = path.stat().st_mode
        raw = json.loads(path.read_text())
        user, password = raw["user"], raw["password"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        # neither the content nor what the parser quotes of it
        raise HypervisorError(
            f"vSphere credentials {path}: {type(error).__name__}, expected user and password"
        ) from None
    if stat.S_IMODE(mode) & 0o077:
        raise HypervisorError(f"vSphere credentials {path}: readable by others; chmod 600 it")
    return str(user), str(password)


class Session:
    def __init__(self, target: Vsphere) -> None:
        self._target = target
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="vsphere")
        self._stub: Any = None
        self._content: Any = None
        self._logging_in = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None
        self.epoch = 0  # counts logins: collectors and views die with each

    @property
    def content(self) -> Any:
        """The ServiceContent, read once per login: every access through pyVmomi would be a call."""
        if self._content is None:
            raise HypervisorError("the vSphere session is not open")
        return self._content

    async def open(self) -> None:
        try:
            await self._run(self._connect)
        except HypervisorError:
            raise
        except Exception as error:  # pyVmomi raises a bare Exception for a server that is none
            raise HypervisorError(f"{self._where}: {describe(error)}") from error
        await self._login(0)
        self._keeper = asyncio.create_task(self._keep_alive(), name="vsphere keep-alive")

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait((self._keeper,))
        if self._content is not None:
            try:
                await self._run(self._content.sessionManager.Logout)
            except (*LOST, vim.fault.VimFault) as error:
                _log.info("%s: logout: %s", self._where, describe(error))
        if self._stub is not None:
            await self._run(self._stub.DropConnections)
        self._pool.shutdown(wait=False)

    # -- calls

    async def read(self, call: Callable[[], T], what: str) -> T:
        """Ask; ask again when the answer is lost."""
        delay = 0.05
        for attempt in range(1, READ_ATTEMPTS + 1):
            try:
                return await self._with_session(call)
            except (*LOST, *BUSY) as error:
                if attempt == READ_ATTEMPTS:
                    raise HypervisorError(f"{what}: {self._where}: {describe(error)}") from error
                _log.info("%s: %s; again", what, describe(error))
            except vim.fault.VimFault as error:
                raise translate(error, what) from error
            except HypervisorError:
                raise
            except Exception as error:
                raise translate(error, what) from error
            await asyncio.sleep(delay * random.uniform(1, 2))  # noqa: S311 jitter, not a secret
            delay *= 2
        raise AssertionError("unreachable")

    async def write(self, call: Callable[[], T], what: str) -> T:
        """Change something, once.

        Raises:
            Unanswered: it may have happened.
            Exception: the fault itself, for the caller to look at.
        """
        try:
            return await self._with_session(call)
        except LOST as error:
            raise Unanswered(f"{what}: {self._where}: no answer: {describe(error)}") from error

    async def poll(self, call: Callable[[], T]) -> T:
        """A call that may take long; every error is the caller's."""
        return await self._run(call)

    async def _with_session(self, call: Callable[[], T]) -> T:
        epoch = self.epoch
        try:
            return await self._run(call)
        except vim.fault.NotAuthenticated:
            await self._login(epoch)
            return await self._run(call)

    async def renew(self, epoch: int) -> None:
        """The session of ``epoch`` has ended: log in, unless somebody has."""
        await self._login(epoch)

    # -- inside

    @property
    def _where(self) -> str:
        return f"{self._target.host}:{self._target.port}"

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    def _connect(self) -> None:
        self._stub = SmartStubAdapter(
            host=self._target.host,
            port=self._target.port,
            sslContext=tls_context(self._target.thumbprint),
            poolSize=THREADS,
            httpConnectionTimeout=ANSWER_TIMEOUT,
        )
        self._content = vim.ServiceInstance("ServiceInstance", self._stub).RetrieveContent()

    async def _login(self, epoch: int) -> None:
        async with self._logging_in:
            if self.epoch != epoch:
                return
            user, password = read_credentials(self._target)
            manager = self.content.sessionManager
            try:
                await self._run(lambda: manager.Login(user, password, None))
            except vim.fault.InvalidLogin as error:
                raise HypervisorError(f"{self._where}: wrong user or password for {user}") from error
            except (*LOST, vim.fault.VimFault) as error:
                raise HypervisorError(f"{self._where}: login: {describe(error)}") from error
            self.epoch += 1
            _log.info("logged in to %s as %s", self._where, user)

    async def _keep_alive(self) -> None:
        instance = vim.ServiceInstance("ServiceInstance", self._stub)
        while True:
            await asyncio.sleep(KEEP_ALIVE)
            try:
                await self.read(instance.CurrentTime, "keep-alive")
            except HypervisorError as error:
                _log.warning("%s", error)
