"""Further processes in the running container: execs and health probes.

A child of PID 1 is born into the container's PID namespace and enters the
others through the main process's pidfd, so that nothing inside the container
decides where it goes. From there on it takes the same last steps as the main
process (tether/become.py).
"""

from __future__ import annotations

import os
import select
from typing import NoReturn

from tether import linux
from tether.become import CANNOT_INVOKE, CANNOT_START, NOT_FOUND, Failure, become, open_terminal
from tether.call import Call, RpcError
from tether.container import Container, set_oom_score
from tether.loop import Loop
from tether.plan import PlanError, ProcessPlan, process_plan
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
from tether.stdio import Sessions
from tether.tether_pb2 import ExecReply, ExecRequest
from tether.wire import Code

__all__ = ["Execs", "enter"]

MAX_SESSIONS = 256
_NAMESPACES = linux.CLONE_NEWNS | linux.CLONE_NEWUTS | linux.CLONE_NEWIPC | linux.CLONE_NEWCGROUP
_CODES = {NOT_FOUND: Code.NOT_FOUND, CANNOT_INVOKE: Code.PERMISSION_DENIED}


class Execs:
    """Starts execs; what runs is in `Sessions`."""

    def __init__(self, loop: Loop, container: Container, sessions: Sessions) -> None:
        self._loop = loop
        self._container = container
        self._sessions = sessions
        self._starting: dict[str, list[Call]] = {}

    def start(self, request: ExecRequest, call: Call) -> None:
        """Answer ``call`` with the process's pid when it runs; starting the same ID twice is one exec.

        Raises:
            RpcError: the container does not run, or the request is wrong.
        """
        name = request.exec_id
        if not name:
            raise RpcError(Code.INVALID_ARGUMENT, "an exec needs an ID")
        if name in self._starting:
            self._starting[name].append(call)
            return
        known = self._sessions.state(name)
        if known is not None:
            if known.error:
                raise RpcError(_CODES.get(known.exit_code, Code.INVALID_ARGUMENT), known.error)
            call.respond(ExecReply(pid=known.pid))
            return
        if self._sessions.running + len(self._starting) >= MAX_SESSIONS:
            raise RpcError(
                Code.RESOURCE_EXHAUSTED, f"{MAX_SESSIONS} exec sessions run in this container already"
            )
        config = self._container.config
        try:
            plan = process_plan(request.process, hostname=config.hostname, main=False)
        except PlanError as error:
            raise RpcError(Code.INVALID_ARGUMENT, str(error)) from error
        spawned = enter(self._container, plan, stdin=request.process.open_stdin)
        self._starting[name] = [call]
        self._loop.add(spawned.report, select.EPOLLIN, lambda _: self._reported(name, spawned))

    def _reported(self, name: str, spawned: Spawned) -> None:
        self._loop.remove(spawned.report)
        failure = read_report(spawned.report)
        os.close(spawned.report)
        calls = self._starting.pop(name)
        if failure is not None:
            close_ends(spawned)
            self._sessions.failed(name, exit_code=failure.code, error=str(failure))
            for call in calls:
                call.fail(_CODES.get(failure.code, Code.INVALID_ARGUMENT), str(failure))
            return
        terminal = None
        if spawned.terminal >= 0:
            terminal = receive_terminal(spawned.terminal)
            os.close(spawned.terminal)
        self._sessions.start_exec(
            name,
            pid=spawned.pid,
            stdin_fd=spawned.stdin if spawned.stdin >= 0 else None,
            stdout_fd=spawned.stdout if spawned.stdout >= 0 else None,
            stderr_fd=spawned.stderr if spawned.stderr >= 0 else None,
            pty_fd=terminal,
        )
        self._loop.on_child(spawned.pid, lambda status: self._ended(name, status))
        for call in calls:
            call.respond(ExecReply(pid=spawned.pid))

    def _ended(self, name: str, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        self._sessions.exited(name, exit_code=code if code >= 0 else 128 - code)


def enter(container: Container, plan: ProcessPlan, *, stdin: bool) -> Spawned:
    """Fork a process into the running container.

    Raises:
        RpcError: the container does not run (any more).
    """
    if not container.running:
        raise RpcError(Code.FAILED_PRECONDITION, "container is not running")
    ours, theirs = open_channels(tty=plan.tty, stdin=stdin)
    door = container.process_fd

    def body(channels: Channels) -> NoReturn:
        set_oom_score(plan.oom_score_adj)
        container.cgroup.join()
        try:
            linux.setns(door, _NAMESPACES)
        except OSError as error:
            raise Failure(f"container is not running: {error}", CANNOT_START) from error
        terminal = ""
        if channels.terminal >= 0:
            master, terminal = open_terminal(plan.rows, plan.columns)
            send_terminal(channels.terminal, master)
            os.close(master)
        become(plan, terminal=terminal)

    try:
        return fork_child(body, ours, theirs, pid_namespace=container.pid_namespace, keep=(door,))
    except OSError as error:  # the main process ended this moment: its PID namespace takes nobody in
        close_ends(ours)
        os.close(ours.report)
        raise RpcError(Code.FAILED_PRECONDITION, f"container is not running: {error}") from error
