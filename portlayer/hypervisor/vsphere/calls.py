"""Changes of one VM: made once, and when the answer is lost, looked up.

vSphere's change version is a compare-and-set on every reconfiguration: a change
of somebody else (an administrator, the guest's own guestinfo) makes ours fail, and
it is made again from what the VM is then. That is also what makes a repetition
safe whose first try may have worked.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pyVmomi import vim, vmodl

from portlayer.hypervisor.base import HypervisorError, NoSuchVm
from portlayer.hypervisor.vsphere.collector import VM_PATHS, Collector, read_vms
from portlayer.hypervisor.vsphere.faults import Unanswered, describe, translate
from portlayer.hypervisor.vsphere.session import Session

__all__ = ["REGISTERED_AGAIN", "Calls"]

ATTEMPTS = 6
REGISTERED_AGAIN = 2.0  # seconds in which a VM that left may come back under another reference
_DEVICES = "config.hardware.device"
_log = logging.getLogger(__name__)


class Calls:
    """What can be asked of one VM. ``heard`` takes each fresh reading of it."""

    def __init__(
        self, session: Session, collector: Collector, name: str, heard: Callable[[Mapping[str, Any]], None]
    ) -> None:
        self._session = session
        self._collector = collector
        self._name = name
        self._heard = heard
        self.vm: Any = None
        self._moved = asyncio.Event()  # replaced by each move

    def move(self, vm: Any) -> None:
        """It is known by this object from now on: another one, after it was registered again."""
        if self.vm is not None and self.vm._moId == vm._moId:
            return
        self.vm = vm
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def look(self) -> Mapping[str, Any]:
        """Everything of it, now, with its devices.

        Raises:
            NoSuchVm: it is not in the inventory any more.
        """
        found = await self._read()
        if not found:  # it may just be registered again
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REGISTERED_AGAIN):
                    await self._moved.wait()
            found = await self._read()
        if not found:
            raise NoSuchVm(f"VM {self._name} is not in the inventory any more")
        self._heard({path: value for path, value in found.items() if path in VM_PATHS})
        return found

    async def _read(self) -> dict[str, Any]:
        vm = self.vm
        values = await self._session.read(
            lambda: read_vms(self._session, [vm], (*VM_PATHS, _DEVICES)), f"VM {self._name}: read"
        )
        return values.get(vm._moId, {})

    async def find_snapshot(self, name: str) -> Any | None:
        """vSphere's own snapshot of that name."""
        vm = self.vm
        what = f"VM {self._name}: snapshots"
        read = await self._session.read(lambda: read_vms(self._session, [vm], ["snapshot"]), what)
        tree = read.get(vm._moId, {}).get("snapshot")
        level = [] if tree is None else list(tree.rootSnapshotList)
        while level:
            each = level.pop()
            if each.name == name:
                return each.snapshot
            level += each.childSnapshotList
        return None

    async def who_powered_off(self) -> str:
        """The user of the newest power-off event; "" when it was the guest, or an accident."""
        events = self._session.content.eventManager
        spec = vim.event.EventFilterSpec(
            entity=vim.event.EventFilterSpec.ByEntity(entity=self.vm, recursion="self"),
            eventTypeId=["vim.event.VmPoweredOffEvent", "VmPoweredOffEvent"],
        )
        found = await self._session.read(lambda: events.QueryEvents(spec), f"VM {self._name}: events") or []
        newest = max(found, key=lambda event: event.key, default=None)
        return "" if newest is None else str(newest.userName or "")

    async def devices(self) -> list[Any]:
        return list((await self.look())[_DEVICES])

    async def power(self) -> str:
        return str((await self.look())["runtime.powerState"])

    async def task(self, begin: Callable[[], Any], what: str) -> Any:
        """
        Raises:
            Unanswered: it may have happened.
            vmodl.MethodFault: it was refused or failed.
        """
        return await self._collector.run(begin, f"VM {self._name}: {what}")

    async def reconfigure(
        self, build: Callable[[Mapping[str, Any]], Awaitable[Any | None]], what: str, *, fresh: bool
    ) -> None:
        """Make the change that ``build`` says for what the VM is; None: nothing is to be done.

        ``fresh``: read the VM first; otherwise the first try goes without (``build`` gets
        nothing, and must set the change version itself).

        Raises:
            HypervisorError: refused; nothing changed.
        """
        seen: Mapping[str, Any] = await self.look() if fresh else {}
        for attempt in range(1, ATTEMPTS + 1):
            spec = await build(seen)
            if spec is None:
                return
            if seen:
                spec.changeVersion = seen["config.changeVersion"]
            try:
                await self.task(lambda s=spec: self.vm.ReconfigVM_Task(s), what)  # type: ignore[misc]
                return
            except (vim.fault.ConcurrentAccess, vmodl.fault.ManagedObjectNotFound, Unanswered) as error:
                _log.info("VM %s: %s: %s", self._name, what, describe(error))
                if attempt == ATTEMPTS:
                    raise translate(error, f"VM {self._name}: {what}") from error
            except vmodl.MethodFault as error:
                raise translate(error, f"VM {self._name}: {what}") from error
            seen = await self.look()

    async def settle(self, begin: Callable[[], Any], what: str, reached: Callable[[str], bool]) -> None:
        """A power call: when its answer is lost, the power state says what became of it.

        Raises:
            HypervisorError, vmodl.MethodFault
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await self.task(begin, what)
            except Unanswered as error:
                _log.info("VM %s: %s: %s", self._name, what, error)
                if reached(await self.power()):
                    return
                if attempt == ATTEMPTS:
                    raise
            except vim.fault.InvalidPowerState:
                if reached(await self.power()):
                    return
                raise
            else:
                return

    async def destroy(self) -> None:
        """Unregister and delete its own files. Its disks must be detached: Destroy takes their parents along.

        Raises:
            HypervisorError
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await self.task(self.vm.Destroy_Task, "destroy")
                return
            except vmodl.fault.ManagedObjectNotFound:
                return
            except Unanswered as error:
                try:
                    await self.look()
                except NoSuchVm:
                    return
                if attempt == ATTEMPTS:
                    raise
                _log.info("VM %s: destroy: %s; again", self._name, error)
            except vmodl.MethodFault as error:
                raise translate(error, f"VM {self._name}: destroy") from error
        raise HypervisorError(f"VM {self._name}: destroy did not settle")
