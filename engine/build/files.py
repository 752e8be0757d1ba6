"""The steps that put files into an image without running anything: COPY, ADD, WORKDIR.

Each opens the disk of a container that is never started: the sources are looked at first, so that a
step from the cache opens nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import posixpath
import tarfile
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from engine.build import copying
from engine.build.context import Tree, clean, has_wildcards
from engine.build.copying import CopyPlan, Found
from engine.build.owners import parse_mode, parse_owner
from engine.dockerfile.instructions import Copy, Instruction
from engine.dockerfile.settings import apply
from engine.http import ApiError, BadRequest
from engine.images import download
from engine.images.index import StoredImage
from engine.rpc import PortLayerError
from portlayer import portlayer_pb2 as pb

if TYPE_CHECKING:
    from engine.build.builder import Builder, State
    from engine.build.workplace import Workplace

__all__ = ["copy_files", "work_directory"]

_DATABASE_LIMIT = 1 << 20


async def work_directory(builder: Builder, state: State, instruction: Instruction) -> None:
    comment = apply(state.config, instruction, builder.expander(state))
    path = state.config["WorkingDir"]

    @contextlib.asynccontextmanager
    async def made() -> AsyncGenerator[AsyncGenerator[bytes, None], None]:
        async with builder.workplace(state.image, {}, ()) as place:
            missing = await _missing(place, path)
            if missing and missing[0] == "":
                raise ApiError(f"cannot mkdir: {path} is not a directory", status=500)
            if missing:
                with builder.service.spool.file() as spool:
                    plan = CopyPlan(
                        found=(), target=path, into=True, missing=missing, owner=None, chown=False, mode=None
                    )
                    await asyncio.to_thread(copying.write, plan, spool)
                    await place.put("/", spool.content())
            yield place.changes()

    await builder.step(state, ["/bin/sh", "-c", f"#(nop) {comment}"], made)


async def copy_files(builder: Builder, state: State, instruction: Copy) -> None:
    expander = builder.expander(state)
    sources = [expander.word(source) for source in instruction.sources]
    target = expander.word(instruction.destination)
    owner, mode = expander.word(instruction.owner), expander.word(instruction.mode)
    bits = parse_mode(mode) if mode else None
    word = instruction.word
    async with contextlib.AsyncExitStack() as stack:
        if instruction.origin:
            origin = expander.word(instruction.origin)
            found = await _from_image(builder, origin, sources, word, stack)
        else:
            found = await _from_context(builder, sources, target, word, stack)
        checksum = await asyncio.to_thread(copying.digest, found)
        absolute, as_directory = copying.destination(
            state.config.get("WorkingDir") or "", target, several=len(found) > 1, word=word
        )
        shown = absolute + ("/" if as_directory and absolute != "/" else "")
        flags = "".join(f"--{flag}={value} " for flag, value in (("chown", owner), ("chmod", mode)) if value)

        @contextlib.asynccontextmanager
        async def made() -> AsyncGenerator[AsyncGenerator[bytes, None], None]:
            async with builder.workplace(state.image, {}, ()) as place:
                plan = await _plan(
                    builder,
                    place,
                    instruction,
                    stack,
                    found=found,
                    target=absolute,
                    as_directory=as_directory,
                    owner=owner,
                    mode=bits,
                )
                with builder.service.spool.file() as spool:
                    await asyncio.to_thread(copying.write, plan, spool)
                    await place.put("/", spool.content())
                yield place.changes()

        remark = f"#(nop) {word} {flags}{checksum} in {shown} "
        await builder.step(state, ["/bin/sh", "-c", remark], made)


async def _plan(
    builder: Builder,
    place: Workplace,
    instruction: Copy,
    stack: contextlib.AsyncExitStack,
    *,
    found: list[Found],
    target: str,
    as_directory: bool,
    owner: str,
    mode: int | None,
) -> CopyPlan:
    if instruction.word == "ADD" and not instruction.origin:
        expanded = []
        for item in found:
            spool = stack.enter_context(builder.service.spool.file())
            foreign = item.foreign  # a download: never unpacked
            expanded.append(item if foreign else await asyncio.to_thread(copying.expand_archive, item, spool))
        found = expanded
    kind = await place.kind(target)
    contents = any(item.contents for item in found)
    if kind == "file" and (contents or as_directory):
        raise ApiError(f"{instruction.word} failed: cannot copy to non-directory: {target}", status=400)
    into = as_directory or kind == "directory" or contents
    directory = target if into else posixpath.dirname(target)
    missing = [] if into and kind == "directory" else await _missing(place, directory)
    if missing and missing[0] == "":
        raise ApiError(f"{instruction.word} failed: {directory} is not a directory", status=400)
    ids: tuple[int, int] | None = None if instruction.origin else (0, 0)
    if owner:
        ids = await _owner(place, owner)
    return CopyPlan(
        found=found, target=target, into=into, missing=missing, owner=ids, chown=bool(owner), mode=mode
    )


async def _missing(place: Workplace, path: str) -> list[str]:
    """Directories down to ``path`` that are not there, parents first; [""] when a file is in the way."""
    missing: list[str] = []
    at = path
    while at not in ("", "/"):
        kind = await place.kind(at)
        if kind == "directory":
            break
        if kind == "file":
            return [""]
        missing.insert(0, at)
        at = posixpath.dirname(at)
    return missing


async def _owner(place: Workplace, text: str) -> tuple[int, int]:
    databases = []
    for path in ("/etc/passwd", "/etc/group"):
        databases.append(await _small_file(place, path))
    return parse_owner(text, *databases)


async def _small_file(place: Workplace, path: str) -> str:
    data = bytearray()
    try:
        async with contextlib.aclosing(place.fetch(await place.real(path))) as chunks:
            async for chunk in chunks:
                data += chunk
                if len(data) > _DATABASE_LIMIT:
                    raise BadRequest(f"{path} of the image is larger than {_DATABASE_LIMIT} bytes")
    except PortLayerError as error:
        if error.reason not in (pb.NO_SUCH_PATH, pb.IS_DIRECTORY_CONFLICT):
            raise
        return ""
    size = int(data[124:136].split(b"\0")[0].strip() or b"0", 8) if data[156:157] == b"0" else 0
    return data[tarfile.BLOCKSIZE : tarfile.BLOCKSIZE + size].decode("utf-8", "replace")


async def _from_context(
    builder: Builder, sources: list[str], target: str, word: str, stack: contextlib.AsyncExitStack
) -> list[Found]:
    found: list[Found] = []
    for source in sources:
        if word == "ADD" and source.startswith(("http://", "https://")):
            spool = stack.enter_context(builder.service.spool.file())
            name = await download.fetch(builder.service.transport, source, target, spool)
            found.append(Found(tree=Tree(spool), path=name, name=name, contents=False, foreign=True))
        elif word == "ADD" and source.startswith(("git@", "git://")):
            raise BadRequest("ADD of a Git repository requires BuildKit")
        else:
            found += await asyncio.to_thread(copying.choose, builder.context, [source], word=word)
    return found


async def _from_image(
    builder: Builder, origin: str, sources: list[str], word: str, stack: contextlib.AsyncExitStack
) -> list[Found]:
    """From an earlier stage, or from any image."""
    state = builder.stage_of(origin)
    image: StoredImage | None = state.image if state is not None else await builder.image(origin, None)
    place = await stack.enter_async_context(builder.workplace(image, {}, ()))
    found: list[Found] = []
    for source in sources:
        path = "/" + clean(source)
        # of a pattern, everything below the part that is none
        fixed = path
        while has_wildcards(fixed):
            fixed = posixpath.dirname(fixed)
        tree = await _tree(builder, place, fixed, stack, source=source, word=word)
        found += await asyncio.to_thread(copying.choose, tree, [path], word=word)
    return found


async def _tree(
    builder: Builder,
    place: Workplace,
    path: str,
    stack: contextlib.AsyncExitStack,
    *,
    source: str,
    word: str,
) -> Tree:
    spool = stack.enter_context(builder.service.spool.file())
    try:
        real = await place.real(path)
        async with contextlib.aclosing(place.fetch(real)) as chunks:
            async for chunk in chunks:
                await asyncio.to_thread(spool.append, chunk)
    except PortLayerError as error:
        if error.reason not in (pb.NO_SUCH_PATH, pb.IS_DIRECTORY_CONFLICT):
            raise
        raise ApiError(f"{word} failed: stat {clean(source)}: file does not exist", status=400) from error
    tree = await asyncio.to_thread(Tree, spool, prefix=clean(posixpath.dirname(real)))
    if real != path:
        tree.link(clean(path), "/" + clean(real))
    return tree
