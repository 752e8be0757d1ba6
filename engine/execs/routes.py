"""The exec endpoints."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from pydantic import Field

from engine.containers import capabilities, status
from engine.containers.detachkeys import parse_detach_keys
from engine.containers.lifecycle import event_attributes, launch_error, terminal_size
from engine.containers.model import Int, Text, Texts, WireModel, Words
from engine.containers.multiplex import STDOUT, frame, hijack_type
from engine.containers.session import End, Options, PortSession, run_session
from engine.containers.translation import base_environment, replaced
from engine.context import Engine
from engine.execs.store import ExecDocument, ExecStore
from engine.http import (
    HIJACKED,
    BadRequest,
    Conflict,
    Disconnected,
    Duplex,
    Request,
    Response,
    Router,
    empty,
    json_response,
)
from engine.rpc import PortLayerError
from portlayer import portlayer_pb2 as pb
from tether import tether_pb2

__all__ = ["register"]

logger = logging.getLogger(__name__)


class ExecCreate(WireModel):
    AttachStdin: bool = False
    AttachStdout: bool = False
    AttachStderr: bool = False
    Cmd: Words = Field(default_factory=list)
    ConsoleSize: list[Int] = Field(default_factory=list)
    Detach: bool = False
    DetachKeys: Text = ""
    Env: Texts = Field(default_factory=list)
    Privileged: bool = False
    Tty: bool = False
    User: Text = ""
    WorkingDir: Text = ""
    Container: Text = ""  # very old clients repeat the path's


class ExecStart(WireModel):
    Detach: bool = False
    Tty: bool = False
    ConsoleSize: list[Int] = Field(default_factory=list)


NOT_FOUND, CANNOT_RUN = 127, 126  # exit codes, as a shell has them


def register(router: Router, engine: Engine) -> None:
    store = ExecStore(engine.port)

    async def create(request: Request) -> Response:
        wanted = await request.model(ExecCreate)
        if not wanted.Cmd:
            raise BadRequest("No exec command specified")
        parse_detach_keys(wanted.DetachKeys)
        for item in wanted.Env:
            if not item or item.startswith("="):
                raise BadRequest(f"invalid environment variable: {item}")
        rows, columns = _console(wanted.ConsoleSize)
        container = await engine.containers.find(request.match["name"])
        _can_exec(container, request.match["name"])
        document = ExecDocument(
            id=secrets.token_hex(32),
            container=container.handle.id,
            created_at=time.time_ns(),
            argv=wanted.Cmd,
            env=wanted.Env,
            user=wanted.User,
            cwd=wanted.WorkingDir,
            tty=wanted.Tty,
            privileged=wanted.Privileged,
            stdin=wanted.AttachStdin,
            stdout=wanted.AttachStdout,
            stderr=wanted.AttachStderr,
            detach_keys=wanted.DetachKeys,
            rows=rows,
            columns=columns,
        )
        await store.save(document)
        _publish(engine, "exec_create", container.handle, document)
        return json_response({"Id": document.id}, 201)

    async def start(request: Request) -> Response:
        wanted = await request.model(ExecStart, optional=True)
        rows, columns = _console(wanted.ConsoleSize)
        document = await store.load(request.match["id"])
        if document.started:
            state = await store.state(document)
            word = "is already running" if state is not None and state.running else "has already run"
            raise Conflict(f"exec command {document.id} {word}")
        container = await engine.containers.find(document.container)
        _can_exec(container, document.container)
        open_ = pb.ExecOpen(
            id=document.container,
            exec_id=document.id,
            process=_process(container.handle.spec, document, rows, columns),
            stdin=document.stdin and not wanted.Detach,
            stdout=document.stdout and not wanted.Detach,
            stderr=document.stderr and not wanted.Detach,
            detach=wanted.Detach,
        )
        if wanted.Detach:
            try:
                async with _begun(engine, store, document, open_):
                    pass
            except PortLayerError as error:
                await store.save(_failed(document, error))
                raise launch_error(error) from error
            _publish(engine, "exec_start", container.handle, document)
            return empty(200)
        # The head goes first, as dockerd sends it: docker-py loses output that arrives together with it.
        duplex = await request.hijack(hijack_type(request, tty=document.tty))
        try:
            async with _begun(engine, store, document, open_) as session:
                _publish(engine, "exec_start", container.handle, document)
                end = await run_session(duplex, session, _options(document))
        except PortLayerError as error:
            await store.save(_failed(document, error))
            await _tell(duplex, document, launch_error(error))
            return HIJACKED
        if end is End.DETACHED:
            _publish(engine, "exec_detach", container.handle, document)
        return HIJACKED

    async def inspect(request: Request) -> Response:
        document = await store.load(request.match["id"])
        state = await store.state(document) if document.started and document.failed is None else None
        return json_response(_describe(document, state))

    async def resize(request: Request) -> Response:
        rows, columns = terminal_size(request)
        document = await store.load(request.match["id"])
        if not document.started:
            raise BadRequest("exec process is not started")
        await engine.port.call(
            engine.port.containers.Resize,
            pb.ResizeContainerRequest(id=document.container, exec_id=document.id, rows=rows, columns=columns),
            timeout=10,
        )
        return empty(200)

    router.add("POST", "/containers/{name}/exec", create)
    router.add("POST", "/exec/{id}/start", start, blocking=True)
    router.add("GET", "/exec/{id}/json", inspect)
    router.add("POST", "/exec/{id}/resize", resize)


def _console(size: list[int]) -> tuple[int, int]:
    if len(size) not in (0, 2) or any(not 0 <= n < 1 << 16 for n in size):
        raise BadRequest("invalid ConsoleSize: height and width of the console are wanted")
    return (size[0], size[1]) if size else (0, 0)


def _can_exec(container: pb.Container, called: str) -> None:
    name = status.state_name(container.state)
    if name == "paused":
        raise Conflict(f"Container {called} is paused, unpause the container before exec")
    if name == "restarting":
        raise Conflict(f"Container {container.handle.id} is restarting, wait until the container is running")
    if name != "running":
        raise Conflict(f"container {container.handle.id} is not running")


def _process(spec: pb.ContainerSpec, document: ExecDocument, rows: int, columns: int) -> tether_pb2.Process:
    """The container's environment and limits, with the exec's command on top."""
    main = spec.process
    environment = replaced(base_environment(hostname=spec.hostname, tty=document.tty), list(main.env))
    if document.tty and not main.tty:  # the container's own environment knows no terminal
        environment = replaced(["TERM=xterm"], environment)
    privileged = main.privileged or document.privileged
    return tether_pb2.Process(
        argv=document.argv,
        env=replaced(environment, document.env),
        cwd=document.cwd or main.cwd,
        user=document.user or main.user,
        additional_groups=[] if document.user else main.additional_groups,
        tty=document.tty,
        open_stdin=document.stdin,
        stdin_once=True,
        rows=rows or document.rows,
        columns=columns or document.columns,
        capabilities=capabilities.ALL if document.privileged else main.capabilities,
        privileged=privileged,
        no_new_privileges=main.no_new_privileges,
        rlimits=main.rlimits,
        oom_score_adj=main.oom_score_adj,
        seccomp_unconfined=main.seccomp_unconfined or document.privileged,
    )


def _failed(document: ExecDocument, error: PortLayerError) -> ExecDocument:
    code = error.exit_code if error.exit_code == NOT_FOUND else CANNOT_RUN
    return replace(document, started=True, failed=code)


@contextlib.asynccontextmanager
async def _begun(
    engine: Engine, store: ExecStore, document: ExecDocument, open_: pb.ExecOpen
) -> AsyncIterator[PortSession]:
    """A session whose process runs, on record as started; PortLayerError when it could not be."""
    saving = asyncio.create_task(store.save(document.begun()))  # while the guest starts the process
    async with engine.port.session(engine.port.interaction.Exec) as session:
        try:
            await session.send(pb.InputChunk(exec=open_))
            ready = await session.receive()
        finally:
            await asyncio.wait({saving})
        saving.result()
        if ready is None or ready.stream != pb.OutputChunk.READY:
            raise PortLayerError("the port layer did not start the exec session", status=500)
        yield session


def _options(document: ExecDocument) -> Options:
    return Options(
        tty=document.tty,
        stdin=document.stdin,
        close_stdin=True,
        detach_keys=parse_detach_keys(document.detach_keys),
    )


async def _tell(duplex: Duplex, document: ExecDocument, error: PortLayerError) -> None:
    """A command that cannot be run is told in the stream: its exit code is read from inspect."""
    text = error.message
    if not text.startswith("unable to find user"):
        text = f"OCI runtime exec failed: exec failed: unable to start container process: {text}: unknown"
    line = f"{text}\r\n".encode()
    try:
        await duplex.write(line if document.tty else frame(STDOUT, line))
    except Disconnected:
        logger.debug("client left before it heard that exec %s failed", document.id)


def _describe(document: ExecDocument, state: tether_pb2.ExecState | None) -> dict[str, Any]:
    running = state is not None and state.running
    code: int | None = document.failed
    if state is not None and not state.running:
        code = state.exit_code
    elif document.started and state is None and code is None:
        code = 137  # its VM went down with it
    return {
        "ID": document.id,
        "Running": running,
        "ExitCode": code,
        "ProcessConfig": {
            "tty": document.tty,
            "entrypoint": document.argv[0],
            "arguments": document.argv[1:],
            "privileged": document.privileged,
            "user": document.user,
        },
        "OpenStdin": document.stdin,
        "OpenStderr": document.stderr,
        "OpenStdout": document.stdout,
        "CanRemove": document.started and not running,
        "ContainerID": document.container,
        "DetachKeys": document.detach_keys,
        "Pid": state.pid if state is not None and state.running else 0,
    }


def _publish(engine: Engine, action: str, handle: pb.Handle, document: ExecDocument) -> None:
    command = " ".join(document.argv)
    shown = action if action == "exec_detach" else f"{action}: {command} "
    engine.events.publish(
        "container", shown, handle.id, {**event_attributes(engine, handle), "execID": document.id}
    )
