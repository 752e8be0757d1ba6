"""Commits to a container that exists, and Update: all or nothing, with optimistic concurrency.

Stopped containers may change all but what their disk stands on; of running ones
the name, the personality's metadata, the restart policy and the networks, by
NIC hot-plug and a new network set for the guest. The order of a live change:
host side, VM, guest, record; a failure takes the earlier steps back.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

from portlayer.errors import PortLayerError
from portlayer.execution.boot import host_entries
from portlayer.execution.claims import announce_endpoint, has_static_address, unassign
from portlayer.execution.container import Container
from portlayer.execution.create import allocate_endpoints
from portlayer.execution.guest import ask
from portlayer.execution.house import House
from portlayer.execution.record import Record
from portlayer.execution.states import Status, require
from portlayer.execution.validate import check_change, check_handle, check_spec
from portlayer.hypervisor.base import Nic
from portlayer.portlayer_pb2 import (
    ContainerEvent,
    ContainerSpec,
    Endpoint,
    Handle,
    NetworkChange,
    Reason,
    UpdateContainerRequest,
)
from tether.tether_pb2 import Empty, NetworkEvent, NetworkSetRequest, Resources, UpdateRequest

__all__ = ["Changer"]

log = logging.getLogger(__name__)
_CHANGEABLE = frozenset(Status) - {Status.REMOVING, Status.DEAD}


class Changer:
    def __init__(self, house: House) -> None:
        self._house = house

    async def change(self, container: Container, handle: Handle) -> None:
        """
        Raises:
            PortLayerError: VERSION_CONFLICT when somebody committed in between; nothing changed.
        """
        check_handle(handle)
        check_spec(handle.spec, self._house.rooms.capabilities)
        async with container.lock:
            require(container.name, "change", container.status, _CHANGEABLE)
            self._check_version(container, handle.change_version)
            before = container.record
            spec = ContainerSpec()
            spec.CopyFrom(handle.spec)
            gone, new = _settle_endpoints(before.spec, spec)
            live = container.live
            check_change(container.name, before.spec, spec, running=live)
            if live and (gone or new):
                require(container.name, "change the networks of", container.status, (Status.RUNNING,))
            moved = {endpoint.network for endpoint in before.spec.endpoints} & new
            if live and moved:
                raise PortLayerError(
                    Reason.NOT_SUPPORTED,
                    f"container {container.name} is running: disconnect it from its network before "
                    "connecting it with another address",
                )
            async with AsyncExitStack() as undo:
                self._claim_name(container, spec, undo)
                self._house.require_volumes(container, spec)
                record = replace(before, spec=spec).with_state(revision=before.state.revision + 1)
                if live and (gone or new):
                    await self._replug(container, record, gone, new, undo)
                else:
                    await self._rewire(container, record, new, undo)
                undo.pop_all()
            if spec.name != before.spec.name:
                self._house.registry.release_name(container.id, before.spec.name)
            await self._let_go(container, gone, live=live)
            self._house.rooms.network.update_names(container.attachment(running=live))
        for network in gone:
            announce_endpoint(self._house, container, network, NetworkChange.DISCONNECTED)
        for network in new:
            announce_endpoint(self._house, container, network, NetworkChange.CONNECTED)
        self._house.announce(container, ContainerEvent.CHANGED)

    def _check_version(self, container: Container, version: int) -> None:
        current = container.record.state.revision
        if version != current:
            raise PortLayerError(
                Reason.VERSION_CONFLICT,
                f"container {container.name} has changed meanwhile: it has version {current}, not {version}",
            )

    def _claim_name(self, container: Container, spec: ContainerSpec, undo: AsyncExitStack) -> None:
        if spec.name == container.name:
            return
        self._house.registry.claim_name(container.id, spec.name)
        undo.callback(self._house.registry.release_name, container.id, spec.name)

    # -- stopped
    async def _rewire(
        self, container: Container, record: Record, new: set[str], undo: AsyncExitStack
    ) -> None:
        for endpoint in container.spec.endpoints:
            if endpoint.network in new and not has_static_address(endpoint):
                self._house.rooms.network.release(container.id, endpoint.network)
                undo.callback(self._take_again, container, endpoint)
        for network in new:
            undo.callback(self._house.rooms.network.release, container.id, network)
        allocate_endpoints(self._house, container.id, record.spec, new)
        await self._house.save(container, record)

    def _take_again(self, container: Container, endpoint: Endpoint) -> None:
        wanted = unassign(endpoint)
        wanted.ipv4 = endpoint.assigned_ipv4.partition("/")[0]
        wanted.ipv6 = endpoint.assigned_ipv6.partition("/")[0]
        wanted.mac = endpoint.assigned_mac
        self._house.rooms.network.allocate(container.id, container.name, wanted)

    # -- running
    async def _replug(
        self, container: Container, record: Record, gone: set[str], new: set[str], undo: AsyncExitStack
    ) -> None:
        house, before = self._house, container.record
        network, hypervisor = house.rooms.network, house.rooms.hypervisor
        if not house.rooms.capabilities.hot_add_nic:
            raise PortLayerError(
                Reason.NOT_SUPPORTED,
                f"container {container.name} is running and its VM cannot change its networks",
            )
        for endpoint in record.spec.endpoints:
            if endpoint.network in new:
                undo.callback(network.release, container.id, endpoint.network)
                endpoint.CopyFrom(network.allocate(container.id, record.spec.name, unassign(endpoint)))
        container.record = record
        undo.callback(setattr, container, "record", before)
        attachment = container.attachment(running=True)
        for name in new:
            undo.push_async_callback(self._undo, container, network.unplug, container.id, name)
        plugged = await network.plug(attachment)
        assert container.vm is not None
        have = {nic.id: nic for nic in container.vm.config.nics}
        want = {n.tap: Nic(id=n.tap, mac=n.mac, network=n.bridge, mtu=n.mtu) for n in plugged}
        for nic in want.values():
            if nic.id not in have:
                undo.push_async_callback(self._undo, container, hypervisor.remove_nic, container.id, nic.id)
                await hypervisor.add_nic(container.id, nic)
        undo.push_async_callback(self._undo, container, self._network_set, container, before)
        await self._network_set(container, record)
        for nic in have.values():
            if nic.id not in want:
                undo.push_async_callback(self._undo, container, hypervisor.add_nic, container.id, nic)
                await hypervisor.remove_nic(container.id, nic.id)
        await house.refresh(container)  # hot-plug may count as a change of the VM
        await house.save(container, record, nics=list(want.values()))

    async def settle_nics(self, container: Container) -> None:
        """After a restart: a change of networks that was cut short is taken back: the record decides.

        Raises:
            PortLayerError, HypervisorError: the next restart tries again.
        """
        house, hypervisor = self._house, self._house.rooms.hypervisor
        async with container.lock:
            if container.status is not Status.RUNNING or container.vm is None:
                return  # a start makes the NICs anew
            plugged = await house.rooms.network.plug(container.attachment(running=True))
            known = {nic.id for nic in container.vm.config.nics}
            have = known if container.vm.plugged_nics is None else container.vm.plugged_nics
            want = {n.tap: Nic(id=n.tap, mac=n.mac, network=n.bridge, mtu=n.mtu) for n in plugged}
            for name in (known | have) - want.keys():
                await hypervisor.remove_nic(container.id, name)
            for name in want.keys() - have:
                await hypervisor.add_nic(container.id, want[name])
            await self._network_set(container, container.record)
            await house.refresh(container)
            await house.save(container, container.record, nics=list(want.values()))
        log.info("container %s: a change of its networks that was cut short is taken back", container.id[:12])

    async def _network_set(self, container: Container, record: Record) -> None:
        container_now, container.record = container.record, record
        interfaces, resolver = self._house.rooms.network.interfaces(container.attachment(running=True))
        container.record = container_now
        request = NetworkSetRequest(interfaces=interfaces, resolver=resolver, hosts=host_entries(record.spec))
        reply = await ask(
            container,
            "NetworkSet",
            request,
            NetworkEvent,
            call="change the networks of",
            timeout=self._house.timeouts.call,
        )
        if reply.error:
            raise PortLayerError(
                Reason.UNSPECIFIED,
                f"container {container.name} refused its new network: {reply.error[:1000]}",
            )

    async def _let_go(self, container: Container, gone: set[str], *, live: bool) -> None:
        """After the commit: what the container no longer uses. A failure leaves a stray, no wrong state."""
        network = self._house.rooms.network
        for name in gone:
            if live:
                await self._undo(container, network.unplug, container.id, name)
            network.release(container.id, name)

    # -- update
    async def update(self, container: Container, request: UpdateContainerRequest) -> None:
        """Resources (only what the request sets) and restart policy, live.

        A paused guest cannot be asked: it gets its limits when it goes on.
        """
        async with container.lock:
            require(container.name, "update", container.status, _CHANGEABLE)
            spec = ContainerSpec()
            spec.CopyFrom(container.spec)
            spec.resources.MergeFrom(request.resources)
            if request.set_restart:
                spec.restart.CopyFrom(request.restart)
            self._house.registry.sizing.guest_size(spec.resources)
            changed = spec.resources != container.spec.resources
            live = container.live
            before = container.spec.resources
            paused = container.status is Status.PAUSED
            if live and changed:
                require(container.name, "update", container.status, (Status.RUNNING, Status.PAUSED))
            async with AsyncExitStack() as undo:
                if live and changed:
                    self._check_fits(container, spec.resources)
                if live and changed and not paused:
                    undo.push_async_callback(self._undo, container, self._apply, container, before)
                    await self._apply(container, spec.resources)
                record = replace(container.record, spec=spec)
                record = record.with_state(revision=record.state.revision + 1)
                await self._house.save(container, record)
                undo.pop_all()
        self._house.announce(container, ContainerEvent.CHANGED)

    def _check_fits(self, container: Container, resources: Resources) -> None:
        """A running VM keeps its size."""
        assert container.vm is not None
        config = container.vm.config
        wanted = self._house.registry.sizing.guest_size(resources)
        limit = self._house.registry.sizing.largest_limit(config.memory_mib)
        if resources.memory and resources.memory > limit:
            raise PortLayerError(
                Reason.NOT_SUPPORTED,
                f"container {container.name} is running in a VM of {config.memory_mib} MiB: "
                f"a memory limit above {limit} bytes needs the container to be stopped first",
            )
        if wanted.vcpus > config.vcpus:
            raise PortLayerError(
                Reason.NOT_SUPPORTED,
                f"container {container.name} is running in a VM with {config.vcpus} CPUs: "
                f"{wanted.vcpus} need the container to be stopped first",
            )

    async def _apply(self, container: Container, resources: Resources) -> None:
        request = UpdateRequest(resources=resources)
        await ask(container, "Update", request, Empty, call="update", timeout=self._house.timeouts.call)

    async def _undo(self, container: Container, step: Callable[..., Awaitable[Any]], *arguments: Any) -> None:
        try:
            await step(*arguments)
        except Exception:
            log.exception("container %s: a change could not be taken back fully", container.id[:12])


def _settle_endpoints(old: ContainerSpec, new: ContainerSpec) -> tuple[set[str], set[str]]:
    """Networks that are left and entered; what stays keeps what was assigned to it.

    One that stays with another wanted address counts as entered.
    """
    before = {endpoint.network: endpoint for endpoint in old.endpoints}
    entered: set[str] = set()
    for endpoint in new.endpoints:
        known = before.get(endpoint.network)
        if known is None or _address(known) != _address(endpoint):
            entered.add(endpoint.network)
            continue
        _keep_assigned(known, endpoint)
    left = set(before) - {endpoint.network for endpoint in new.endpoints}
    return left, entered


def _address(endpoint: Endpoint) -> tuple[str, str, str]:
    return endpoint.ipv4, endpoint.ipv6, endpoint.mac


def _keep_assigned(known: Endpoint, endpoint: Endpoint) -> None:
    kept = Endpoint()
    kept.CopyFrom(known)
    wanted = unassign(endpoint)
    for name in ("aliases", "links"):
        getattr(kept, name)[:] = getattr(wanted, name)
    kept.driver_options.clear()
    kept.driver_options.update(wanted.driver_options)
    kept.gateway_priority = wanted.gateway_priority
    endpoint.CopyFrom(kept)
