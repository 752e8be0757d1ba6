"""``POST /build`` and what belongs to it: the request's body in, the builder's words out."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator

from engine.build.builder import Builder, CommandFailed
from engine.build.cache import BuildCache
from engine.build.context import Tree
from engine.build.ignore import excluded
from engine.build.options import BUILDKIT, BuildOptions, parse_options
from engine.containers import translation
from engine.containers.config import Config
from engine.context import Engine
from engine.dockerfile.errors import DockerfileError
from engine.dockerfile.instructions import Dockerfile, parse_dockerfile
from engine.dockerfile.source import SIZE_LIMIT, parse_source
from engine.http import ApiError, BadRequest, Request, Response, Router, Unsupported, json_response
from engine.images.download import fetch_raw
from engine.images.load import fill
from engine.images.progress import Kept, Progress
from engine.images.service import ImageService
from engine.images.spool import SpoolFile
from engine.images.stream import reporting
from engine.registry.credentials import Credentials, credentials_from, registry_domain
from engine.registry.digest import short
from engine.registry.errors import BadContent, InvalidReference

__all__ = ["register"]

_IGNORE_LIMIT = 1 << 20
_CONFIG_LIMIT = 1 << 20


_PRUNE_REFUSED = ("keep-storage", "reserved-space", "max-used-space", "min-free-space", "filters")


def register(router: Router, engine: Engine, service: ImageService) -> None:
    cache = BuildCache(engine.port, service.catalog)

    async def build(request: Request) -> Response:
        options = parse_options(request.query)
        credentials = _registry_config(request.headers.get("x-registry-config", ""))
        translation.check(Config(Cmd=["x"]), options.host)

        async def work(progress: Progress) -> None:
            quiet = Kept() if options.quiet else progress
            try:
                with contextlib.ExitStack() as stack:
                    spool = stack.enter_context(service.spool.file())
                    context = await _context(service, request.stream(), options, spool)
                    dockerfile = await asyncio.to_thread(_dockerfile, context, options)
                    for warning in dockerfile.warnings:
                        quiet.text(f"{warning}\n")
                    builder = Builder(
                        engine,
                        service,
                        cache,
                        options=options,
                        context=context,
                        progress=quiet,
                        credentials=lambda domain: credentials.get(domain, Credentials()),
                    )
                    image = await builder.build(dockerfile)
            except CommandFailed as error:
                _retell(quiet, progress)
                progress.error(error.message, code=error.code)
                return
            except DockerfileError as error:
                raise BadRequest(str(error)) from error
            except ApiError:
                _retell(quiet, progress)
                raise
            if options.quiet:
                progress.text(f"{image.id}\n")
            else:
                progress.text(f"Successfully built {short(image.id)}\n")
            for name in options.names:
                await service.tag(image.id, name)
                if not options.quiet:
                    progress.text(f"Successfully tagged {name.familiar}\n")

        return await reporting(work)

    async def prune(request: Request) -> Response:
        request.query.flag("all")  # the whole cache goes in any case
        for name in _PRUNE_REFUSED:
            if request.query.text(name) not in ("", "0", "{}"):
                raise Unsupported(f"docker builder prune: {name} is not supported: the whole cache goes")
        return json_response({"CachesDeleted": await cache.prune() or None, "SpaceReclaimed": 0})

    async def cancel(request: Request) -> Response:
        raise Unsupported(f"a build is cancelled by ending its request. {BUILDKIT}")

    router.add("POST", "/build", build)
    router.add("POST", "/build/prune", prune, since=(1, 31))
    router.add("POST", "/build/cancel", cancel, since=(1, 39))


def _retell(quiet: Progress, progress: Progress) -> None:
    """A quiet build that failed tells everything after all."""
    if quiet is not progress:
        progress.take(quiet)


async def _context(
    service: ImageService, body: AsyncIterator[bytes], options: BuildOptions, spool: SpoolFile
) -> Tree:
    try:
        if not options.remote:
            await fill(spool, body)
            return await asyncio.to_thread(Tree, spool)
        if options.remote.startswith(("git://", "git@", "github.com/")) or ".git" in options.remote:
            raise Unsupported(
                "building from a Git repository is not supported: clone it and send the directory as context"
            )
        with service.spool.file() as fetched:
            await fetch_raw(service.transport, options.remote, fetched)
            await fill(spool, fetched.content())
    except BadContent as error:
        raise BadRequest(f"cannot read the build context: {error}") from error
    try:
        return await asyncio.to_thread(Tree, spool)
    except BadRequest:
        if spool.size > SIZE_LIMIT:
            raise
    return Tree.of_file(options.dockerfile, spool)


def _dockerfile(context: Tree, options: BuildOptions) -> Dockerfile:
    name = options.dockerfile
    data = context.read(name, SIZE_LIMIT)
    if data is None and name == "Dockerfile":
        data = context.read("dockerfile", SIZE_LIMIT)
    if data is None:
        raise BadRequest(f"Cannot locate specified Dockerfile: {name[:200]}")
    ignore = context.read(".dockerignore", _IGNORE_LIMIT)
    if ignore is not None:  # the client sends these two whatever it says
        text = ignore.decode("utf-8", "replace")
        for path in (".dockerignore", name):
            if excluded(path, text):
                context.without(path)
    return parse_dockerfile(parse_source(data, name=name))


def _registry_config(header: str) -> dict[str, Credentials]:
    """`X-Registry-Config`: credentials by registry."""
    if not header:
        return {}
    if len(header) > _CONFIG_LIMIT:
        raise BadRequest("X-Registry-Config is too long")
    text = header.replace("+", "-").replace("/", "_").rstrip("=")
    try:
        raw = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
        return {registry_domain(str(server)): credentials_from(item) for server, item in (raw or {}).items()}
    except (ValueError, RecursionError, AttributeError) as error:
        raise BadRequest(f"invalid X-Registry-Config header: {error}") from error
    except InvalidReference as error:
        raise BadRequest(str(error)) from error
