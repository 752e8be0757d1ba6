"""Each logical line as a typed instruction: arguments and flags checked, nothing expanded yet.

`parse_dockerfile` groups them: ARGs before the first FROM, then stages. What only BuildKit can do is
refused by the name of its flag or syntax.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from engine.dockerfile.errors import DockerfileError
from engine.dockerfile.source import Line, Source
from engine.dockerfile.words import split

__all__ = [
    "Arg",
    "Command",
    "Copy",
    "Dockerfile",
    "Healthcheck",
    "Instruction",
    "Onbuild",
    "Pairs",
    "Run",
    "Stage",
    "Text",
    "Words",
    "needs_buildkit",
    "parse_dockerfile",
    "parse_instruction",
]

_COMMANDS_LIMIT = 2000
_STAGE_NAME = re.compile(r"[a-z][a-z0-9_.-]*")
_HEREDOC = re.compile(r"(?:^|[\s;|&(])[0-9]*<<-?\s*[\"']?[A-Za-z_][A-Za-z0-9_]*[\"']?(?:\s|$)")


def needs_buildkit(what: str) -> DockerfileError:
    return DockerfileError(
        f"{what} requires BuildKit. Refer to https://docs.docker.com/go/buildkit/ to learn how to build "
        "images with BuildKit enabled"
    )


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """``text`` is the whole line as it is shown."""

    word: str
    text: str
    number: int


@dataclass(frozen=True, kw_only=True)
class Text(Instruction):
    """USER, WORKDIR, STOPSIGNAL, MAINTAINER: one argument."""

    value: str


@dataclass(frozen=True, kw_only=True)
class Words(Instruction):
    """EXPOSE (words to expand), VOLUME, SHELL."""

    values: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Pairs(Instruction):
    """ENV, LABEL; quotes and variables are still in them."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Arg(Instruction):
    """ARG: names, with a default or without."""

    pairs: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, kw_only=True)
class Command(Instruction):
    """CMD, ENTRYPOINT: the exec form's words, or the shell's one text."""

    words: tuple[str, ...]
    shell: bool


@dataclass(frozen=True, kw_only=True)
class Run(Command):
    pass


@dataclass(frozen=True, kw_only=True)
class Copy(Instruction):
    """COPY and ADD."""

    sources: tuple[str, ...]
    destination: str
    origin: str = ""  # --from
    owner: str = ""  # --chown
    mode: str = ""  # --chmod


@dataclass(frozen=True, kw_only=True)
class Healthcheck(Instruction):
    disabled: bool
    flags: Mapping[str, str] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    shell: bool = False


@dataclass(frozen=True, kw_only=True)
class Onbuild(Instruction):
    trigger: str


@dataclass(frozen=True, kw_only=True)
class Stage:
    base: str
    name: str
    platform: str
    text: str
    number: int
    commands: tuple[Instruction, ...]


@dataclass(frozen=True, kw_only=True)
class Dockerfile:
    escape: str
    arguments: tuple[Arg, ...]  # before the first FROM
    stages: tuple[Stage, ...]
    warnings: tuple[str, ...]


def parse_dockerfile(source: Source) -> Dockerfile:
    """Raises DockerfileError with the line's number."""
    arguments: list[Arg] = []
    stages: list[Stage] = []
    commands: list[Instruction] = []
    if len(source.lines) > _COMMANDS_LIMIT:
        raise DockerfileError(f"the Dockerfile has more than {_COMMANDS_LIMIT} instructions")

    def close() -> None:
        if stages:
            stages[-1] = _with(stages[-1], commands)
            commands.clear()

    for line in source.lines:
        try:
            if line.word == "FROM":
                close()
                stages.append(_stage(line, source.escape))
                continue
            instruction = parse_instruction(line, source.escape)
        except DockerfileError as error:
            raise DockerfileError(str(error), line=line.number) from error
        if stages:
            commands.append(instruction)
        elif isinstance(instruction, Arg):
            arguments.append(instruction)
        else:
            raise DockerfileError("no build stage in current context")
    close()
    return Dockerfile(
        escape=source.escape, arguments=tuple(arguments), stages=tuple(stages), warnings=source.warnings
    )


def _with(stage: Stage, commands: list[Instruction]) -> Stage:
    return Stage(
        base=stage.base,
        name=stage.name,
        platform=stage.platform,
        text=stage.text,
        number=stage.number,
        commands=tuple(commands),
    )


def _stage(line: Line, escape: str) -> Stage:
    flags = _flags(line, "platform")
    words = line.rest.split()
    if len(words) == 3 and words[1].upper() == "AS":
        name = words[2].lower()
        if not _STAGE_NAME.fullmatch(name):
            raise DockerfileError(
                f'invalid name for build stage: "{words[2]}", '
                "name can't start with a number or contain symbols"
            )
    elif len(words) == 1:
        name = ""
    else:
        raise DockerfileError("FROM requires either one or three arguments")
    return Stage(
        base=words[0],
        name=name,
        platform=flags.get("platform", ""),
        text=line.text,
        number=line.number,
        commands=(),
    )


def parse_instruction(line: Line, escape: str) -> Instruction:
    """Anything but FROM. Raises DockerfileError without the line's number."""
    parser = _PARSERS.get(line.word)
    if parser is None:
        raise DockerfileError(f"unknown instruction: {line.word[:100]}")
    if line.word in ("RUN", "COPY", "ADD") and _HEREDOC.search(line.rest):
        raise needs_buildkit("the here-document syntax (<<EOF)")
    return parser(line, escape)


def _flags(line: Line, *known: str) -> dict[str, str]:
    flags: dict[str, str] = {}
    for flag in line.flags:
        name, equals, value = flag.removeprefix("--").partition("=")
        if name not in known:
            raise DockerfileError(f"unknown flag: --{name[:100]}")
        if name in flags:
            raise DockerfileError(f"duplicate flag specified: {name}")
        if not equals:
            raise DockerfileError(f"missing a value on flag: {name}")
        flags[name] = value
    return flags


def _json_words(text: str) -> tuple[str, ...] | None:
    """The exec form, None when it is none."""
    if not text.startswith("["):
        return None
    try:
        words = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        return None
    return tuple(words)


def _at_least_one(line: Line) -> None:
    if not line.rest:
        raise DockerfileError(f"{line.word} requires at least one argument")


def _text(line: Line, escape: str) -> Text:
    _flags(line)
    if not line.rest:
        raise DockerfileError(f"{line.word} requires exactly one argument")
    return Text(word=line.word, text=line.text, number=line.number, value=line.rest)


def _expose(line: Line, escape: str) -> Words:
    _flags(line)
    _at_least_one(line)
    return Words(word=line.word, text=line.text, number=line.number, values=tuple(line.rest.split()))


def _volume(line: Line, escape: str) -> Words:
    _flags(line)
    _at_least_one(line)
    values = _json_words(line.rest)
    values = tuple(line.rest.split()) if values is None else values
    if not all(value.strip() for value in values):
        raise DockerfileError("VOLUME specified can not be an empty string")
    return Words(
        word=line.word, text=line.text, number=line.number, values=tuple(value.strip() for value in values)
    )


def _shell(line: Line, escape: str) -> Words:
    _flags(line)
    values = _json_words(line.rest)
    if values is None:
        raise DockerfileError("SHELL requires the arguments to be in JSON form")
    if not values:
        raise DockerfileError("SHELL requires at least one argument")
    return Words(word=line.word, text=line.text, number=line.number, values=values)


def _pairs(line: Line, escape: str) -> Pairs:
    _flags(line)
    _at_least_one(line)
    words = split(line.rest, escape)
    pairs: list[tuple[str, str]] = []
    if "=" not in words[0]:  # the old form: KEY and all the rest
        old = line.rest.split(maxsplit=1)
        if len(old) != 2:
            raise DockerfileError(f"{line.word} must have two arguments")
        pairs.append((old[0], old[1]))
    else:
        for word in words:
            key, equals, value = word.partition("=")
            if not equals:
                raise DockerfileError(
                    f'Syntax error - can\'t find = in "{word[:200]}". Must be of the form: name=value'
                )
            if not key:
                raise DockerfileError(f"{line.word} names can not be blank")
            pairs.append((key, value))
    return Pairs(word=line.word, text=line.text, number=line.number, pairs=tuple(pairs))


def _arg(line: Line, escape: str) -> Arg:
    _flags(line)
    _at_least_one(line)
    pairs: list[tuple[str, str | None]] = []
    for word in split(line.rest, escape):
        key, equals, value = word.partition("=")
        if not key:
            raise DockerfileError("ARG names can not be blank")
        pairs.append((key, value if equals else None))
    return Arg(word=line.word, text=line.text, number=line.number, pairs=tuple(pairs))


def _command(line: Line, escape: str) -> Command:
    _flags(line)
    words = _json_words(line.rest) if line.rest else ()  # nothing at all takes the image's away
    return Command(
        word=line.word,
        text=line.text,
        number=line.number,
        words=(line.rest,) if words is None else words,
        shell=words is None,
    )


def _run(line: Line, escape: str) -> Run:
    if line.flags:
        raise needs_buildkit(f"the {line.flags[0].partition('=')[0]} option")
    _at_least_one(line)
    words = _json_words(line.rest)
    return Run(
        word=line.word,
        text=line.text,
        number=line.number,
        words=(line.rest,) if words is None else words,
        shell=words is None,
    )


def _copy(line: Line, escape: str) -> Copy:
    known = ("from", "chown", "chmod") if line.word == "COPY" else ("chown", "chmod")
    for flag in line.flags:
        name = flag.removeprefix("--").partition("=")[0]
        if name in ("link", "parents", "exclude", "checksum", "keep-git-dir"):
            raise needs_buildkit(f"the --{name} option")
    flags = _flags(line, *known)
    found = _json_words(line.rest)
    words = tuple(split(line.rest, escape)) if found is None else found
    if not words:
        raise DockerfileError(f"{line.word} requires at least two arguments")
    if len(words) == 1:
        raise DockerfileError(
            f"{line.word} requires at least two arguments, but only one was provided. "
            "Destination could not be determined"
        )
    return Copy(
        word=line.word,
        text=line.text,
        number=line.number,
        sources=words[:-1],
        destination=words[-1],
        origin=flags.get("from", ""),
        owner=flags.get("chown", ""),
        mode=flags.get("chmod", ""),
    )


def _healthcheck(line: Line, escape: str) -> Healthcheck:
    _at_least_one(line)
    flags = _flags(line, "interval", "timeout", "start-period", "start-interval", "retries")
    kind, _, rest = line.rest.partition(" ")
    rest = rest.strip()
    if kind.upper() == "NONE":
        if rest:
            raise DockerfileError("HEALTHCHECK NONE takes no arguments")
        return Healthcheck(word=line.word, text=line.text, number=line.number, disabled=True)
    if kind.upper() != "CMD":
        raise DockerfileError(f'unknown type "{kind.upper()[:100]}" in HEALTHCHECK (try CMD)')
    if not rest:
        raise DockerfileError("Missing command after HEALTHCHECK CMD")
    words = _json_words(rest)
    return Healthcheck(
        word=line.word,
        text=line.text,
        number=line.number,
        disabled=False,
        flags=flags,
        words=(rest,) if words is None else words,
        shell=words is None,
    )


def _onbuild(line: Line, escape: str) -> Onbuild:
    _flags(line)
    _at_least_one(line)
    trigger = line.rest.split(maxsplit=1)[0].upper()
    if trigger == "ONBUILD":
        raise DockerfileError("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in ("MAINTAINER", "FROM"):
        raise DockerfileError(f"{trigger} isn't allowed as an ONBUILD trigger")
    return Onbuild(word=line.word, text=line.text, number=line.number, trigger=line.rest)


_PARSERS: Mapping[str, Callable[[Line, str], Instruction]] = {
    "ADD": _copy,
    "ARG": _arg,
    "CMD": _command,
    "COPY": _copy,
    "ENTRYPOINT": _command,
    "ENV": _pairs,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _pairs,
    "MAINTAINER": _text,
    "ONBUILD": _onbuild,
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": _text,
    "USER": _text,
    "VOLUME": _volume,
    "WORKDIR": _text,
}
