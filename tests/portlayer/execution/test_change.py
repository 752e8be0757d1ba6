"""Commits to what exists: versions, what may change when, and taking back half of it."""

from __future__ import annotations

import pytest

from portlayer.errors import PortLayerError
from portlayer.execution.record import Record
from portlayer.portlayer_pb2 import (
    Endpoint,
    Handle,
    NetworkChange,
    Reason,
    RestartPolicy,
    StopRequest,
    UpdateContainerRequest,
)
from tests.portlayer.fakes.network import NETWORK, OTHER_NETWORK
from tests.portlayer.world import World
from tether.tether_pb2 import NetworkEvent, Resources

ID = "1" * 64


def changed(world: World, **fields: object) -> Handle:
    handle = world.execution.open_handle(ID)
    for name, value in fields.items():
        if name == "endpoints":
            handle.spec.endpoints.extend(value)
        else:
            setattr(handle.spec, name, value)
    return handle


async def test_a_commit_grows_the_version_and_is_durable(world: World) -> None:
    await world.create(ID)
    before = world.execution.open_handle(ID)
    after = await world.execution.commit(changed(world, hostname="box"))
    assert after.change_version == before.change_version + 1
    assert after.spec.hostname == "box"
    assert Record.from_extra(world.vm(ID).config.extra).spec.hostname == "box"


async def test_a_stale_handle_is_refused(world: World) -> None:
    await world.create(ID)
    stale = world.execution.open_handle(ID)
    await world.execution.commit(changed(world, hostname="box"))
    with pytest.raises(PortLayerError) as caught:
        await world.execution.commit(stale)
    assert caught.value.reason == Reason.VERSION_CONFLICT


async def test_our_own_bookkeeping_makes_no_handle_stale(world: World) -> None:
    await world.create(ID)
    handle = changed(world, hostname="box")
    await world.execution.start(ID)
    await world.execution.stop(StopRequest(id=ID, timeout=1))
    await world.execution.commit(handle)


async def test_rename_frees_the_old_name(world: World) -> None:
    await world.running(ID, name="old")
    await world.execution.commit(changed(world, name="new"))
    assert world.network.names[-1] == "new"
    assert world.vm(ID).config.name == "new"
    await world.create(name="old")
    with pytest.raises(PortLayerError) as caught:
        await world.create(name="new")
    assert caught.value.reason == Reason.NAME_IN_USE


async def test_a_paused_container_can_be_renamed_but_not_plugged(world: World) -> None:
    await world.running(ID, name="old")
    await world.execution.pause(ID)
    await world.execution.commit(changed(world, name="new"))
    await world.execution.update(
        UpdateContainerRequest(id=ID, set_restart=True, restart=RestartPolicy(condition=RestartPolicy.ALWAYS))
    )
    with pytest.raises(PortLayerError) as caught:
        await world.execution.commit(changed(world, endpoints=[Endpoint(network=OTHER_NETWORK)]))
    assert caught.value.reason == Reason.PAUSED


async def test_the_limits_of_a_paused_container_change_when_it_goes_on(world: World) -> None:
    await world.running(ID)
    await world.execution.pause(ID)
    await world.execution.update(UpdateContainerRequest(id=ID, resources=Resources(cpu_shares=3)))
    assert world.execution.get(ID).spec.resources.cpu_shares == 3
    assert not world.guest(ID).updates
    await world.execution.unpause(ID)
    assert [update.resources.cpu_shares for update in world.guest(ID).updates] == [3]


async def test_a_rename_to_a_used_name_changes_nothing(world: World) -> None:
    await world.create(ID, name="one")
    await world.create(name="two")
    with pytest.raises(PortLayerError):
        await world.execution.commit(changed(world, name="two"))
    assert world.execution.get(ID).name == "one"


async def test_a_failed_commit_gives_the_name_back(world: World) -> None:
    await world.create(ID, name="one")
    world.faults.start(fail_at=0)
    with pytest.raises(Exception, match="injected"):
        await world.execution.commit(changed(world, name="two"))
    world.faults.start()
    await world.create(name="two")
    assert world.execution.get(ID).name == "one"


@pytest.mark.parametrize("field", ["layer", "created_at", "disk_size"])
async def test_what_the_disk_stands_on_never_changes(world: World, field: str) -> None:
    await world.create(ID)
    value = f"sha256:{'1' * 64}" if field == "layer" else 12345
    with pytest.raises(PortLayerError, match=field) as caught:
        await world.execution.commit(changed(world, **{field: value}))
    assert caught.value.reason == Reason.NOT_SUPPORTED


async def test_a_running_container_refuses_by_name_what_needs_a_stop(world: World) -> None:
    await world.running(ID)
    with pytest.raises(PortLayerError, match="stop it before changing hostname, stop_signal"):
        await world.execution.commit(changed(world, hostname="x", stop_signal=9))


# ---------------------------------------------------------------- networks


async def network_events(world: World, count: int) -> list[tuple[str, str]]:
    seen = []
    while len(seen) < count:
        event = await world.next_event()
        if event.HasField("network"):
            seen.append((NetworkChange.Kind.Name(event.network.kind), event.network.network.id))
    return seen


async def test_connect_while_running_plugs_and_tells_the_guest(world: World) -> None:
    await world.running(ID)
    await world.execution.commit(changed(world, endpoints=[Endpoint(network=OTHER_NETWORK, aliases=["db"])]))
    assert len(world.vm(ID).config.nics) == 2
    assert len(world.guest(ID).network_sets[-1].interfaces) == 2
    saved = Record.from_extra(world.vm(ID).config.extra).spec
    assert [e.network for e in saved.endpoints] == [NETWORK, OTHER_NETWORK]
    assert saved.endpoints[1].assigned_ipv4
    assert list(saved.endpoints[1].aliases) == ["db"]
    assert await network_events(world, 2) == [("CONNECTED", NETWORK), ("CONNECTED", OTHER_NETWORK)]


async def test_disconnect_while_running(world: World) -> None:
    await world.running(ID)
    handle = world.execution.open_handle(ID)
    del handle.spec.endpoints[:]
    await world.execution.commit(handle)
    assert not world.vm(ID).config.nics
    assert not world.network.taps
    assert not world.network.leases
    assert len(world.guest(ID).network_sets[-1].interfaces) == 0


LIVE_STEPS = [
    "network.allocate",
    "network.plug",
    "hypervisor.add_nic",
    "hypervisor.configure",
]


@pytest.mark.parametrize("step", range(len(LIVE_STEPS)))
async def test_a_live_connect_that_fails_at_any_step_is_taken_back(world: World, step: int) -> None:
    await world.running(ID)
    leases, nics = dict(world.network.leases), list(world.vm(ID).config.nics)
    world.faults.start(fail_at=step)
    with pytest.raises(Exception, match="injected"):
        await world.execution.commit(changed(world, endpoints=[Endpoint(network=OTHER_NETWORK)]))
    assert world.faults.calls[step] == LIVE_STEPS[step]
    world.faults.start()
    assert world.network.leases == leases
    assert list(world.vm(ID).config.nics) == nics
    assert (ID, OTHER_NETWORK) not in world.network.taps
    assert (ID, NETWORK) in world.network.taps
    if world.guest(ID).network_sets:
        assert len(world.guest(ID).network_sets[-1].interfaces) == 1
    await world.execution.commit(changed(world, endpoints=[Endpoint(network=OTHER_NETWORK)]))


async def test_a_guest_that_refuses_its_network_keeps_the_old_one(world: World) -> None:
    await world.running(ID)
    world.guest(ID).answers["NetworkSet"] = NetworkEvent(error="no such NIC")
    with pytest.raises(PortLayerError, match="no such NIC"):
        await world.execution.commit(changed(world, endpoints=[Endpoint(network=OTHER_NETWORK)]))
    assert len(world.vm(ID).config.nics) == 1


async def test_connect_while_stopped_takes_effect_at_the_next_start(world: World) -> None:
    await world.create(ID)
    await world.execution.commit(changed(world, endpoints=[Endpoint(network=OTHER_NETWORK)]))
    await world.execution.start(ID)
    assert len(world.vm(ID).config.nics) == 2


async def test_a_client_cannot_choose_what_is_assigned(world: World) -> None:
    await world.create(ID)
    handle = world.execution.open_handle(ID)
    handle.spec.endpoints[0].assigned_ipv4 = "8.8.8.8/0"
    after = await world.execution.commit(handle)
    assert after.spec.endpoints[0].assigned_ipv4 == "172.30.0.2/24"


async def test_another_address_for_a_stopped_container(world: World) -> None:
    await world.create(ID)
    handle = world.execution.open_handle(ID)
    handle.spec.endpoints[0].ipv4 = "172.30.0.77"
    await world.execution.commit(handle)
    assert not world.network.leases
    await world.execution.start(ID)
    assert world.execution.get(ID).spec.endpoints[0].assigned_ipv4 == "172.30.0.77/24"


# ---------------------------------------------------------------- update


async def test_update_merges_and_tells_the_guest(world: World) -> None:
    await world.running(ID, resources=Resources(memory=100 << 20, cpu_shares=5))
    request = UpdateContainerRequest(
        id=ID,
        resources=Resources(memory=50 << 20),
        set_restart=True,
        restart=RestartPolicy(condition=RestartPolicy.ALWAYS),
    )
    handle = await world.execution.update(request)
    assert handle.spec.resources == Resources(memory=50 << 20, cpu_shares=5)
    assert handle.spec.restart.condition == RestartPolicy.ALWAYS
    assert world.guest(ID).updates[-1].resources == handle.spec.resources


async def test_a_running_vm_does_not_grow(world: World) -> None:
    await world.running(ID, resources=Resources(memory=100 << 20))
    with pytest.raises(PortLayerError, match="stopped first") as caught:
        await world.execution.update(UpdateContainerRequest(id=ID, resources=Resources(memory=1 << 30)))
    assert caught.value.reason == Reason.NOT_SUPPORTED
    with pytest.raises(PortLayerError, match="1 CPUs"):
        await world.execution.update(
            UpdateContainerRequest(id=ID, resources=Resources(nano_cpus=4_000_000_000))
        )
    await world.execution.kill(ID, 9)
    await world.execution.update(UpdateContainerRequest(id=ID, resources=Resources(memory=1 << 30)))
    await world.execution.start(ID)
    assert world.vm(ID).config.memory_mib == 1024 + 22 + 60


async def test_an_update_that_cannot_be_saved_is_taken_back_in_the_guest(world: World) -> None:
    await world.running(ID, resources=Resources(memory=100 << 20))
    world.faults.start(fail_at=0)
    with pytest.raises(Exception, match="injected"):
        await world.execution.update(UpdateContainerRequest(id=ID, resources=Resources(memory=50 << 20)))
    assert [u.resources.memory >> 20 for u in world.guest(ID).updates] == [50, 100]
