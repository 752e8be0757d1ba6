"""Limits: Docker's resource fields, checked and reduced to what the guest enforces. No I/O."""

from __future__ import annotations

import re

from engine.containers.hostconfig import HostConfig, RestartSpec
from engine.http import BadRequest, Conflict
from portlayer import portlayer_pb2 as pb
from tether import tether_pb2

__all__ = ["merge_update", "overlay", "restart_policy", "rlimits", "to_resources", "validate"]

MINIMUM_MEMORY = 6 << 20
MAXIMUM_MEMORY = 1 << 60
_NO_LIMIT = (1 << 64) - 1
_RLIMITS = frozenset(
    "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()
)
_CPUSET = re.compile(r"[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*")


def validate(host: HostConfig) -> None:
    """dockerd's checks, with its words."""
    if host.Memory and host.Memory < MINIMUM_MEMORY:
        raise BadRequest("Minimum memory limit allowed is 6MB")
    if host.Memory > MAXIMUM_MEMORY:
        raise BadRequest(f"invalid memory limit {host.Memory}: more than any machine has")
    if host.MemorySwap > 0 and not host.Memory:
        raise BadRequest("You should always set the Memory limit when using Memoryswap limit, see usage")
    if host.Memory and host.MemorySwap > 0 and host.MemorySwap < host.Memory:
        raise BadRequest("Minimum memoryswap limit should be larger than memory limit, see usage")
    if host.MemorySwap < -1:
        raise BadRequest(f"invalid memory-swap value: {host.MemorySwap}")
    if host.MemoryReservation and host.MemoryReservation < MINIMUM_MEMORY:
        raise BadRequest("Minimum memory reservation allowed is 6MB")
    if host.Memory and host.MemoryReservation > host.Memory:
        raise BadRequest("Minimum memory limit can not be less than memory reservation limit, see usage")
    if host.NanoCpus < 0:
        raise BadRequest("invalid value for NanoCpus: must not be negative")
    if host.NanoCpus and host.CpuPeriod:
        raise BadRequest("Conflicting options: Nano CPUs and CPU Period cannot both be set")
    if host.NanoCpus and host.CpuQuota:
        raise BadRequest("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
    if host.CpuPeriod and not 1000 <= host.CpuPeriod <= 1_000_000:
        raise BadRequest(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    if host.CpuQuota > 0 and host.CpuQuota < 1000:
        raise BadRequest("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if host.CpuShares < 0:
        raise BadRequest(f"invalid CPU shares ({host.CpuShares}): value must be a positive integer")
    if host.BlkioWeight and not 10 <= host.BlkioWeight <= 1000:
        raise BadRequest("Range of blkio weight is from 10 to 1000")
    if host.CpusetCpus and not _CPUSET.fullmatch(host.CpusetCpus):
        raise BadRequest(f"Invalid value {host.CpusetCpus} for cpuset cpus")


def to_resources(host: HostConfig) -> tether_pb2.Resources:
    swap = host.MemorySwap
    if host.Memory and swap == 0:
        swap = host.Memory * 2  # Docker's default
    return tether_pb2.Resources(
        memory=host.Memory,
        memory_swap=swap,
        memory_reservation=host.MemoryReservation,
        nano_cpus=host.NanoCpus,
        cpu_shares=host.CpuShares,
        cpu_quota=host.CpuQuota,
        cpu_period=host.CpuPeriod,
        cpuset_cpus=host.CpusetCpus,
        pids_limit=-1 if host.PidsLimit is not None and host.PidsLimit < 0 else host.PidsLimit or 0,
        oom_kill_disable=bool(host.OomKillDisable),
        blkio_weight=host.BlkioWeight,
    )


_UPDATABLE = (
    "CpuShares",
    "Memory",
    "NanoCpus",
    "BlkioWeight",
    "CpuPeriod",
    "CpuQuota",
    "CpusetCpus",
    "MemoryReservation",
    "MemorySwap",
    "PidsLimit",
)


def merge_update(current: HostConfig, update: HostConfig) -> HostConfig:
    """The host configuration after ``docker update``: what the update leaves out stays."""
    _check_cpu_conflict(current, update)
    merged = current.model_copy(deep=True)
    default = HostConfig()
    for name in _UPDATABLE:
        value = getattr(update, name)
        if value != getattr(default, name):
            setattr(merged, name, value)
    if update.RestartPolicy.Name:
        merged.RestartPolicy = update.RestartPolicy
    if merged.Memory and merged.MemorySwap > 0 and merged.MemorySwap < merged.Memory:
        raise Conflict(
            "Memory limit should be smaller than already set memoryswap limit, "
            "update the memoryswap at the same time"
        )
    return merged


def _check_cpu_conflict(current: HostConfig, update: HostConfig) -> None:
    for name, word in (("CpuPeriod", "CPU Period"), ("CpuQuota", "CPU Quota")):
        if update.NanoCpus > 0 and getattr(current, name) > 0:
            raise Conflict(f"Conflicting options: Nano CPUs cannot be updated as {word} has already been set")
        if getattr(update, name) > 0 and current.NanoCpus > 0:
            raise Conflict(f"Conflicting options: {word} cannot be updated as NanoCPUs has already been set")


def overlay(host: HostConfig, spec: pb.ContainerSpec) -> HostConfig:
    """``host`` with the limits and the restart policy that the container has now."""
    current = spec.resources
    host.Memory = current.memory
    host.MemorySwap = current.memory_swap
    host.MemoryReservation = current.memory_reservation
    host.NanoCpus = current.nano_cpus
    host.CpuShares = current.cpu_shares
    host.CpuQuota = current.cpu_quota
    host.CpuPeriod = current.cpu_period
    host.CpusetCpus = current.cpuset_cpus
    host.BlkioWeight = current.blkio_weight
    host.PidsLimit = current.pids_limit or None
    host.RestartPolicy = RestartSpec(
        Name=_CONDITION_NAMES[spec.restart.condition], MaximumRetryCount=spec.restart.maximum_retries
    )
    return host


def rlimits(host: HostConfig) -> list[tether_pb2.Rlimit]:
    result: list[tether_pb2.Rlimit] = []
    for limit in host.Ulimits:
        name = limit.Name.lower()
        if name not in _RLIMITS:
            raise BadRequest(f"invalid ulimit type: {limit.Name}")
        soft = _NO_LIMIT if limit.Soft < 0 else limit.Soft
        hard = _NO_LIMIT if limit.Hard < 0 else limit.Hard
        if soft > hard:
            raise BadRequest(
                f"ulimit soft limit must be less than or equal to hard limit: {limit.Soft} > {limit.Hard}"
            )
        result.append(tether_pb2.Rlimit(type=f"RLIMIT_{name.upper()}", soft=soft, hard=hard))
    return result


_CONDITIONS = {
    "": pb.RestartPolicy.NO,
    "no": pb.RestartPolicy.NO,
    "always": pb.RestartPolicy.ALWAYS,
    "unless-stopped": pb.RestartPolicy.UNLESS_STOPPED,
    "on-failure": pb.RestartPolicy.ON_FAILURE,
}


_CONDITION_NAMES = {condition: name for name, condition in _CONDITIONS.items() if name}


def restart_policy(policy: RestartSpec) -> pb.RestartPolicy:
    if policy.Name not in _CONDITIONS:
        raise BadRequest(
            f"invalid restart policy: unknown policy '{policy.Name}'; "
            "use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )
    condition = _CONDITIONS[policy.Name]
    if policy.MaximumRetryCount < 0:
        raise BadRequest("invalid restart policy: maximum retry count cannot be negative")
    if policy.MaximumRetryCount and condition != pb.RestartPolicy.ON_FAILURE:
        raise BadRequest("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    return pb.RestartPolicy(condition=condition, maximum_retries=min(policy.MaximumRetryCount, (1 << 32) - 1))
