"""Why Mooring's transcript differs from dockerd's where it does. A difference without a reason fails a test.

A pattern matches the start of a command. Debian's dockerd is 20.10; Mooring speaks as the present one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.sidebyside.transcript import Entry

__all__ = ["reason"]

_NEWER = "dockerd's wording since 20.10, which Mooring has"
_OWN_VM = "every container is its own virtual machine: refused by name"


@dataclass(frozen=True)
class _Rule:
    commands: str  # regular expressions, one a line
    why: str


_RULES = [
    _Rule(
        r"""
        info --format '\{\{.LoggingDriver\}\}
        """,
        "the names of our runtime and disk format; a VM's limits are not the host's cgroups",
    ),
    _Rule(
        r"""
        network ls --format
        network ls --filter (scope=local|type=builtin)
        network connect host box
        """,
        "there is no host network: a container VM has its own network stack",
    ),
    _Rule(
        r"""
        (inspect --type image|image inspect|save) nothing
        kill (nothing|checked|box|--signal)
        (images|volume ls|network ls|image prune|container prune|volume prune|ps|ps --all) .*--filter (dangling=maybe|colour=red|exited=x)
        (images|volume ls|network ls|ps) --filter (dangling=maybe|colour=red)
        (pause|exec|top) (checked|box)( true)?$
        ps --filter (status|health)=nonsense
        ps --filter since=nothing
        create --restart (sometimes|always:3)
        update --restart nonsense
        create --stop-signal NONSENSE
        network rm fixed
        rm box
        rmi Bad:Name:Tag
        network create --subnet (bad|10.92.0.1/24|10.91.0.0/25|10.92.0.0/24)
        network create --ip-range
        network rm other
        create --network nothing busybox
        create --network bridge --ip 1.2.3.4
        create --tmpfs /x:bad
        create --log-opt max-size=x
        create --ipc nonsense
        create --expose 80/bad
        create --hostname -bad
        network connect --ip
        exec box /etc
        """,
        _NEWER + ", and what it refuses at create rather than at start",
    ),
    _Rule(
        r"""
        (load|import|cp -) .*<< not a tar
        """,
        "the archive is read by our own code, which says what is wrong with it",
    ),
    _Rule(
        r"""
        create --cpus -1
        create --cpuset-cpus a
        create --blkio-weight 5
        """,
        "limits are the VM's: checked as such, not against the host's processors and cgroups",
    ),
    _Rule(
        r"""
        create --log-driver nothing
        create --(device|runtime|isolation|pid|userns|uts|cgroupns)
        create --storage-opt nonsense
        swarm init
        top box -o nonsense
        """,
        _OWN_VM + ", or not supported: refused by name",
    ),
    _Rule(
        r"""
        ps --all --format
        container prune --force$
        volume prune --force$
        volume ls
        """,
        "dockerd made the containers (and their volumes) that Mooring refused above",
    ),
    _Rule(
        r"""
        volume inspect data
        """,
        "the volume's disk, and its size and use in Status",
    ),
    _Rule(
        r"""
        exec box nothing
        exec --workdir /nothing
        exec --user nothing
        run --rm (busybox (nothing|/etc)|--user nothing)
        """,
        "the guest's own words: there is no shim and no runc; a missing command gives 127 from exec as from run",
    ),
    _Rule(
        r"""
        exec --privileged box
        """,
        "dockerd lacks a capability on the machine that recorded this; in a VM it works",
    ),
    _Rule(
        r"""
        top box
        """,
        "process numbers and times are the guest's",
    ),
    _Rule(
        r"""
        network (connect|disconnect) nothing other
        """,
        "of two missing things the network is named first",
    ),
    _Rule(
        r"""
        network create --scope swarm
        """,
        "refused before the name is looked at: this is no swarm",
    ),
    _Rule(
        r"""
        version --format '\{\{.Server.Experimental
        checkpoint ls nothing
        """,
        "checkpoints are there, which the docker CLI offers for an experimental daemon only",
    ),
    _Rule(
        r"""
        search --limit
        """,
        "the word begins small since 20.10",
    ),
    _Rule(
        r"""
        login localhost:1
        """,
        "the address as it was given, not as it was resolved",
    ),
]
_COMPILED = [
    (re.compile(line.strip()), rule.why)
    for rule in _RULES
    for line in rule.commands.splitlines()
    if line.strip()
]


def reason(theirs: Entry, ours: Entry) -> str:
    """Why the two differ; empty when nobody has said."""
    return next((why for pattern, why in _COMPILED if pattern.match(ours.command)), "")
