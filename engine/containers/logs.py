"""``GET /containers/{name}/logs``."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from urllib.parse import quote_plus

from engine.containers import logtag, status
from engine.containers.document import Document
from engine.containers.lasting import follow_logs
from engine.containers.logconfig import readable
from engine.containers.multiplex import frame, stream_type
from engine.context import Engine
from engine.http import BadRequest, Conflict, Request, Response, Router, streamed
from engine.rpc import PortLayerError
from engine.timestamps import parse_ns
from portlayer import portlayer_pb2 as pb

__all__ = ["raw_output", "register"]

_STAMP_SECONDS = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class _Format:
    tty: bool
    timestamps: bool
    details: str  # shown before each line; "" = none wanted


def register(router: Router, engine: Engine) -> None:
    async def logs(request: Request) -> Response:
        query = request.query
        stdout, stderr = query.flag("stdout"), query.flag("stderr")
        if not (stdout or stderr):
            raise BadRequest("Bad parameters: you must choose at least one stream")
        now = time.time_ns()
        wanted = pb.LogsRequest(
            stdout=stdout,
            stderr=stderr,
            follow=query.flag("follow"),
            since=parse_ns(query.text("since"), now, what="since"),
            until=parse_ns(query.text("until"), now, what="until"),
            tail=_tail(query.text("tail")),
            lines=query.flag("timestamps") or query.flag("details"),
        )
        container = await engine.containers.find(request.match["name"])
        if status.state_name(container.state) in ("dead", "removing"):
            raise Conflict("can not get logs from container which is dead or marked for removal")
        spec = container.handle.spec
        readable(spec.log)
        wanted.id = container.handle.id
        document = engine.containers.document(container.handle)
        form = _Format(
            tty=spec.process.tty,
            timestamps=query.flag("timestamps"),
            details=_details(document, spec) if query.flag("details") else "",
        )
        records = (
            follow_logs(engine.port, wanted)
            if wanted.follow
            else engine.port.stream(engine.port.interaction.Logs, wanted)
        )
        try:
            first = await anext(records, None) if not wanted.follow else None
        except BaseException:
            await records.aclose()
            raise
        return streamed(
            _body(records, first, form), content_type=stream_type(request.version, tty=spec.process.tty)
        )

    router.add("GET", "/containers/{name}/logs", logs)


def _tail(text: str) -> int:
    if text in ("", "all"):
        return -1
    try:
        number = int(text)
    except ValueError:
        return -1  # as dockerd reads it
    return number if 0 <= number < 1 << 62 else -1


async def _body(
    records: AsyncGenerator[pb.LogRecord, None], first: pb.LogRecord | None, form: _Format
) -> AsyncIterator[bytes]:
    async with contextlib.aclosing(records):
        try:
            if first is not None:
                yield _encode(first, form)
            async for record in records:
                yield _encode(record, form)
        except PortLayerError as error:
            if error.reason == pb.NO_SUCH_CONTAINER:  # removed while we followed: that is the end
                return
            raise


def _encode(record: pb.LogRecord, form: _Format) -> bytes:
    data = record.data
    if record.lost:
        data = b"[mooring: %d bytes of output were lost here]\n" % record.lost + data
    prefix = ""
    if form.timestamps:
        prefix = f"{stamp(record.time)} "
    if form.details:
        prefix += f"{form.details} "
    data = prefix.encode() + data if prefix else data
    if not data:
        return b""
    return data if form.tty else frame(record.stream or 1, data)


def stamp(ns: int) -> str:
    """RFC 3339 with all nine digits: log lines align."""
    seconds, rest = divmod(ns, _STAMP_SECONDS)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"


def _details(document: Document, spec: pb.ContainerSpec) -> str:
    """``--details``: what the log options say is to be shown with each line."""
    options = spec.log.options
    shown: dict[str, str] = {}
    labels = document.labels
    environment = dict(item.partition("=")[::2] for item in document.config.get("Env", ()))
    for option, source in (("labels", labels), ("env", environment)):
        for name in filter(None, options.get(option, "").split(",")):
            if name in source:
                shown[name] = source[name]
        pattern = options.get(f"{option}-regex")
        if pattern:
            try:
                compiled = re.compile(pattern)
            except re.error:
                continue
            shown |= {name: value for name, value in source.items() if compiled.search(name)}
    if tag := options.get("tag"):
        shown["tag"] = tag.replace(logtag.NAME, spec.name)
    return ",".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in sorted(shown.items()))


async def raw_output(
    engine: Engine, handle: pb.Handle, *, stdout: bool, stderr: bool
) -> AsyncGenerator[bytes, None]:
    """All output so far, framed as attach frames it."""
    form = _Format(tty=handle.spec.process.tty, timestamps=False, details="")
    wanted = pb.LogsRequest(id=handle.id, stdout=stdout, stderr=stderr, tail=-1)
    records = engine.port.stream(engine.port.interaction.Logs, wanted)
    async with contextlib.aclosing(records):
        async for record in records:
            yield _encode(record, form)
