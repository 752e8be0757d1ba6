"""The instructions that change nothing but an image's configuration, applied to one.

``apply`` returns the comment that Docker's history shows for it. Variables are expanded with what
``expander`` knows; the configuration is changed in place and keeps Docker's shape (`Env`, `Cmd`, …).
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from engine.dockerfile.errors import DockerfileError
from engine.dockerfile.instructions import (
    Command,
    Healthcheck,
    Instruction,
    Onbuild,
    Pairs,
    Text,
    Words,
)
from engine.dockerfile.words import Expander
from engine.timestamps import duration_ns

__all__ = ["Config", "apply", "command_line", "environment", "is_setting", "shell_of", "work_directory"]

Config = dict[str, Any]

_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.ASCII | re.IGNORECASE)
_DEFAULT_SHELL = ("/bin/sh", "-c")
_MINIMUM_NS = 1_000_000
_SIGNAL = re.compile(r"(?:SIG)?[A-Z][A-Z0-9]*(?:[+-][0-9]+)?|[0-9]{1,2}", re.ASCII | re.IGNORECASE)
_HEALTH = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
}


def environment(config: Mapping[str, Any]) -> dict[str, str]:
    """`Env` as a mapping; the last of a name counts."""
    return dict(item.partition("=")[::2] for item in config.get("Env") or () if "=" in item)


def shell_of(config: Mapping[str, Any]) -> list[str]:
    return list(config.get("Shell") or _DEFAULT_SHELL)


def command_line(config: Mapping[str, Any], words: Sequence[str], *, shell: bool) -> list[str]:
    """What is executed: the exec form as it is, the shell form by the image's shell."""
    return [*shell_of(config), *words] if shell else list(words)


def is_setting(instruction: Instruction) -> bool:
    return instruction.word in _APPLY and instruction.word != "WORKDIR"


def apply(config: Config, instruction: Instruction, expander: Expander) -> str:
    """Raises DockerfileError."""
    return _APPLY[instruction.word](config, instruction, expander)


def work_directory(current: str, wanted: str) -> str:
    """Absolute and clean; a relative one goes on from the current."""
    if not wanted:
        raise DockerfileError("cannot normalize nothing")
    path = posixpath.normpath(posixpath.join("/", current or "/", wanted))
    return "/" + path.lstrip("/")


def _cmd(config: Config, instruction: Instruction, expander: Expander) -> str:
    assert isinstance(instruction, Command)
    config["Cmd"] = command_line(config, instruction.words, shell=instruction.shell)
    return f"CMD {_quoted(config['Cmd'])}"


def _entrypoint(config: Config, instruction: Instruction, expander: Expander) -> str:
    assert isinstance(instruction, Command)
    config["Entrypoint"] = command_line(config, instruction.words, shell=instruction.shell)
    return f"ENTRYPOINT {_quoted(config['Entrypoint'])}"


def _env(config: Config, instruction: Instruction, expander: Expander) -> str:
    variables: list[str] = list(config.get("Env") or ())
    shown = []
    for key, value in _expanded(instruction, expander):
        item = f"{key}={value}"
        shown.append(item)
        at = [number for number, known in enumerate(variables) if known.partition("=")[0] == key]
        if at:
            variables[at[0]] = item
        else:
            variables.append(item)
    config["Env"] = variables
    return f"ENV {' '.join(shown)}"


def _label(config: Config, instruction: Instruction, expander: Expander) -> str:
    pairs = _expanded(instruction, expander)
    config["Labels"] = {**(config.get("Labels") or {}), **dict(pairs)}
    return f"LABEL {' '.join(f'{key}={value}' for key, value in pairs)}"


def _expanded(instruction: Instruction, expander: Expander) -> list[tuple[str, str]]:
    assert isinstance(instruction, Pairs)
    pairs = [(expander.word(key), expander.word(value)) for key, value in instruction.pairs]
    if not all(key for key, _ in pairs):
        raise DockerfileError(f"{instruction.word} names can not be blank")
    return pairs


def _expose(config: Config, instruction: Instruction, expander: Expander) -> str:
    assert isinstance(instruction, Words)
    words = [word for value in instruction.values for word in expander.words(value)]
    ports = dict(config.get("ExposedPorts") or {})
    for word in words:
        match = _PORT.fullmatch(word)
        first = int(match[1]) if match else 0
        last = int(match[2] or first) if match else 0
        if match is None or not 1 <= first <= last <= 65535:
            raise DockerfileError(f"invalid containerPort: {word[:100]}")
        protocol = (match[3] or "tcp").lower()
        ports.update({f"{port}/{protocol}": {} for port in range(first, last + 1)})
    config["ExposedPorts"] = ports
    return f"EXPOSE {' '.join(sorted(words))}"


def _volume(config: Config, instruction: Instruction, expander: Expander) -> str:
    assert isinstance(instruction, Words)
    paths = [expander.word(value) for value in instruction.values]
    if not all(paths):
        raise DockerfileError("VOLUME specified can not be an empty string")
    config["Volumes"] = {**(config.get("Volumes") or {}), **{path: {} for path in paths}}
    return f"VOLUME [{' '.join(paths)}]"


def _user(config: Config, instruction: Instruction, expander: Expander) -> str:
    config["User"] = _single(instruction, expander)
    return f"USER {config['User']}"


def _workdir(config: Config, instruction: Instruction, expander: Expander) -> str:
    config["WorkingDir"] = work_directory(config.get("WorkingDir") or "", _single(instruction, expander))
    return f"WORKDIR {config['WorkingDir']}"


def _stop_signal(config: Config, instruction: Instruction, expander: Expander) -> str:
    signal = _single(instruction, expander)
    if not _SIGNAL.fullmatch(signal):
        raise DockerfileError(f"invalid signal: {signal[:100]}")
    config["StopSignal"] = signal
    return f"STOPSIGNAL {signal}"


def _maintainer(config: Config, instruction: Instruction, expander: Expander) -> str:
    """The author is the image's, not the configuration's: the builder takes it from the comment."""
    assert isinstance(instruction, Text)
    return f"MAINTAINER {instruction.value}"


def _single(instruction: Instruction, expander: Expander) -> str:
    assert isinstance(instruction, Text)
    return expander.word(instruction.value)


def _shell(config: Config, instruction: Instruction, expander: Expander) -> str:
    assert isinstance(instruction, Words)
    config["Shell"] = list(instruction.values)
    return f"SHELL [{' '.join(instruction.values)}]"


def _onbuild(config: Config, instruction: Instruction, expander: Expander) -> str:
    assert isinstance(instruction, Onbuild)
    config["OnBuild"] = [*(config.get("OnBuild") or ()), instruction.trigger]
    return f"ONBUILD {instruction.trigger}"


def _healthcheck(config: Config, instruction: Instruction, expander: Expander) -> str:
    assert isinstance(instruction, Healthcheck)
    if instruction.disabled:
        config["Healthcheck"] = {"Test": ["NONE"]}
        return "HEALTHCHECK NONE"
    health: Config = {"Test": ["CMD-SHELL" if instruction.shell else "CMD", *instruction.words]}
    for flag, value in instruction.flags.items():
        if flag == "retries":
            if not re.fullmatch(r"[0-9]{1,9}", value) or int(value) < 1:
                raise DockerfileError(f"--retries must be at least 1 (not {value[:20]})")
            health["Retries"] = int(value)
            continue
        ns = duration_ns(value)
        if ns is None:
            raise DockerfileError(f'time: invalid duration "{value[:100]}"')
        if ns and ns < _MINIMUM_NS:
            raise DockerfileError(f'Interval "{flag}" cannot be less than 1ms')
        health[_HEALTH[flag]] = ns
    config["Healthcheck"] = health
    return f"HEALTHCHECK {_quoted(health['Test'])}"


def _quoted(words: Iterable[str]) -> str:
    """Go's %q of a list."""
    return f"[{' '.join(json.dumps(word, ensure_ascii=False) for word in words)}]"


_APPLY = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _onbuild,
    "SHELL": _shell,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
