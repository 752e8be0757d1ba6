"""The main process: from BootConfig to STARTED, and from its end to EXITED.

States go one way: WAITING or UNKNOWN → RUNNING → EXITED, or → FAILED. Every
state reached is journaled first and pushed second, so that whoever hears of it
finds it in the journal.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable
from typing import NoReturn

from tether import linux
from tether.become import CANNOT_START, become, open_terminal, read_regular
from tether.cgroup import CONTAINER, Cgroup
from tether.contain import contain
from tether.devices import Node, device_filter, nodes_of
from tether.etcfiles import DIRECTORY, write_hostname
from tether.events import EventLog
from tether.journal import Kind
from tether.loop import Loop
from tether.plan import Plan, PlanError, ProcessPlan, make_plan
from tether.recorder import Recorder
from tether.spawn import (
    Channels,
    Spawned,
    close_ends,
    fork_child,
    open_channels,
    read_report,
    receive_terminal,
    send_terminal,
)
from tether.stdio import MAIN, Sessions
from tether.storage import ROOT, mount_all, volume_paths
from tether.tether_pb2 import BootConfig, MainState, OomEvent

__all__ = ["Container"]

_TINI = "/usr/bin/tini"  # in the initramfs


class Container:
    """The one container of this VM."""

    def __init__(
        self,
        loop: Loop,
        recorder: Recorder,
        events: EventLog,
        sessions: Sessions,
        *,
        log: Callable[[str], None],
        forbidden: list[tuple[int, int | None]],
        on_started: Callable[[], None],
        on_end: Callable[[], None],
    ) -> None:
        """
        Args:
            forbidden: character devices that no workload may open.
            on_started: called when the main process runs.
            on_end: called once, when EXITED or FAILED is recorded and handed to the journal.
        """
        self._loop = loop
        self._recorder = recorder
        self._events = events
        self._sessions = sessions
        self._log = log
        self._forbidden = forbidden
        self._on_started = on_started
        self._on_end = on_end
        self.config = BootConfig()
        self.state = MainState()
        self.cgroup = Cgroup(CONTAINER, log)
        self.process_fd = -1  # pidfd of the main process: a door into its namespaces
        self.pid_namespace = -1
        self.process: ProcessPlan | None = None  # the main process, as it was planned
        self._spawned: Spawned | None = None
        self._oom_fd = -1
        self._oom_kills = 0

    # ---------------------------------------------------------------- start

    def wait(self, config: BootConfig) -> None:
        """Be ready for `start` and say so."""
        self.config = config
        self.state = MainState(state=MainState.WAITING)

    def start(self, config: BootConfig, *, write_names: Callable[[], None]) -> None:
        """Begin to start the main process. What becomes of it is in `state` and in the events.

        Args:
            write_names: fills in the files hosts and resolv.conf (they depend on the network).
        """
        self.config = config
        try:
            plan = self._prepare()
            write_names()
            process = config.process
            ours, theirs = open_channels(tty=process.tty, stdin=process.open_stdin)
            nodes = nodes_of("/dev", skip_majors=_majors(self._forbidden)) if plan.all_devices else []
            self._spawned = fork_child(
                lambda channels: _child(config, plan, channels, nodes=nodes, cgroup=self.cgroup),
                ours,
                theirs,
                pid_namespace=None,
            )
        except (PlanError, OSError) as error:
            self.fail(str(error), CANNOT_START)
            return
        self._loop.add(self._spawned.report, select.EPOLLIN, lambda _: self._reported())
        self._loop.on_child(self._spawned.pid, self._ended)

    def _prepare(self) -> Plan:
        config = self.config
        plan = make_plan(config, files=DIRECTORY, volumes=volume_paths(config), init=_TINI)
        self.process = plan.process
        write_hostname(plan.hostname)
        self.cgroup.create()
        self.cgroup.limit(config.resources)
        linux.attach_device_filter(
            CONTAINER, device_filter(privileged=plan.all_devices, forbidden=self._forbidden)
        )
        self._watch_memory()
        return plan

    def _reported(self) -> None:
        spawned = self._spawned
        if spawned is None or self.state.state == MainState.RUNNING:
            return
        self._loop.remove(spawned.report)
        failure = read_report(spawned.report)
        os.close(spawned.report)
        if failure is not None:
            self._loop.forget_child(spawned.pid)
            close_ends(spawned)
            self.fail(str(failure), failure.code)
            return
        self.process_fd = os.pidfd_open(spawned.pid)
        self.pid_namespace = os.open(f"/proc/{spawned.pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self.state = MainState(state=MainState.RUNNING, pid=spawned.pid, started_at=time.time_ns())
        self._recorder.record(Kind.STARTED, self.state.SerializeToString())
        self._events.publish(main=self.state)
        terminal = -1
        if spawned.terminal >= 0:
            terminal = receive_terminal(spawned.terminal)
            os.close(spawned.terminal)
        self._sessions.start_main(
            pid=spawned.pid,
            stdin_fd=_known(spawned.stdin),
            stdout_fd=_known(spawned.stdout),
            stderr_fd=_known(spawned.stderr),
            pty_fd=_known(terminal),
            on_drained=self._record_exit,
        )
        self._on_started()

    # ---------------------------------------------------------------- end

    def fail(self, text: str, code: int) -> None:
        """The main process never started: record why and end."""
        self.state = MainState(
            state=MainState.FAILED, finished_at=time.time_ns(), exit_code=code, error=text[:4096]
        )
        self._recorder.record(Kind.FAILED, self.state.SerializeToString())
        self._events.publish(main=self.state)
        self._sessions.failed(MAIN, exit_code=code, error=self.state.error)
        self._recorder.when_flushed(self._on_end)

    def _ended(self, status: int) -> None:
        self._reported()  # its last words before it ran may be unread still
        if self.state.state != MainState.RUNNING:
            return
        code = os.waitstatus_to_exitcode(status)
        self._check_memory()
        self.state = MainState(
            state=MainState.EXITED,
            pid=self.state.pid,
            started_at=self.state.started_at,
            finished_at=time.time_ns(),
            exit_code=code if code >= 0 else 128 - code,
            signal=max(-code, 0),
            oom_killed=self._oom_kills > 0,
        )
        for fd in (self.process_fd, self.pid_namespace):
            os.close(fd)
        self.process_fd = self.pid_namespace = -1
        self._sessions.exited(MAIN, exit_code=self.state.exit_code)

    def _record_exit(self) -> None:
        self._recorder.record(Kind.EXITED, self.state.SerializeToString())
        self._events.publish(main=self.state)
        self._recorder.when_flushed(self._on_end)

    @property
    def running(self) -> bool:
        return self.state.state == MainState.RUNNING and self.process_fd >= 0

    def read_passwd(self) -> bytes:
        """The image's passwd file, found without following a link out of the root; b"" when there is none."""
        try:
            root = os.open(ROOT, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return b""
        try:
            fd = linux.openat2(
                root,
                "etc/passwd",
                os.O_RDONLY | os.O_NONBLOCK,
                resolve=linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_MAGICLINKS,
            )
        except OSError:  # no such file in there
            return b""
        finally:
            os.close(root)
        return read_regular(fd)

    # ---------------------------------------------------------------- memory

    def _watch_memory(self) -> None:
        self._oom_fd = os.open(f"{CONTAINER}/memory.events", os.O_RDONLY | os.O_CLOEXEC)
        self._loop.add(self._oom_fd, select.EPOLLPRI, lambda _: self._check_memory())

    def _check_memory(self) -> None:
        # Reading through the watched descriptor is what quiets it.
        os.lseek(self._oom_fd, 0, os.SEEK_SET)
        os.read(self._oom_fd, 4096)
        kills = self.cgroup.oom_kills()
        if kills > self._oom_kills:
            self._oom_kills = kills
            event = OomEvent(kills=kills)
            self._recorder.record(Kind.OOM, event.SerializeToString())
            self._events.publish(oom=event)


def _child(
    config: BootConfig, plan: Plan, channels: Channels, *, nodes: list[Node], cgroup: Cgroup
) -> NoReturn:
    mount_all(config)
    with contextlib.suppress(FileNotFoundError):
        set_oom_score(plan.process.oom_score_adj)
    cgroup.join()
    contain(plan, ROOT, nodes)
    terminal = ""
    if channels.terminal >= 0:
        master, terminal = open_terminal(plan.process.rows, plan.process.columns)
        send_terminal(channels.terminal, master)
        os.close(master)
        os.close(os.open("/dev/console", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        linux.bind(terminal, "/dev/console")
    become(plan.process, terminal=terminal)


def set_oom_score(score: int) -> None:
    fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, str(score).encode())
    finally:
        os.close(fd)


def _majors(forbidden: list[tuple[int, int | None]]) -> list[int]:
    return [major for major, minor in forbidden if minor is None]


def _known(fd: int) -> int | None:
    return fd if fd >= 0 else None
