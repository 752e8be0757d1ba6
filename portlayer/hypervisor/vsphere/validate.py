"""Everything that stands in a VCH's way on vSphere: collected, each with what to do or what is there instead.

Reading is one part (:class:`Facts`, a handful of bulk questions), judging another
(``…_problems``, pure): nothing here stops at the first problem but a server that
cannot be reached.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pyVmomi import vim, vmodl

from portlayer.hypervisor.base import HypervisorError
from portlayer.hypervisor.vsphere.collector import retrieve
from portlayer.hypervisor.vsphere.faults import describe
from portlayer.hypervisor.vsphere.inventory import Entity, Inventory, list_entities, suggest
from portlayer.hypervisor.vsphere.places import DatastoreMap
from portlayer.hypervisor.vsphere.roles import ROLES, Where
from portlayer.hypervisor.vsphere.session import Session
from vch.config import VchConfig, Vsphere

__all__ = ["Facts", "HostFacts", "judge", "validate"]

OLDEST = (6, 5)
SKEW = 60.0  # seconds; certificates and log lines suffer beyond
_SERIAL_RULES = ("vic-engine", "vSPC", "remoteSerialPort")  # rule sets that let a host dial out to us
_SERIAL_FEATURE = "serialuri"
_SWITCH_FEATURE = "dvs"
_PC = vmodl.query.PropertyCollector


@dataclass(frozen=True, kw_only=True)
class HostFacts:
    name: str
    connected: bool
    rules: frozenset[str] = frozenset()  # rule sets that are on
    outgoing_blocked: bool = True
    datastores: frozenset[str] = frozenset()  # moIds
    networks: frozenset[str] = frozenset()  # moIds
    features: frozenset[str] | None = None  # of its licence; None: could not be read


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the server says, as far as it could be read."""

    vcenter: bool
    api: tuple[int, ...]
    skew: float
    user: str = ""
    problems: tuple[str, ...] = ()  # names that do not exist
    hosts: tuple[HostFacts, ...] = ()  # of the pool's cluster
    cluster: str = ""  # "" = a lone host
    drs: bool | None = None
    datastore: tuple[str, str] = ("", "")  # name, moId
    bridge: tuple[str, str, bool] = ("", "", False)  # name, moId, distributed
    missing: dict[Where, tuple[str, ...]] = field(default_factory=dict)  # privileges that the user lacks


async def validate(config: VchConfig) -> list[str]:
    """All problems; empty when there is none."""
    target = config.vsphere
    if target is None:
        return ["the configuration says nothing about vSphere"]
    found = list(_local_problems(config, target))
    session = Session(target)
    try:
        await session.open()
        facts = await session.read(lambda: _read(session, target), "validation")
    except HypervisorError as error:
        return [*found, str(error)]
    finally:
        await session.close()
    return found + judge(facts)


def judge(facts: Facts) -> list[str]:
    return [
        *facts.problems,
        *_server_problems(facts),
        *_cluster_problems(facts),
        *_network_problems(facts),
        *_host_problems(facts),
        *_privilege_problems(facts),
    ]


# -- judging


def _local_problems(config: VchConfig, target: Vsphere) -> Iterator[str]:
    if not target.mount.is_dir():
        yield f"--datastore-mount {target.mount}: no such directory"
        return
    places = DatastoreMap(target.datastore, target.mount)
    paths = {"the VCH's state directory": config.root, **config.volume_stores}
    for what, path in paths.items():
        try:
            places.remote(path)
        except HypervisorError as error:
            yield f"{what}: {error}"


def _server_problems(facts: Facts) -> Iterator[str]:
    if facts.api < OLDEST:
        have, oldest = ".".join(map(str, facts.api)), ".".join(map(str, OLDEST))
        yield f"the server speaks API version {have}; {oldest} or newer is needed"
    if abs(facts.skew) > SKEW:
        direction = "ahead of" if facts.skew > 0 else "behind"
        yield (
            f"the server's clock is {abs(facts.skew):.0f} s {direction} this host's:"
            " let both follow one time server (NTP)"
        )


def _cluster_problems(facts: Facts) -> Iterator[str]:
    if facts.cluster and facts.drs is False:
        yield f"DRS is off in cluster {facts.cluster!r}: turn it on, or name the resource pool of a lone host"
    if not facts.hosts and not facts.problems:
        yield "the resource pool's cluster has no host"


def _network_problems(facts: Facts) -> Iterator[str]:
    name, identity, distributed = facts.bridge
    if not identity:
        return
    if facts.vcenter and not distributed:
        yield f"bridge network {name!r} is no distributed port group: with a vCenter it must be one"
    for host in facts.hosts:
        if identity not in host.networks:
            yield f"host {host.name} is not on bridge network {name!r}: add it to the distributed switch"


def _host_problems(facts: Facts) -> Iterator[str]:
    name, identity = facts.datastore
    for host in facts.hosts:
        if not host.connected:
            yield f"host {host.name} is not connected or in maintenance mode"
            continue
        if identity and identity not in host.datastores:
            yield f"host {host.name} has no access to datastore {name!r}: mount it there"
        if host.outgoing_blocked and not host.rules.intersection(_SERIAL_RULES):
            yield (
                f"the firewall of host {host.name} keeps it from dialling our serial ports:"
                f" turn on rule set {' or '.join(_SERIAL_RULES)}"
            )
        if host.features is None:
            continue
        wanted = {_SERIAL_FEATURE} | ({_SWITCH_FEATURE} if facts.bridge[2] else set())
        for feature in sorted(wanted - host.features):
            yield f"the licence of host {host.name} lacks feature {feature!r}"


def _privilege_problems(facts: Facts) -> Iterator[str]:
    for where, missing in facts.missing.items():
        yield f"user {facts.user} lacks on the {where.value}: {', '.join(missing)}"


# -- reading: blocking, so for a thread


def _read(session: Session, target: Vsphere) -> Facts:
    content = session.content
    about = content.about
    now = vim.ServiceInstance("ServiceInstance", content.rootFolder._stub).CurrentTime()
    inventory = list_entities(session)
    problems: list[str] = []
    chosen = _choose(inventory, target, problems)
    hosts: tuple[HostFacts, ...] = ()
    cluster, drs = "", None
    pool = chosen.get(Where.POOL)
    if pool is not None:
        compute = _compute(inventory, pool)
        if compute is not None:
            hosts = _read_hosts(session, inventory, compute)
            if isinstance(compute.object, vim.ClusterComputeResource):
                cluster, drs = compute.name, _drs(content, compute.object)
    store, bridge = chosen.get(Where.DATASTORE), chosen.get(Where.NETWORK)
    return Facts(
        vcenter=about.apiType == "VirtualCenter",
        api=tuple(int(word) for word in str(about.apiVersion).split(".")[:2] if word.isdecimal()),
        skew=(now - datetime.now(UTC)).total_seconds(),
        user=content.sessionManager.currentSession.userName,
        problems=tuple(problems),
        hosts=hosts,
        cluster=cluster,
        drs=drs,
        datastore=("", "") if store is None else (store.name, store.id),
        bridge=("", "", False)
        if bridge is None
        else (bridge.name, bridge.id, isinstance(bridge.object, vim.dvs.DistributedVirtualPortgroup)),
        missing=_missing(content, content.sessionManager.currentSession.userName, chosen),
    )


def _choose(inventory: Inventory, target: Vsphere, problems: list[str]) -> dict[Where, Entity]:
    """What the names mean; a name that means nothing is a problem with suggestions."""
    chosen: dict[Where, Entity] = {}
    kinds: tuple[tuple[Where, str, str, Any], ...] = (
        (Where.DATACENTER, target.datacenter, "data centre", vim.Datacenter),
        (Where.FOLDER, target.folder or "vm", "VM folder", vim.Folder),
        (Where.POOL, target.pool, "resource pool", vim.ResourcePool),
        (Where.DATASTORE, target.datastore, "datastore", vim.Datastore),
        (Where.NETWORK, target.bridge, "port group for the bridge networks", vim.Network),
    )
    for where, name, what, kind in kinds:
        candidates = inventory.of(kind)
        center = chosen.get(Where.DATACENTER)
        if center is not None:
            candidates = [entity for entity in candidates if inventory.below(entity, center)]
        if where is Where.NETWORK and not name:
            problems.append(
                f"which port group for the bridge networks? {suggest([e.name for e in candidates])}"
            )
            continue
        try:
            chosen[where] = inventory.find(name, what, candidates)
        except HypervisorError as error:
            problems.append(str(error))
    return chosen


def _compute(inventory: Inventory, pool: Entity) -> Entity | None:
    """The cluster or lone host that the pool divides."""
    for entity in inventory.of(vim.ComputeResource):
        if inventory.below(pool, entity):
            return entity
    return None


def _read_hosts(session: Session, inventory: Inventory, compute: Entity) -> tuple[HostFacts, ...]:
    hosts = [entity for entity in inventory.of(vim.HostSystem) if inventory.below(entity, compute)]
    if not hosts:
        return ()
    paths = [
        "runtime.connectionState",
        "runtime.inMaintenanceMode",
        "configManager.firewallSystem",
        "datastore",
        "network",
    ]
    spec = _PC.FilterSpec(
        objectSet=[_PC.ObjectSpec(obj=host.object) for host in hosts],
        propSet=[_PC.PropertySpec(type=vim.HostSystem, pathSet=paths)],
    )
    found = retrieve(session.content, spec)
    firewalls = _firewalls(session, [values for _, values in found.values()])
    facts = []
    for host in hosts:
        values = found[host.id][1]
        firewall = firewalls.get(getattr(values.get("configManager.firewallSystem"), "_moId", ""))
        facts.append(
            HostFacts(
                name=host.name,
                connected=values.get("runtime.connectionState") == "connected"
                and not values.get("runtime.inMaintenanceMode", False),
                rules=frozenset(rule.key for rule in (firewall.ruleset if firewall else []) if rule.enabled),
                outgoing_blocked=bool(firewall and firewall.defaultPolicy.outgoingBlocked is not False),
                datastores=frozenset(store._moId for store in values.get("datastore", [])),
                networks=frozenset(network._moId for network in values.get("network", [])),
                features=_features(session.content, host.id),
            )
        )
    return tuple(facts)


def _firewalls(session: Session, hosts: list[dict[str, Any]]) -> dict[str, Any]:
    path = "configManager.firewallSystem"
    systems = [values[path] for values in hosts if path in values]
    if not systems:
        return {}
    spec = _PC.FilterSpec(
        objectSet=[_PC.ObjectSpec(obj=system) for system in systems],
        propSet=[_PC.PropertySpec(type=vim.host.FirewallSystem, pathSet=["firewallInfo"])],
    )
    return {key: values.get("firewallInfo") for key, (_, values) in retrieve(session.content, spec).items()}


def _features(content: Any, host: str) -> frozenset[str] | None:
    """Names of the licence's features ("serialuri:2" is one); None when we may not look."""
    try:
        manager = content.licenseManager.licenseAssignmentManager
        assigned = manager.QueryAssignedLicenses(host) or []
    except (vmodl.MethodFault, AttributeError):
        return None
    properties = [p for each in assigned for p in each.assignedLicense.properties if p.key == "feature"]
    names = {str(p.value.key).partition(":")[0] for p in properties}
    return frozenset(names) if names else None


def _drs(content: Any, cluster: Any) -> bool | None:
    spec = _PC.FilterSpec(
        objectSet=[_PC.ObjectSpec(obj=cluster)],
        propSet=[_PC.PropertySpec(type=vim.ClusterComputeResource, pathSet=["configurationEx"])],
    )
    values = retrieve(content, spec)[cluster._moId][1]
    config = values.get("configurationEx")
    return None if config is None else bool(config.drsConfig.enabled)


def _missing(content: Any, user: str, chosen: dict[Where, Entity]) -> dict[Where, tuple[str, ...]]:
    entities = {where: chosen[where].object for where in ROLES if where in chosen}
    if not entities:
        return {}
    try:
        answers = (
            content.authorizationManager.FetchUserPrivilegeOnEntities(list(entities.values()), user) or []
        )
    except vmodl.MethodFault as error:
        return {Where.ROOT: (f"the right to ask for its privileges ({describe(error)})",)}
    has = {answer.entity._moId: set(answer.privileges) for answer in answers}
    lacking = {
        where: tuple(sorted(ROLES[where] - has.get(entity._moId, set())))
        for where, entity in entities.items()
    }
    return {where: privileges for where, privileges in lacking.items() if privileges}
