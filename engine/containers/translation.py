"""From Docker's configuration to the port layer's ``ContainerSpec``. No I/O.

Everything that can be refused is refused here or earlier, before anything has
been made.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from engine.containers import capabilities, resources
from engine.containers.config import Config, HealthSpec
from engine.containers.hostconfig import HostConfig, refuse_fields
from engine.containers.logconfig import log_config
from engine.containers.ports import parse_exposed
from engine.containers.signals import parse_signal
from engine.containers.sizes import size_in_bytes
from engine.http import BadRequest, Unsupported
from portlayer import portlayer_pb2 as pb
from tether import tether_pb2

__all__ = [
    "MASKED_PATHS",
    "READONLY_PATHS",
    "base_environment",
    "check",
    "disk_size",
    "environment",
    "health_check",
    "process",
    "replaced",
    "shown_command",
    "to_spec",
]

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
DEFAULT_SHM = 64 << 20
MINIMUM_HEALTH_NS = 1_000_000

_HOSTNAME = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9_.-]{0,252}[a-zA-Z0-9])?")
_SYSCTL = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_./:-]*")


def check(config: Config, host: HostConfig) -> None:
    """Refuse what cannot be honoured and what Docker calls invalid."""
    refuse_fields(host)
    resources.validate(host)
    if config.Hostname and not _HOSTNAME.fullmatch(config.Hostname):
        raise BadRequest(f"invalid hostname format: {config.Hostname}")
    if config.WorkingDir and not config.WorkingDir.startswith("/"):
        raise BadRequest(
            f"the working directory '{config.WorkingDir}' is invalid, it needs to be an absolute path"
        )
    for item in config.Env:
        if not item or item.startswith("="):
            raise BadRequest(f"invalid environment variable: {item}")
    parse_exposed(config.ExposedPorts)
    if config.StopSignal:
        parse_signal(config.StopSignal)
    if config.StopTimeout is not None and not -(1 << 31) < config.StopTimeout < 1 << 31:
        raise BadRequest(f"invalid stop timeout {config.StopTimeout}")
    if host.AutoRemove and host.RestartPolicy.Name not in ("", "no"):
        raise BadRequest("can't create 'AutoRemove' container with restart policy")
    if host.ShmSize < 0:
        raise BadRequest("SHM size can not be less than 0")
    if not -1000 <= host.OomScoreAdj <= 1000:
        raise BadRequest(f"Invalid value {host.OomScoreAdj}, range for oom score adj is [-1000, 1000]")
    for name in host.Sysctls:
        if not _SYSCTL.fullmatch(name):
            raise BadRequest(f"invalid sysctl name {name!r}")
    if "" in host.Annotations:
        raise BadRequest("invalid Annotations: the empty string is not permitted as an annotation key")
    if len(host.ConsoleSize) not in (0, 2) or any(not 0 <= n < 1 << 16 for n in host.ConsoleSize):
        raise BadRequest("invalid ConsoleSize: height and width of the console are wanted")


def to_spec(
    *,
    container: str,
    name: str,
    created_at: int,
    layer: str,
    config: Config,
    host: HostConfig,
    endpoints: Sequence[pb.Endpoint],
    ports: Sequence[pb.PortBinding],
    mounts: Sequence[pb.VolumeMount],
    tmpfs: Sequence[tether_pb2.Tmpfs],
    hosts: Sequence[tether_pb2.HostEntry],
    resolver: tether_pb2.Resolver,
) -> pb.ContainerSpec:
    """The whole specification but for ``metadata``."""
    privileged = host.Privileged
    return pb.ContainerSpec(
        name=name,
        created_at=created_at,
        layer=layer,
        disk_size=disk_size(host.StorageOpt),
        process=process(config, host, hostname=config.Hostname or container[:12]),
        resources=resources.to_resources(host),
        hostname=config.Hostname or container[:12],
        domainname=config.Domainname,
        read_only_root=host.ReadonlyRootfs,
        mounts=mounts,
        tmpfs=tmpfs,
        shm_size=host.ShmSize or DEFAULT_SHM,
        sysctls=host.Sysctls,
        endpoints=endpoints,
        ports=ports,
        resolver=resolver,
        extra_hosts=hosts,
        masked_paths=_paths(host.MaskedPaths, MASKED_PATHS, privileged=privileged),
        readonly_paths=_paths(host.ReadonlyPaths, READONLY_PATHS, privileged=privileged),
        health=health_check(config),
        restart=resources.restart_policy(host.RestartPolicy),
        log=log_config(host.LogConfig),
        stop_signal=parse_signal(config.StopSignal) if config.StopSignal else 0,
        stop_timeout=10 if config.StopTimeout is None else config.StopTimeout,
        ephemeral=host.AutoRemove,
    )


def _paths(asked: list[str] | None, default: Sequence[str], *, privileged: bool) -> Sequence[str]:
    if asked is not None:
        return asked
    return () if privileged else default


def process(config: Config, host: HostConfig, *, hostname: str) -> tether_pb2.Process:
    no_new_privileges, seccomp_unconfined = _security(host.SecurityOpt)
    rows, columns = host.ConsoleSize or (0, 0)
    return tether_pb2.Process(
        argv=[*(config.Entrypoint or []), *(config.Cmd or [])],
        env=environment(config, hostname=hostname),
        cwd=config.WorkingDir or "/",
        user=config.User,
        additional_groups=host.GroupAdd,
        tty=config.Tty,
        open_stdin=config.OpenStdin,
        stdin_once=config.StdinOnce,
        rows=rows,
        columns=columns,
        capabilities=capabilities.final_set(host.CapAdd, host.CapDrop, privileged=host.Privileged),
        privileged=host.Privileged,
        no_new_privileges=no_new_privileges,
        rlimits=resources.rlimits(host),
        oom_score_adj=host.OomScoreAdj,
        init=bool(host.Init),
        seccomp_unconfined=seccomp_unconfined or host.Privileged,
    )


def base_environment(*, hostname: str, tty: bool) -> list[str]:
    return [PATH, f"HOSTNAME={hostname}", *(["TERM=xterm"] if tty else [])]


def environment(config: Config, *, hostname: str) -> list[str]:
    return replaced(base_environment(hostname=hostname, tty=config.Tty), config.Env)


def replaced(base: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """Docker's way to combine environments: the later wins, a bare name removes the variable."""
    result: dict[str, str] = {item.partition("=")[0]: item for item in base}
    for item in overrides:
        name, separator, _ = item.partition("=")
        if separator:
            result[name] = item
        else:
            result.pop(name, None)
    return list(result.values())


def _security(options: Sequence[str]) -> tuple[bool, bool]:
    """(no new privileges, no seccomp); other options are refused unless they change nothing here."""
    no_new_privileges = seccomp_unconfined = False
    for option in options:
        name, separator, value = option.partition("=")
        if not separator:
            name, separator, value = option.partition(":")
        if name == "no-new-privileges":
            if value not in ("", "true", "false"):
                raise BadRequest(f'invalid --security-opt 2: "{option}"')
            no_new_privileges = value != "false"
        elif name == "seccomp" and value in ("unconfined", "builtin"):
            seccomp_unconfined = value == "unconfined"
        elif (name, value) in (
            ("apparmor", "unconfined"),
            ("label", "disable"),
            ("writable-cgroups", "false"),
        ):
            continue  # there is neither AppArmor nor SELinux in a container VM
        elif name in ("seccomp", "apparmor", "label", "writable-cgroups", "systempaths"):
            raise Unsupported(f"--security-opt {name}={value[:64]} is not supported")
        else:
            raise BadRequest(f'invalid --security-opt 2: "{option}"')
    return no_new_privileges, seccomp_unconfined


def health_check(config: Config) -> tether_pb2.HealthCheck | None:
    health = config.Healthcheck
    if health is None:
        return None
    _check_health(health)
    if not health.Test or health.Test[0] in ("", "NONE"):
        return None
    kind, arguments = health.Test[0], health.Test[1:]
    if kind == "CMD":
        argv = arguments
    elif kind == "CMD-SHELL":
        argv = [*(config.Shell or ["/bin/sh", "-c"]), *arguments[:1]]
    else:
        raise BadRequest(f"Unknown healthcheck type '{kind}' (expected 'CMD')")
    if not arguments:
        raise BadRequest(f"Healthcheck {kind} without a command")
    return tether_pb2.HealthCheck(
        test=argv,
        interval=health.Interval or 30_000_000_000,
        timeout=health.Timeout or 30_000_000_000,
        start_period=health.StartPeriod,
        start_interval=health.StartInterval or 5_000_000_000,
        retries=min(health.Retries or 3, (1 << 32) - 1),
    )


def _check_health(health: HealthSpec) -> None:
    for name in ("Interval", "Timeout", "StartPeriod", "StartInterval"):
        value = getattr(health, name)
        if value and value < MINIMUM_HEALTH_NS:
            raise BadRequest(f"{name} in Healthcheck cannot be less than 1ms")
    if health.Retries < 0:
        raise BadRequest("Retries in Healthcheck cannot be negative")


def disk_size(options: Mapping[str, str]) -> int:
    for name in options:
        if name != "size":
            raise Unsupported(f"--storage-opt {name} is not supported: only size is")
    text = options.get("size", "")
    return size_in_bytes(text, f"invalid size: '{text}'") if text else 0


def shown_command(argv: Sequence[str]) -> str:
    """The COMMAND column: words joined, those with spaces quoted."""
    return " ".join([*argv[:1], *(f"'{word}'" if " " in word else word for word in argv[1:])])
