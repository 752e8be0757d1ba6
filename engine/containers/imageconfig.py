"""What a container takes from its image where its creator was silent. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.containers.config import Config, HealthSpec
from engine.http import BadRequest, InternalError

__all__ = ["merge", "overlay"]


def merge(user: Config, image: Mapping[str, Any]) -> Config:
    """The container's configuration. Raises BadRequest when there is nothing to run."""
    merged = overlay(user, image)
    if merged.Entrypoint == [""]:  # --entrypoint "" resets the image's
        merged.Entrypoint = None
    merged.OnBuild = None
    if not (merged.Entrypoint or []) + (merged.Cmd or []):
        raise BadRequest("no command specified")
    return merged


def overlay(user: Config, image: Mapping[str, Any]) -> Config:
    """What ``user`` says, and what ``image`` says where ``user`` is silent.

    An image's configuration is foreign data: a field of a wrong type counts as
    a broken image, not as our bug.
    """
    merged = user.model_copy(deep=True)
    try:
        base = Config.model_validate({k: v for k, v in image.items() if k in Config.model_fields})
    except ValueError as error:
        raise InternalError(f"the image's configuration is malformed: {error}") from error
    merged.User = merged.User or base.User
    merged.ExposedPorts = {**base.ExposedPorts, **merged.ExposedPorts}
    merged.Env = _merge_env(merged.Env, base.Env)
    merged.Labels = {**base.Labels, **merged.Labels}
    merged.Volumes = {**base.Volumes, **merged.Volumes}
    merged.WorkingDir = merged.WorkingDir or base.WorkingDir
    merged.StopSignal = merged.StopSignal or base.StopSignal
    if merged.StopTimeout is None:
        merged.StopTimeout = base.StopTimeout
    if merged.Shell is None:
        merged.Shell = base.Shell
    if not merged.Entrypoint:
        if not merged.Cmd:
            merged.Cmd = base.Cmd
        if merged.Entrypoint is None:
            merged.Entrypoint = base.Entrypoint
    merged.Healthcheck = _merge_health(merged.Healthcheck, base.Healthcheck)
    return merged


def _merge_env(user: list[str], base: list[str]) -> list[str]:
    named = {item.partition("=")[0] for item in user}
    return user + [item for item in base if item.partition("=")[0] not in named]


def _merge_health(user: HealthSpec | None, base: HealthSpec | None) -> HealthSpec | None:
    if user is None or base is None:
        return user or base
    return HealthSpec(
        Test=user.Test or base.Test,
        Interval=user.Interval or base.Interval,
        Timeout=user.Timeout or base.Timeout,
        StartPeriod=user.StartPeriod or base.StartPeriod,
        StartInterval=user.StartInterval or base.StartInterval,
        Retries=user.Retries or base.Retries,
    )
