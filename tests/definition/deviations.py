"""Where the engine's answers and Docker's definition differ on purpose, each with its reason.

Most of it is dockerd's own: the definition is written by hand, and the clients were written against dockerd.
"""

from __future__ import annotations

import re

__all__ = ["EXPERIMENTAL", "EXTRA", "FREE", "INERT", "NULL", "STATUSES"]

_OLD_EVENT = "dockerd repeats what API 1.21 called it; docker-compose reads it"
_CGROUP2 = "dockerd's answer where cgroup v2 has no such setting"

# dockerd serves them when it is experimental; the definition leaves them out
EXPERIMENTAL = re.compile(r"/containers/[^/]+/checkpoints(/[^/]+)?")

# (operation, status) that the definition forgot
STATUSES = {
    ("POST /containers/{id}/attach", 200): "without `Upgrade: tcp` the answer is 200 and the stream follows",
    ("POST /exec/{id}/start", 101): "dockerd answers an upgrade here as it does for attach",
}

# (operation or "*", field): sent although the definition does not have it
EXTRA = {
    ("GET /events", "status"): _OLD_EVENT,
    ("GET /events", "id"): _OLD_EVENT,
    ("GET /events", "from"): _OLD_EVENT,
    ("GET /system/df", "BuilderSize"): "dockerd's until API 1.42; the definition never had it",
    (
        "GET /containers/{id}/json",
        "HostConfig.CgroupnsMode",
    ): "API 1.41's; dockerd sends it to older clients too",
}

# (operation, field): null although the definition says otherwise
NULL = {
    ("GET /containers/{id}/json", "HostConfig.OomKillDisable"): _CGROUP2,
    ("GET /containers/{id}/json", "HostConfig.MemorySwappiness"): _CGROUP2,
    ("GET /containers/{id}/json", "HostConfig.PidsLimit"): "dockerd's answer without a limit",
    ("GET /exec/{id}/json", "ExitCode"): "dockerd's answer while the process runs",
}

# (operation, beginning of the field): whatever it is
FREE = {
    (
        "GET /volumes/{name}",
        "Status.",
    ): "the volume driver's own words; the definition asks for objects and shows text",
}

# (operation, query parameter): nothing needs to read it
INERT = {
    ("GET /networks/{id}", "verbose"): "adds what swarm's services hold: there are none",
    ("POST /auth", "email"): "registries have had no use for it since their API 2",
    ("POST /containers/{id}/start", "detachKeys"): "dockerd does not read it either: those of attach count",
    ("POST /containers/create", "OnBuild"): "an image's: only a build reads it",
    ("POST /containers/create", "ArgsEscaped"): "Windows' own",
    ("GET /images/json", "all"): "adds intermediate images: there are none",
    ("GET /images/json", "digests"): "RepoDigests are always shown, as dockerd does",
    ("DELETE /images/{name}", "noprune"): "keeps untagged parents: there are none",
}


_ANSWERED = frozenset(
    "NetworkID EndpointID Gateway IPAddress IPPrefixLen IPv6Gateway GlobalIPv6Address GlobalIPv6PrefixLen DNSNames".split()
)


def inert(key: str) -> str:
    """Why there is nothing to do for ``"GET /images/json ?all"``; empty when there is."""
    name, _, option = key.rpartition(" ")
    parent, _, last = option.rpartition(".")
    if parent.endswith(("EndpointsConfig", "EndpointConfig")) and last in _ANSWERED:
        return "a field of answers: clients send back what they got"
    return INERT.get((name, option.removeprefix("?")), "")
