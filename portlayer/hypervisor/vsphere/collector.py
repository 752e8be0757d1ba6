"""The one long poll: VMs and tasks in a single ordered stream.

A task's success is reported after what it changed, so whoever waits for its own
task through this collector has already seen its effect: the model never runs
behind its writer, and no call asks for what is being pushed.

After a new login, views and collectors are gone. They are built again, and a VM
that does not come back in the first answer has left.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from pyVmomi import vim, vmodl

from portlayer.hypervisor.base import HypervisorError
from portlayer.hypervisor.vsphere.faults import BUSY, LOST, Unanswered, describe
from portlayer.hypervisor.vsphere.session import Session

__all__ = ["VM_PATHS", "Collector", "VmChange", "read_vms"]

VM_PATHS = (
    "name",
    "runtime.powerState",
    "runtime.connectionState",
    "config.changeVersion",
    "config.files.vmPathName",
    "config.extraConfig",
)
_TASK_PATHS = ("info.state", "info.error", "info.result")
_WAIT = 20  # seconds of one poll; the HTTP time-out is above it
_AGAIN = 1.0
_BUSY_ATTEMPTS = 6
_log = logging.getLogger(__name__)
_PC = vmodl.query.PropertyCollector


@dataclass(frozen=True)
class VmChange:
    """What changed of one VM. ``gone``: it left the inventory; ``stale``: ask for all of it."""

    vm: Any
    values: dict[str, Any] = field(default_factory=dict)
    gone: bool = False
    stale: bool = False


class Collector:
    """``on_changes`` is called in the loop with everything of one answer, in order."""

    def __init__(
        self, session: Session, container: Any, on_changes: Callable[[list[VmChange]], None]
    ) -> None:
        self._session = session
        self._container = container
        self._on_changes = on_changes
        self._collector: Any = None
        self._view: Any = None
        self._tasks_view: Any = None
        self._epoch = 0
        self._known: dict[str, Any] = {}  # moId -> VM
        self._waiting: dict[str, _Waiting] = {}  # moId -> task
        self._finished: list[Any] = []
        self._loop: asyncio.Task[None] | None = None
        self._closing = False

    async def open(self) -> None:
        """Returns when all VMs that are there have been reported."""
        version = await self._build()
        self._loop = asyncio.create_task(self._run(version), name="vsphere collector")

    async def close(self) -> None:
        self._closing = True
        for waiting in self._waiting.values():
            waiting.fail(Unanswered("the vSphere back end is closing"))
        if self._loop is None:
            return
        collector = self._collector
        try:
            async with asyncio.timeout(_WAIT + 5):
                while not self._loop.done():  # a poll that has not arrived yet is not cancelled
                    await self._session.poll(collector.CancelWaitForUpdates)
                    await asyncio.wait((self._loop,), timeout=0.2)
            await self._session.poll(collector.DestroyPropertyCollector)
        except (TimeoutError, *LOST, vmodl.MethodFault) as error:
            _log.info("closing the collector: %s", describe(error))
        self._loop.cancel()
        await asyncio.wait((self._loop,))

    async def run(self, begin: Callable[[], Any], what: str) -> Any:
        """Begin a task and wait for its end; one that is refused for a moment is begun again.

        Raises:
            Unanswered: it may have happened.
            vmodl.MethodFault: it was refused or failed.
        """
        delay = 0.05
        for _ in range(_BUSY_ATTEMPTS):
            try:
                return await self.task(await self._session.write(begin, what))
            except BUSY as error:
                _log.info("%s: %s; again", what, describe(error))
            await asyncio.sleep(delay * random.uniform(1, 2))  # noqa: S311 jitter, not a secret
            delay *= 2
        return await self.task(await self._session.write(begin, what))

    async def task(self, task: Any) -> Any:
        """The result of a task.

        Raises:
            Unanswered: nobody knows how it ended.
            vmodl.MethodFault: its fault.
        """
        waiting = _Waiting(task)
        self._waiting[task._moId] = waiting
        finished, self._finished = self._finished, []
        try:
            await self._session.write(
                lambda: self._tasks_view.ModifyListView([task], finished), "watch a task"
            )
        except (HypervisorError, vmodl.MethodFault) as error:
            # The collector is being built anew and will ask for this task, too.
            _log.info("watching task %s: %s", task._moId, describe(error))
        try:
            return await waiting.future
        finally:
            self._waiting.pop(task._moId, None)
            self._finished.append(task)

    # -- inside

    async def _build(self) -> str:
        self._epoch = self._session.epoch
        content = self._session.content

        def make() -> tuple[Any, Any, Any, Any]:
            view = content.viewManager.CreateContainerView(self._container, [vim.VirtualMachine], True)
            tasks = content.viewManager.CreateListView([])
            collector = content.propertyCollector.CreatePropertyCollector()
            collector.CreateFilter(_view_filter(view, vim.VirtualMachine, VM_PATHS), False)
            collector.CreateFilter(_view_filter(tasks, vim.Task, _TASK_PATHS), False)
            return view, tasks, collector, collector.WaitForUpdatesEx("", _PC.WaitOptions(maxWaitSeconds=0))

        self._view, self._tasks_view, self._collector, first = await self._session.read(make, "watch the VMs")
        before = self._known
        self._known = {}
        self._take(first)
        while first is not None and first.truncated:  # the server divides what is long
            options = _PC.WaitOptions(maxWaitSeconds=0)
            more = functools.partial(self._collector.WaitForUpdatesEx, first.version, options)
            rest = await self._session.poll(more)
            if rest is None:
                break
            first = rest
            self._take(first)
        left = [VmChange(vm, gone=True) for key, vm in before.items() if key not in self._known]
        if left:
            self._on_changes(left)
        await self._watch_again([w for w in self._waiting.values() if not w.future.done()])
        return "" if first is None else str(first.version)

    async def _watch_again(self, waiting: Iterable[_Waiting]) -> None:
        for each in waiting:
            watch = functools.partial(self._tasks_view.ModifyListView, [each.task], [])
            try:
                await self._session.read(watch, "watch a task")
            except HypervisorError as error:
                each.fail(Unanswered(f"task {each.task._moId}: {error}"))

    async def _run(self, version: str) -> None:
        while not self._closing:
            options = _PC.WaitOptions(maxWaitSeconds=_WAIT)
            poll = functools.partial(self._collector.WaitForUpdatesEx, version, options)
            try:
                answer = await self._session.poll(poll)
            except vmodl.fault.RequestCanceled:
                continue
            except (*LOST, vmodl.MethodFault) as error:
                if self._closing:
                    return
                _log.warning("the collector's poll: %s; building it again", describe(error))
                version = await self._rebuild(error)
                continue
            except Exception as error:  # an answer that cannot be read must not end the watch
                _log.exception("the collector's poll; building it again")
                # It may be one of these tasks that cannot be read: whoever waits looks for himself.
                for waiting in self._waiting.values():
                    waiting.fail(Unanswered("the server's answer could not be read"))
                version = await self._rebuild(error)
                continue
            if answer is not None:
                version = answer.version
                self._take(answer)

    async def _rebuild(self, error: BaseException) -> str:
        while True:
            try:
                if isinstance(error, vim.fault.NotAuthenticated):
                    await self._session.renew(self._epoch)
                return await self._build()
            except (HypervisorError, *LOST, vmodl.MethodFault) as failure:
                _log.warning("the collector cannot be built: %s", describe(failure))
            await asyncio.sleep(_AGAIN)

    def _take(self, answer: Any) -> None:
        changes: list[VmChange] = []
        tasks: list[tuple[Any, dict[str, Any]]] = []
        for update in [] if answer is None else answer.filterSet:
            for change in update.objectSet:
                values = {item.name: item.val for item in change.changeSet}
                if isinstance(change.obj, vim.Task):
                    tasks.append((change.obj, values))
                elif change.kind == "leave":
                    self._known.pop(change.obj._moId, None)
                    changes.append(VmChange(change.obj, gone=True))
                else:
                    self._known[change.obj._moId] = change.obj
                    stale = any(name not in VM_PATHS for name in values)
                    changes.append(VmChange(change.obj, values, stale=stale))
        if changes:
            self._on_changes(changes)
        for task, values in tasks:
            waiting = self._waiting.get(task._moId)
            if waiting is not None:
                waiting.take(values)


class _Waiting:
    """Somebody waits for the end of a task. Its state may come in pieces."""

    def __init__(self, task: Any) -> None:
        self.task = task
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._values: dict[str, Any] = {}

    def take(self, values: dict[str, Any]) -> None:
        self._values.update(values)
        state = self._values.get("info.state")
        if self.future.done():
            return
        if state == vim.TaskInfo.State.success:
            self.future.set_result(self._values.get("info.result"))
        elif state == vim.TaskInfo.State.error:
            fault = self._values.get("info.error")
            unknown = HypervisorError("a task failed without a reason")
            self.future.set_exception(fault if isinstance(fault, BaseException) else unknown)

    def fail(self, error: HypervisorError) -> None:
        if not self.future.done():
            self.future.set_exception(error)


def read_vms(session: Session, vms: list[Any], paths: Iterable[str]) -> dict[str, dict[str, Any]]:
    """moId -> values, of all ``vms`` in one question. Blocking: for ``session.read``.

    Never read a property from a managed object itself: that is one call each.
    """
    spec = _PC.FilterSpec(
        objectSet=[_PC.ObjectSpec(obj=vm) for vm in vms],
        propSet=[_PC.PropertySpec(type=vim.VirtualMachine, pathSet=list(paths))],
        reportMissingObjectsInResults=True,
    )
    return {key: values for key, (_, values) in retrieve(session.content, spec).items()}


def retrieve(content: Any, spec: Any) -> dict[str, tuple[Any, dict[str, Any]]]:
    """All pages of one RetrievePropertiesEx: moId -> (object, values)."""
    collector = content.propertyCollector
    found: dict[str, tuple[Any, dict[str, Any]]] = {}
    page = collector.RetrievePropertiesEx([spec], _PC.RetrieveOptions())
    while page is not None:
        for item in page.objects:
            for missing in item.missingSet:
                if isinstance(missing.fault, vim.fault.NotAuthenticated):
                    raise missing.fault  # a session that ended in the middle hides what it may not read
            found[item.obj._moId] = (item.obj, {p.name: p.val for p in item.propSet})
        page = collector.ContinueRetrievePropertiesEx(page.token) if page.token else None
    return found


def _view_filter(view: Any, kind: Any, paths: Iterable[str]) -> Any:
    walk = _PC.TraversalSpec(name="view", type=type(view), path="view", skip=False)
    return _PC.FilterSpec(
        objectSet=[_PC.ObjectSpec(obj=view, skip=True, selectSet=[walk])],
        propSet=[_PC.PropertySpec(type=kind, pathSet=list(paths))],
    )
