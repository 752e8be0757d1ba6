"""start, stop, restart, kill, pause, unpause, resize: one call to the port layer each."""

from __future__ import annotations

from engine.containers import status
from engine.containers.detachkeys import parse_detach_keys
from engine.containers.removal import remove_quietly
from engine.containers.signals import parse_signal
from engine.context import Engine
from engine.http import (
    BadRequest,
    Conflict,
    Forbidden,
    InternalError,
    NotModified,
    Request,
    Response,
    Router,
    empty,
)
from engine.rpc import PortLayerError
from portlayer import portlayer_pb2 as pb

__all__ = ["event_attributes", "register"]

MAX_SECONDS = (1 << 31) - 1


def register(router: Router, engine: Engine) -> None:
    async def start(request: Request) -> Response:
        checkpoint = request.query.text("checkpoint")
        if request.query.text("checkpoint-dir"):
            raise Forbidden("custom checkpointdir is not supported")
        parse_detach_keys(request.query.text("detachKeys"))
        if (await request.body()).strip() not in (b"", b"null", b"{}"):
            raise BadRequest(
                "starting container with non-empty request body was deprecated since API v1.22 "
                "and removed in v1.24"
            )
        container = await engine.containers.find(request.match["name"])
        await start_container(engine, container, checkpoint=checkpoint)
        return empty()

    async def stop(request: Request) -> Response:
        container = await engine.containers.find(request.match["name"])
        stop_request = _stop_request(request, container)
        if not status.is_running(container.state) and not status.is_starting(container.state):
            raise NotModified("container is already stopped")
        await engine.port.call(engine.port.containers.Stop, stop_request, timeout=None)
        return empty()

    async def restart(request: Request) -> Response:
        container = await engine.containers.find(request.match["name"])
        stop_request = _stop_request(request, container)
        try:
            await engine.port.call(engine.port.containers.Restart, stop_request, timeout=None)
        except PortLayerError as error:
            raise launch_error(error) from error
        engine.events.publish(
            "container", "restart", container.handle.id, event_attributes(engine, container.handle)
        )
        return empty()

    async def kill(request: Request) -> Response:
        container = await engine.containers.find(request.match["name"])
        text = request.query.text("signal") or "KILL"
        number = parse_signal(text)
        if not status.is_running(container.state) and not status.is_starting(container.state):
            raise Conflict(
                f"cannot kill container: {request.match['name']}: "
                f"container {container.handle.id} is not running"
            )
        await engine.port.call(
            engine.port.containers.Kill, pb.KillRequest(id=container.handle.id, signal=number)
        )
        return empty()

    async def pause(request: Request) -> Response:
        container = await engine.containers.find(request.match["name"])
        name = status.state_name(container.state)
        if name == "paused":
            raise Conflict(f"Container {container.handle.id} is already paused")
        _running(container)
        if name == "restarting":
            raise _restarting(container)
        await engine.port.call(engine.port.containers.Pause, pb.ContainerRef(id=container.handle.id))
        return empty()

    async def unpause(request: Request) -> Response:
        container = await engine.containers.find(request.match["name"])
        if status.state_name(container.state) != "paused":
            raise InternalError(f"Container {container.handle.id} is not paused")
        await engine.port.call(engine.port.containers.Unpause, pb.ContainerRef(id=container.handle.id))
        return empty()

    async def resize(request: Request) -> Response:
        rows, columns = terminal_size(request)
        container = await engine.containers.find(request.match["name"])
        _running(container)
        await engine.port.call(
            engine.port.containers.Resize,
            pb.ResizeContainerRequest(id=container.handle.id, rows=rows, columns=columns),
            timeout=10,
        )
        engine.events.publish(
            "container",
            "resize",
            container.handle.id,
            {**event_attributes(engine, container.handle), "height": str(rows), "width": str(columns)},
        )
        return empty(200)

    router.add("POST", "/containers/{name}/start", start)
    router.add("POST", "/containers/{name}/stop", stop)
    router.add("POST", "/containers/{name}/restart", restart)
    router.add("POST", "/containers/{name}/kill", kill)
    router.add("POST", "/containers/{name}/pause", pause)
    router.add("POST", "/containers/{name}/unpause", unpause)
    router.add("POST", "/containers/{name}/resize", resize)


async def start_container(engine: Engine, container: pb.Container, *, checkpoint: str = "") -> None:
    name = status.state_name(container.state)
    if name == "paused":
        raise Conflict("cannot start a paused container, try unpause instead")
    if name in ("removing", "dead"):
        raise Conflict("container is marked for removal and cannot be started")
    if name == "running":
        raise NotModified("container is already running")
    try:
        if checkpoint:
            from_there = pb.CheckpointRequest(id=container.handle.id, name=checkpoint)
            await engine.port.call(engine.port.containers.StartFromCheckpoint, from_there, timeout=None)
        else:
            await engine.port.call(
                engine.port.containers.Start, pb.ContainerRef(id=container.handle.id), timeout=None
            )
    except PortLayerError as error:
        if error.reason == pb.NO_SUCH_CHECKPOINT:
            raise InternalError(
                f"checkpoint {checkpoint} does not exist for container /{container.handle.spec.name}"
            ) from error
        if error.reason == pb.ALREADY_RUNNING:
            raise NotModified("container is already running") from error
        if container.handle.spec.ephemeral and error.reason != pb.UNSPECIFIED:
            await remove_quietly(engine, container.handle)
        raise launch_error(error) from error


def launch_error(error: PortLayerError) -> PortLayerError:
    """A command that cannot be run is the client's mistake, and clients look for these words."""
    if error.reason != pb.LAUNCH_FAILED:
        return error
    message, status_code = error.message, 500
    if error.exit_code == 127:
        status_code = 400
        if "executable file not found" not in message and "no such file or directory" not in message:
            message = f"{message}: executable file not found in $PATH"
    elif error.exit_code == 126:
        status_code = 400
        if "permission denied" not in message and "is a directory" not in message:
            message = f"{message}: permission denied"
    return PortLayerError(message, status=status_code, reason=error.reason, exit_code=error.exit_code)


def _stop_request(request: Request, container: pb.Container) -> pb.StopRequest:
    text = request.query.text("signal") if request.version >= (1, 42) else ""
    default = container.handle.spec.stop_timeout
    seconds = request.query.integer("t", default) if request.query.text("t") else default
    return pb.StopRequest(
        id=container.handle.id,
        signal=parse_signal(text) if text else 0,
        timeout=max(-1, min(seconds, MAX_SECONDS)),
    )


def _running(container: pb.Container) -> None:
    if not status.is_running(container.state):
        raise Conflict(f"container {container.handle.id} is not running")


def _restarting(container: pb.Container) -> Conflict:
    return Conflict(f"Container {container.handle.id} is restarting, wait until the container is running")


def terminal_size(request: Request) -> tuple[int, int]:
    sizes: list[int] = []
    for name, word in (("h", "height"), ("w", "width")):
        text = request.query.text(name)
        if not (text.isascii() and text.isdigit()) or len(text) > 10 or int(text) >= 1 << 32:
            raise BadRequest(f'invalid resize {word} "{text}"')
        sizes.append(int(text))
    return sizes[0], sizes[1]


def event_attributes(engine: Engine, handle: pb.Handle) -> dict[str, str]:
    document = engine.containers.document(handle)
    return {**document.labels, "image": document.image, "name": handle.spec.name}
