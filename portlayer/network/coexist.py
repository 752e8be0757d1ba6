"""Living beside another firewall of the host.

A packet needs the accept of *every* base chain at a hook. Docker and ufw set
iptables' FORWARD (ufw: INPUT too) to policy DROP, so what our table accepts
would still be lost; with br_netfilter even frames between two taps of one
bridge. So where such a chain drops by default, rules for our own bridges, and
nothing else, go in front: into DOCKER-USER when it exists (the chain Docker
leaves to the administrator), else into FORWARD; the DNS port into INPUT. They
do not weaken anything: our own table has decided about those packets already,
by name of the bridge, and an accept here does not undo a drop there.

Each rule carries the comment ``mooring:<vch>``; it is found and removed by it.
Pure but for :func:`synchronize` and :func:`foreign_drops`, which run tools.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import shlex
import shutil
from collections.abc import Iterable, Sequence

from portlayer.network.nft import table_name
from portlayer.network.ruleset import Bridge

__all__ = ["foreign_drops", "plan_changes", "synchronize"]

_log = logging.getLogger(__name__)

_FAMILIES = {4: "iptables", 6: "ip6tables"}
_WAIT = ("-w", "10")  # others hold the xtables lock for moments


def _comment(vch: str) -> str:
    return f"mooring:{vch}"


def plan_changes(listing: str, bridges: Iterable[Bridge], vch: str, *, version: int) -> list[list[str]]:
    """The iptables arguments that lead from ``listing`` (``iptables -S``) to the wanted rules.

    Wanted are rules only where a policy is DROP. Rules whose bridge is gone are deleted; an existing right
    rule is left where it is. Insertions come first: there is no moment without.
    """
    lines = listing.splitlines()
    dropping = {words[1] for words in map(str.split, lines) if words[:1] == ["-P"] and words[2] != "ACCEPT"}
    chains = {words[1] for words in map(str.split, lines) if words[:1] in (["-P"], ["-N"])}
    wanted: list[list[str]] = []
    for bridge in bridges:
        gateway = bridge.gateway4 if version == 4 else bridge.gateway6
        if not gateway:
            continue
        mark = ["-m", "comment", "--comment", _comment(vch), "-j", "ACCEPT"]
        if "FORWARD" in dropping:
            chain = "DOCKER-USER" if "DOCKER-USER" in chains else "FORWARD"
            wanted.append([chain, "-i", bridge.interface, *mark])
            wanted.append([chain, "-o", bridge.interface, *mark])
        if "INPUT" in dropping:
            for protocol in ("udp", "tcp"):
                match = ["-p", protocol, "-m", protocol, "--dport", "53"]
                wanted.append(["INPUT", "-i", bridge.interface, *match, *mark])
    present = [shlex.split(line)[1:] for line in lines if _is_ours(line, vch)]
    insert = [["-I", rule[0], "1", *rule[1:]] for rule in wanted if rule not in present]
    delete = [["-D", *rule] for rule in present if rule not in wanted]
    return insert + delete


def _is_ours(line: str, vch: str) -> bool:
    if not line.startswith("-A ") or _comment(vch) not in line:
        return False
    words = shlex.split(line)
    return any(a == "--comment" and b == _comment(vch) for a, b in itertools.pairwise(words))


async def _run(*command: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace").strip()


async def synchronize(bridges: Sequence[Bridge], vch: str) -> None:
    """Make the host's iptables let our bridges through. A host without iptables has nothing to make way in.

    A failure is logged, not raised: without the rule some traffic may be dropped, but without the network no
    container runs at all.
    """
    for version, tool in _FAMILIES.items():
        if shutil.which(tool) is None:
            continue
        code, listing, error = await _run(tool, *_WAIT, "-S")
        if code != 0:
            _log.warning("%s -S failed, its rules may drop containers' traffic: %s", tool, error)
            continue
        for change in plan_changes(listing, bridges, vch, version=version):
            code, _, error = await _run(tool, *_WAIT, *change)
            if code != 0:
                _log.warning("%s %s failed: %s", tool, " ".join(change), error)


async def foreign_drops(vch: str) -> list[str]:
    """Base chains of native nftables that drop forwarded or incoming packets by default, for a warning:
    where to let our bridges through there only the administrator knows."""
    code, listing, error = await _run("nft", "-j", "list", "chains")
    if code != 0:
        _log.warning("nft -j list chains failed: %s", error)
        return []
    found = []
    for item in json.loads(listing).get("nftables", []):
        chain = item.get("chain")
        if chain is None or chain.get("policy") != "drop" or chain.get("hook") not in ("forward", "input"):
            continue
        iptables = chain["family"] in ("ip", "ip6") and chain["table"] == "filter"
        if chain["table"] != table_name(vch) and not iptables:
            found.append(f"{chain['family']} {chain['table']} {chain['name']}")
    return found
