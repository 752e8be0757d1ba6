"""`--change` of docker import: single Dockerfile instructions applied to an image's configuration. No I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from engine.http import BadRequest
from engine.timestamps import duration_ns

__all__ = ["apply_changes"]

Config = dict[str, Any]

_CHANGES_LIMIT = 1000
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.ASCII | re.IGNORECASE)


def apply_changes(changes: Iterable[str]) -> Config:
    """The configuration that these instructions make; BadRequest names the one that cannot be read."""
    config: Config = {}
    lines = [line for change in changes for line in change.splitlines() if line.strip()]
    if len(lines) > _CHANGES_LIMIT:
        raise BadRequest(f"more than {_CHANGES_LIMIT} changes")
    for line in lines:
        word, _, rest = line.strip().partition(" ")
        apply = _INSTRUCTIONS.get(word.upper())
        if apply is None:
            raise BadRequest(f"{word.lower()[:100]} is not a valid change command")
        if not rest.strip():
            raise BadRequest(f"{word.upper()} requires at least one argument")
        apply(config, rest.strip())
    return config


def _words(text: str) -> list[str]:
    """Split at spaces outside quotes; quotes and backslashes go."""
    words: list[str] = []
    current: list[str] | None = None
    quote = ""
    characters = iter(text)
    for char in characters:
        if char == "\\" and quote != "'":
            current = (current or []) + [next(characters, "\\")]
        elif quote:
            if char == quote:
                quote = ""
            else:
                current = (current or []) + [char]
        elif char in "'\"":
            quote, current = char, current or []
        elif char.isspace():
            if current is not None:
                words.append("".join(current))
            current = None
        else:
            current = (current or []) + [char]
    if quote:
        raise BadRequest(f"unexpected end of statement while looking for matching {quote}: {text[:200]}")
    if current is not None:
        words.append("".join(current))
    return words


def _pairs(instruction: str, text: str) -> list[tuple[str, str]]:
    """`KEY=value …`, or the old `KEY the rest`."""
    words = _words(text)
    if "=" not in words[0]:
        key, _, value = text.partition(" ")
        if not value.strip():
            raise BadRequest(f"{instruction} must have two arguments")
        return [(key, value.strip())]
    pairs = [word.partition("=") for word in words]
    for key, equals, _ in pairs:
        if not equals or not key:
            raise BadRequest(f"Syntax error - can't find = in {key[:100]!r}. Must be of the form: name=value")
    return [(key, value) for key, _, value in pairs]


def _command(text: str) -> list[str]:
    """The exec form when it is JSON, else the shell form."""
    if text.startswith("["):
        try:
            words = json.loads(text)
        except (ValueError, RecursionError):
            words = None
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            return words
    return ["/bin/sh", "-c", text]


def _list(text: str) -> list[str]:
    if text.startswith("["):
        words = _command(text)
        if words[0:1] != ["/bin/sh"]:
            return words
    return _words(text)


def _cmd(config: Config, text: str) -> None:
    config["Cmd"] = _command(text)


def _entrypoint(config: Config, text: str) -> None:
    config["Entrypoint"] = _command(text)


def _env(config: Config, text: str) -> None:
    environment: list[str] = config.setdefault("Env", [])
    for key, value in _pairs("ENV", text):
        environment[:] = [item for item in environment if not item.startswith(f"{key}=")]
        environment.append(f"{key}={value}")


def _label(config: Config, text: str) -> None:
    config.setdefault("Labels", {}).update(_pairs("LABEL", text))


def _expose(config: Config, text: str) -> None:
    ports: dict[str, Any] = config.setdefault("ExposedPorts", {})
    for word in _words(text):
        match = _PORT.fullmatch(word)
        first = int(match[1]) if match else 0
        last = int(match[2] or first) if match else 0
        if match is None or not 1 <= first <= last <= 65535:
            raise BadRequest(f"invalid containerPort: {word[:100]}")
        protocol = (match[3] or "tcp").lower()
        ports.update({f"{port}/{protocol}": {} for port in range(first, last + 1)})


def _volume(config: Config, text: str) -> None:
    paths = _list(text)
    if not all(paths):
        raise BadRequest("VOLUME specified can not be an empty string")
    config.setdefault("Volumes", {}).update({path: {} for path in paths})


def _user(config: Config, text: str) -> None:
    config["User"] = _single("USER", text)


def _workdir(config: Config, text: str) -> None:
    path = " ".join(_words(text))
    before = config.get("WorkingDir") or "/"
    config["WorkingDir"] = path if path.startswith("/") else f"{before.rstrip('/')}/{path}"


def _stop_signal(config: Config, text: str) -> None:
    config["StopSignal"] = _single("STOPSIGNAL", text)


def _single(instruction: str, text: str) -> str:
    words = _words(text)
    if len(words) != 1:
        raise BadRequest(f"{instruction} requires exactly one argument")
    return words[0]


def _onbuild(config: Config, text: str) -> None:
    if text.split(maxsplit=1)[0].upper() in ("ONBUILD", "FROM", "MAINTAINER"):
        raise BadRequest(f"{text.split(maxsplit=1)[0].upper()} isn't allowed as an ONBUILD trigger")
    config.setdefault("OnBuild", []).append(text)


_HEALTH_FLAGS = {
    "--interval": "Interval",
    "--timeout": "Timeout",
    "--start-period": "StartPeriod",
    "--start-interval": "StartInterval",
}


def _healthcheck(config: Config, text: str) -> None:
    health: Config = {}
    while text.startswith("--"):
        flag, _, text = text.partition(" ")
        name, _, value = flag.partition("=")
        text = text.strip()
        if name == "--retries" and value.isdecimal():
            health["Retries"] = int(value)
            continue
        ns = duration_ns(value)
        if name not in _HEALTH_FLAGS or ns is None or ns < 0:
            raise BadRequest(f"HEALTHCHECK: invalid flag {flag[:100]!r}")
        health[_HEALTH_FLAGS[name]] = ns
    kind, _, rest = text.partition(" ")
    if kind.upper() == "NONE" and not rest:
        config["Healthcheck"] = {"Test": ["NONE"]}
        return
    if kind.upper() != "CMD" or not rest.strip():
        raise BadRequest(f"Unknown type {kind[:100]!r} in HEALTHCHECK (try CMD)")
    command = _command(rest.strip())
    shell = command[:2] == ["/bin/sh", "-c"] and not rest.strip().startswith("[")
    health["Test"] = ["CMD-SHELL", rest.strip()] if shell else ["CMD", *command]
    config["Healthcheck"] = health


_INSTRUCTIONS: dict[str, Callable[[Config, str], None]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
