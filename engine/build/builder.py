"""One build: through the stages, step by step, saying what dockerd's builder says.

A :class:`State` is where a stage has got to: its last image, the configuration of the next. Every
instruction ends in an image, from the cache or made. What fails, or is cancelled, leaves images of
finished steps only; the containers go.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.build import files
from engine.build.arguments import BuildArguments
from engine.build.cache import BuildCache, from_image, step_key
from engine.build.context import Tree
from engine.build.options import BuildOptions
from engine.build.workplace import Workplace
from engine.containers.translation import PATH
from engine.context import Engine
from engine.dockerfile.errors import DockerfileError
from engine.dockerfile.instructions import (
    Arg,
    Copy,
    Dockerfile,
    Instruction,
    Onbuild,
    Pairs,
    Run,
    Stage,
    parse_instruction,
)
from engine.dockerfile.settings import Config, apply, command_line, environment, shell_of
from engine.dockerfile.source import parse_source
from engine.dockerfile.words import Expander
from engine.http import ApiError, BadRequest, NotFound, Unsupported
from engine.images.index import StoredImage, StoredLayer
from engine.images.making import NewImage
from engine.images.progress import Progress
from engine.images.service import ImageService
from engine.registry.credentials import Credentials
from engine.registry.digest import short
from engine.registry.errors import InvalidReference
from engine.registry.platform import DEFAULT_PLATFORM, Platform, parse_platform
from engine.registry.reference import parse_reference

__all__ = ["Builder", "CommandFailed"]

CredentialsFor = Callable[[str], Credentials]
_SCRATCH = "scratch"


class CommandFailed(ApiError):
    """RUN ended with a code of its own, which becomes the client's."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(kw_only=True)
class State:
    image: StoredImage | None
    config: Config = field(default_factory=dict)
    author: str = ""
    has_command: bool = False  # CMD was said in this stage
    platform: Platform = DEFAULT_PLATFORM

    @property
    def id(self) -> str:
        return self.image.id if self.image is not None else ""


class Builder:
    def __init__(
        self,
        engine: Engine,
        service: ImageService,
        cache: BuildCache,
        *,
        options: BuildOptions,
        context: Tree,
        progress: Progress,
        credentials: CredentialsFor,
    ) -> None:
        self.engine = engine
        self.service = service
        self.options = options
        self.context = context
        self._cache = cache
        self._progress = progress
        self._credentials = credentials
        self._arguments = BuildArguments(options.arguments)
        self._results: list[tuple[str, State]] = []  # stages by name, in order
        self._escape = "\\"
        self._step = 0
        self._steps = 0

    async def build(self, dockerfile: Dockerfile) -> StoredImage:
        """The last image. Raises ApiError, DockerfileError."""
        self._escape = dockerfile.escape
        stages = self._wanted(dockerfile.stages)
        self._steps = len(dockerfile.arguments) + sum(1 + len(stage.commands) for stage in stages)
        for argument in dockerfile.arguments:
            self._announce(argument.text)
            expander = Expander(self._arguments.meta(), self._escape)
            for name, default in argument.pairs:
                self._arguments.declare_meta(name, None if default is None else expander.word(default))
        state = State(image=None)
        for stage in stages:
            state = await self._stage(stage)
        unused = self._arguments.unused()
        if unused:
            self._say(f"[Warning] One or more build-args [{' '.join(unused)}] were not consumed\n")
        if state.image is None:
            raise ApiError("No image was generated. Is your Dockerfile empty?")
        return state.image

    def _wanted(self, stages: Sequence[Stage]) -> list[Stage]:
        """Up to the target, with the request's labels in the last."""
        found = list(stages)
        target = self.options.target.lower()
        if target:
            numbers = [number for number, stage in enumerate(found) if stage.name == target]
            if not numbers and target.isdecimal() and int(target) < len(found):
                numbers = [int(target)]
            if not numbers:
                raise BadRequest(f"failed to reach build target {self.options.target[:200]} in Dockerfile")
            found = found[: numbers[-1] + 1]
        if not found:
            raise DockerfileError("no build stage in current context")
        labels = [
            Pairs(
                word="LABEL", text=f"LABEL {key}={value}", number=0, pairs=((_literal(key), _literal(value)),)
            )
            for key, value in sorted(self.options.labels.items())
        ]
        last = found[-1]
        found[-1] = Stage(
            base=last.base,
            name=last.name,
            platform=last.platform,
            text=last.text,
            number=last.number,
            commands=(*last.commands, *labels),
        )
        return found

    async def _stage(self, stage: Stage) -> State:
        if stage.name and any(name == stage.name for name, _ in self._results):
            raise BadRequest(f"{stage.name} stage name already used")
        self._arguments.begin_stage()
        self._announce(stage.text)
        state = await self._from(stage)
        self._say(f" ---> {short(state.id)}\n")
        for instruction in stage.commands:
            self._announce(instruction.text)
            await self.dispatch(state, instruction)
            self._say(f" ---> {short(state.id)}\n")
        self._results.append((stage.name, state))
        if state.image is not None:
            self._progress.result({"ID": state.image.id})
        return state

    def _announce(self, text: str) -> None:
        self._step += 1
        self._say(f"Step {self._step}/{self._steps} : {text}")
        self._say("\n")

    def _say(self, text: str) -> None:
        self._progress.text(text)

    # -- FROM
    async def _from(self, stage: Stage) -> State:
        expander = Expander(self._arguments.meta(), self._escape)
        base, platform_text = expander.word(stage.base), expander.word(stage.platform)
        if not base:
            raise BadRequest(f"base name ({stage.base}) should not be blank")
        try:
            platform = parse_platform(platform_text) if platform_text else self.options.platform
        except InvalidReference as error:
            raise BadRequest(str(error)) from error
        earlier = self.stage_of(base)
        if earlier is not None:
            image = earlier.image
        elif base == _SCRATCH:
            image = None
        else:
            image = await self.image(base, platform)
        state = State(image=image, platform=image.config.platform if image else platform or DEFAULT_PLATFORM)
        if image is not None:
            state.config = copy.deepcopy(dict(image.config.config))
            state.author = image.config.author
        if "PATH" not in environment(state.config):
            state.config["Env"] = [*(state.config.get("Env") or ()), PATH]
        await self._triggers(state)
        return state

    def stage_of(self, name: str) -> State | None:
        """An earlier stage by its name or number."""
        for stage, state in self._results:
            if stage and stage == name.lower():
                return state
        if name.isdecimal() and int(name) < len(self._results):
            return self._results[int(name)][1]
        return None

    async def image(self, name: str, platform: Platform | None) -> StoredImage:
        """A local image, or pulled: when it is not here, or always with --pull."""
        if not self.options.pull:
            try:
                _, image = await self.service.find(name)
            except NotFound:
                pass
            else:
                if platform is None or image.config.platform.matches(platform):
                    return image
        try:
            reference = parse_reference(name)
        except InvalidReference as error:
            raise BadRequest(str(error)) from error
        reference = reference.with_digest(reference.digest) if reference.digest else reference.tagged
        credentials = self._credentials(reference.domain)
        image = await self.service.puller.pull(reference, platform, credentials, self._progress)
        self.service.publish("pull", reference.familiar, reference.familiar_name, image)
        return image

    async def _triggers(self, state: State) -> None:
        triggers = state.config.pop("OnBuild", None) or ()
        if not triggers:
            return
        self._say(f"# Executing {len(triggers)} build trigger{'' if len(triggers) == 1 else 's'}\n")
        for trigger in triggers:
            source = parse_source(str(trigger).encode(), name="ONBUILD trigger")
            for line in source.lines:
                instruction = parse_instruction(line, source.escape)
                if isinstance(instruction, Onbuild):
                    raise BadRequest("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
                await self.dispatch(state, instruction)

    # -- instructions
    async def dispatch(self, state: State, instruction: Instruction) -> None:
        try:
            if isinstance(instruction, Run):
                await self._run(state, instruction)
            elif isinstance(instruction, Copy):
                await files.copy_files(self, state, instruction)
            elif isinstance(instruction, Arg):
                await self._arg(state, instruction)
            elif instruction.word == "WORKDIR":
                await files.work_directory(self, state, instruction)
            else:
                await self._setting(state, instruction)
        except DockerfileError as error:
            raise BadRequest(str(error)) from error

    def expander(self, state: State) -> Expander:
        variables = environment(state.config)
        return Expander({**self._arguments.allowed(variables), **variables}, self._escape)

    async def _setting(self, state: State, instruction: Instruction) -> None:
        if instruction.word == "ENTRYPOINT" and not state.has_command:
            state.config.pop("Cmd", None)  # the base image's was for its own entrypoint
        state.has_command |= instruction.word == "CMD"
        comment = apply(state.config, instruction, self.expander(state))
        if instruction.word == "MAINTAINER":
            state.author = comment.removeprefix("MAINTAINER ")
        await self.step(state, _remark(state, f"#(nop)  {comment}"))

    async def _arg(self, state: State, instruction: Arg) -> None:
        expander = self.expander(state)
        shown = []
        for name, default in instruction.pairs:
            value = None if default is None else expander.word(default)
            self._arguments.declare(name, value)
            shown.append(name if value is None else f"{name}={value}")
        await self.step(state, _remark(state, f"#(nop)  ARG {' '.join(shown)}"))

    async def _run(self, state: State, instruction: Run) -> None:
        if not state.platform.matches(DEFAULT_PLATFORM):
            raise Unsupported(
                f"RUN in an image for {state.platform} is not supported: this host runs {DEFAULT_PLATFORM}"
            )
        allowed = self._arguments.allowed(environment(state.config))
        command = command_line(state.config, instruction.words, shell=instruction.shell)
        if not command:
            raise BadRequest("RUN requires at least one argument")
        counted = self._arguments.counted(allowed)
        known_as = [f"|{len(counted)}", *counted, *command] if counted else command
        config = {**state.config, "Env": [*(state.config.get("Env") or ()), *_variables(allowed)]}

        @contextlib.asynccontextmanager
        async def made() -> AsyncGenerator[AsyncGenerator[bytes, None], None]:
            async with self.workplace(state.image, config, command) as place:
                self._say(f" ---> Running in {short(place.id)}\n")
                code = await place.run(self._progress)
                if code != 0:
                    raise CommandFailed(
                        f"The command '{' '.join(command)}' returned a non-zero code: {code}", code
                    )
                yield place.changes()

        await self.step(state, known_as, made)

    # -- steps
    async def step(
        self,
        state: State,
        command: Sequence[str],
        archive: Callable[[], contextlib.AbstractAsyncContextManager[AsyncGenerator[bytes, None]]]
        | None = None,
    ) -> None:
        """The instruction's image: from the cache, or made of what ``archive`` gives."""
        key = step_key(state.id, {**state.config, "Author": state.author}, command, str(state.platform))
        created_by = " ".join(command)
        image = await self._cached(state, key, created_by)
        if image is not None:
            self._say(" ---> Using cache\n")
        else:
            async with contextlib.AsyncExitStack() as stack:
                data = await stack.enter_async_context(archive()) if archive is not None else None
                image = await self.service.maker.make(self._new(state, created_by, command), data)
            self.service.published("create", image)
        await self._cache.note(key, image)
        state.image = image

    def _new(self, state: State, created_by: str, command: Sequence[str]) -> NewImage:
        return NewImage(
            parent=state.image,
            platform=state.platform,
            config=copy.deepcopy(state.config),
            created_by=created_by,
            author=state.author,
            container_config={**state.config, "Cmd": list(command)},
        )

    async def _cached(self, state: State, key: str, created_by: str) -> StoredImage | None:
        if not self.options.use_cache:
            return None
        found = await self._cache.find(key)
        if found is not None or not self.options.cache_from:
            return found
        index = await self.service.catalog.index()
        names = [name for name in self.options.cache_from if _is_here(index.resolve, name)]
        lender = from_image(index, names, state.image, created_by)
        if lender is None:
            return None
        image, count = lender
        layers: tuple[StoredLayer, ...] = image.layers[:count]
        return await self.service.maker.adopt(self._new(state, created_by, created_by.split(" ")), layers)

    @contextlib.asynccontextmanager
    async def workplace(
        self, image: StoredImage | None, config: Mapping[str, Any], command: Sequence[str]
    ) -> AsyncGenerator[Workplace, None]:
        """A container that is removed at the end, as --rm and --force-rm say."""
        options = self.options
        running = bool(command)
        place = await Workplace.open(
            self.engine,
            image,
            config,
            options.host,
            command or ["/bin/sh", "-c", "#(nop)"],
            marked=not running or options.remove or options.force_remove,
        )
        removed = not running or options.force_remove
        try:
            yield place
            removed |= options.remove
        except asyncio.CancelledError:
            removed = True
            raise
        finally:
            if removed:
                await place.close()
                if running:
                    self._say(f" ---> Removed intermediate container {short(place.id)}\n")


def _remark(state: State, comment: str) -> list[str]:
    """How the history shows an instruction that runs nothing."""
    return [*shell_of(state.config), comment]


def _variables(values: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in sorted(values.items())]


def _literal(text: str) -> str:
    """So that expansion gives the very text back."""
    return "'" + re.sub("'", "'\"'\"'", text) + "'"


def _is_here(resolve: Callable[[str], StoredImage], name: str) -> bool:
    try:
        resolve(name)
    except ApiError:
        return False
    return True
