"""Which fields of ``POST /containers/create`` each flag of ``docker run`` and ``docker create`` sets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

__all__ = ["OPTIONS", "flagged"]

_MOUNTS = tuple(f"HostConfig.Mounts.{name}" for name in ("Target", "Source", "Type"))
_ENDPOINT = "NetworkingConfig.EndpointsConfig"
_LONG = {
    "--add-host": ("HostConfig.ExtraHosts",),
    "--annotation": ("HostConfig.Annotations",),
    "--attach": ("AttachStdout",),
    "--blkio-weight": ("HostConfig.BlkioWeight",),
    "--cap-add": ("HostConfig.CapAdd",),
    "--cap-drop": ("HostConfig.CapDrop",),
    "--cidfile": ("HostConfig.ContainerIDFile",),
    "--cpu-period": ("HostConfig.CpuPeriod",),
    "--cpu-quota": ("HostConfig.CpuQuota",),
    "--cpu-shares": ("HostConfig.CpuShares",),
    "--cpus": ("HostConfig.NanoCpus",),
    "--cpuset-cpus": ("HostConfig.CpusetCpus",),
    "--dns": ("HostConfig.Dns",),
    "--dns-option": ("HostConfig.DnsOptions",),
    "--dns-search": ("HostConfig.DnsSearch",),
    "--domainname": ("Domainname",),
    "--entrypoint": ("Entrypoint",),
    "--env": ("Env",),
    "--expose": ("ExposedPorts",),
    "--group-add": ("HostConfig.GroupAdd",),
    "--health-cmd": ("Healthcheck.Test",),
    "--health-interval": ("Healthcheck.Interval",),
    "--health-retries": ("Healthcheck.Retries",),
    "--health-start-interval": ("Healthcheck.StartInterval",),
    "--health-start-period": ("Healthcheck.StartPeriod",),
    "--health-timeout": ("Healthcheck.Timeout",),
    "--hostname": ("Hostname",),
    "--init": ("HostConfig.Init",),
    "--interactive": ("OpenStdin", "AttachStdin", "StdinOnce"),
    "--ip": (f"{_ENDPOINT}.IPAMConfig.IPv4Address",),
    "--ip6": (f"{_ENDPOINT}.IPAMConfig.IPv6Address",),
    "--label": ("Labels",),
    "--link": ("HostConfig.Links",),
    "--log-driver": ("HostConfig.LogConfig.Type",),
    "--log-opt": ("HostConfig.LogConfig.Config",),
    "--mac-address": (f"{_ENDPOINT}.MacAddress",),
    "--memory": ("HostConfig.Memory",),
    "--memory-reservation": ("HostConfig.MemoryReservation",),
    "--memory-swap": ("HostConfig.MemorySwap",),
    "--mount": _MOUNTS,
    "--network": ("HostConfig.NetworkMode",),
    "--network-alias": (f"{_ENDPOINT}.Aliases",),
    "--oom-score-adj": ("HostConfig.OomScoreAdj",),
    "--pids-limit": ("HostConfig.PidsLimit",),
    "--privileged": ("HostConfig.Privileged",),
    "--publish": ("HostConfig.PortBindings.HostPort", "HostConfig.PortBindings.HostIp"),
    "--publish-all": ("HostConfig.PublishAllPorts",),
    "--read-only": ("HostConfig.ReadonlyRootfs",),
    "--restart": ("HostConfig.RestartPolicy.Name", "HostConfig.RestartPolicy.MaximumRetryCount"),
    "--rm": ("HostConfig.AutoRemove",),
    "--security-opt": ("HostConfig.SecurityOpt",),
    "--shm-size": ("HostConfig.ShmSize",),
    "--stop-signal": ("StopSignal",),
    "--stop-timeout": ("StopTimeout",),
    "--storage-opt": ("HostConfig.StorageOpt",),
    "--sysctl": ("HostConfig.Sysctls",),
    "--tmpfs": ("HostConfig.Tmpfs",),
    "--tty": ("Tty",),
    "--ulimit": tuple(f"HostConfig.Ulimits.{name}" for name in ("Name", "Soft", "Hard")),
    "--user": ("User",),
    "--volume": ("HostConfig.Binds",),
    "--volume-driver": ("HostConfig.VolumeDriver",),
    "--volumes-from": ("HostConfig.VolumesFrom",),
    "--workdir": ("WorkingDir",),
}
_SHORT = {
    "-a": "--attach",
    "-c": "--cpu-shares",
    "-e": "--env",
    "-h": "--hostname",
    "-i": "--interactive",
    "-l": "--label",
    "-m": "--memory",
    "-P": "--publish-all",
    "-p": "--publish",
    "-t": "--tty",
    "-u": "--user",
    "-v": "--volume",
    "-w": "--workdir",
    "--net": "--network",
}
_ALONE = frozenset("--detach --init --interactive --privileged --publish-all --read-only --rm --tty".split())
_ALONE_SHORT = frozenset("ditP")
_FIELDS = {**_LONG, **{short: _LONG[flag] for short, flag in _SHORT.items()}}
OPTIONS = {field: flag for flag, fields in _LONG.items() for field in fields}


def flagged(words: Sequence[str]) -> Iterator[str]:
    """The fields that the words after ``docker run`` set; the image and what follows are not looked at."""
    rest = iter(words)
    for word in rest:
        if not word.startswith("-") or word == "-":
            return
        flag, assigned, _ = word.partition("=")
        if not flag.startswith("--") and set(flag[1:]) <= _ALONE_SHORT:
            for letter in flag[1:]:
                yield from _FIELDS.get(f"-{letter}", ())
            continue
        yield from _FIELDS.get(flag, ())
        if not assigned and flag not in _ALONE:
            next(rest, None)
