"""`--change` of docker commit and import: Dockerfile instructions applied to an image's configuration."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from engine.dockerfile.errors import DockerfileError
from engine.dockerfile.instructions import parse_instruction
from engine.dockerfile.settings import apply, environment
from engine.dockerfile.source import parse_source
from engine.dockerfile.words import Expander
from engine.http import BadRequest

__all__ = ["apply_changes"]

Config = dict[str, Any]

_CHANGES_LIMIT = 1000
_VALID = frozenset(
    ("CMD", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "ONBUILD", "STOPSIGNAL", "USER", "VOLUME")
) | {"WORKDIR"}


def apply_changes(changes: Iterable[str], config: Mapping[str, Any] | None = None) -> Config:
    """``config`` with these instructions applied; BadRequest names the one that cannot be read."""
    changed: Config = copy.deepcopy(dict(config or {}))
    text = "\n".join(changes)
    if not text.strip():
        return changed
    try:
        source = parse_source(text.encode("utf-8", "replace"), name="changes")
        if len(source.lines) > _CHANGES_LIMIT:
            raise BadRequest(f"more than {_CHANGES_LIMIT} changes")
        for line in source.lines:
            if line.word not in _VALID:
                raise BadRequest(f"{line.word.lower()[:100]} is not a valid change command")
        for line in source.lines:
            instruction = parse_instruction(line, source.escape)
            apply(changed, instruction, Expander(environment(changed), source.escape))
    except DockerfileError as error:
        raise BadRequest(str(error)) from error
    return changed
