"""Creating containers: everything or nothing."""

from __future__ import annotations

import pytest

from portlayer.errors import PortLayerError
from portlayer.execution.record import Intent, Record
from portlayer.portlayer_pb2 import (
    ContainerState,
    Endpoint,
    Handle,
    LogConfig,
    PortBinding,
    Reason,
    VolumeMount,
)
from tests.portlayer.fakes.faults import Injected
from tests.portlayer.fakes.network import NETWORK
from tests.portlayer.world import World, mount
from tether.tether_pb2 import Process

ID = "1" * 64


def nothing_left(world: World) -> bool:
    return not (
        world.hypervisor.vms
        or world.disks.disks
        or world.network.leases
        or world.network.taps
        or world.network.ports
        or world.execution.list()
    )


async def test_a_created_container_is_durable_and_announced(world: World) -> None:
    await world.create(ID, name="web")
    record = Record.from_extra(world.vm(ID).config.extra)
    assert record.intent is Intent.CREATED
    assert record.spec.name == "web"
    assert record.spec.endpoints[0].assigned_ipv4 == "172.30.0.2/24"
    assert record.spec.disk_size == world.config.defaults.disk_bytes
    event = await world.next_event()
    assert event.container.id == ID
    assert event.container.state.status == ContainerState.CREATED


async def test_the_vm_has_the_root_disk_first_and_each_volume_once(world: World) -> None:
    await world.create(ID, mounts=[mount(), mount(destination="/more", read_only=True)])
    disks = world.vm(ID).config.disks
    assert [disk.path.as_posix() for disk in disks] == [f"/disks/{ID}", "/volumes/data"]
    assert disks[0].id == "root"
    assert len(disks[1].id) <= 20
    assert not disks[1].read_only


@pytest.mark.parametrize("step", range(3))
async def test_a_failure_at_any_step_leaves_nothing(world: World, step: int) -> None:
    world.faults.start(fail_at=step)
    with pytest.raises((Injected, PortLayerError)):
        await world.create(ID, mounts=[mount()])
    assert world.faults.calls[step] in ("network.allocate", "disks.create", "hypervisor.create")
    world.faults.start()
    assert nothing_left(world)
    await world.create(ID)  # the ID and the name are free again


async def test_every_step_of_create_was_made_to_fail(world: World) -> None:
    world.faults.start()
    await world.create(ID, mounts=[mount()])
    assert len(world.faults.calls) == 3


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"name": "bad name"}, Reason.UNSPECIFIED),
        ({"name": ""}, Reason.UNSPECIFIED),
        ({"process": Process()}, Reason.UNSPECIFIED),
        ({"layer": "sha256:short"}, Reason.UNSPECIFIED),
        ({"layer": f"sha256:{'2' * 64}"}, Reason.NO_SUCH_LAYER),
        ({"mounts": [VolumeMount(volume="missing", destination="/x")]}, Reason.NO_SUCH_VOLUME),
        ({"mounts": [VolumeMount(volume="data", destination="x")]}, Reason.UNSPECIFIED),
        ({"mounts": [VolumeMount(volume="data", destination="/x", subpath="../y")]}, Reason.UNSPECIFIED),
        ({"mounts": [mount(), mount("other")]}, Reason.UNSPECIFIED),
        ({"endpoints": [Endpoint(network="f" * 64)]}, Reason.NO_SUCH_NETWORK),
        ({"endpoints": [Endpoint(network=NETWORK), Endpoint(network=NETWORK)]}, Reason.UNSPECIFIED),
        ({"ports": [PortBinding(container_port=0, protocol="tcp")]}, Reason.UNSPECIFIED),
        ({"ports": [PortBinding(container_port=80, protocol="icmp")]}, Reason.UNSPECIFIED),
        ({"stop_signal": 99}, Reason.UNSPECIFIED),
        ({"log": LogConfig(driver="gelf")}, Reason.NOT_SUPPORTED),
    ],
)
async def test_what_cannot_be_honoured_is_refused_and_leaves_nothing(
    world: World, fields: dict[str, object], reason: Reason.ValueType
) -> None:
    with pytest.raises(PortLayerError) as caught:
        await world.create(ID, **fields)
    assert caught.value.reason == reason
    assert nothing_left(world)


async def test_a_name_is_used_once(world: World) -> None:
    first = await world.create(name="web")
    with pytest.raises(PortLayerError, match=first) as caught:
        await world.create(name="web")
    assert caught.value.reason == Reason.NAME_IN_USE


async def test_an_id_is_used_once(world: World) -> None:
    await world.create(ID, name="one")
    with pytest.raises(PortLayerError) as caught:
        await world.create(ID, name="two")
    assert caught.value.reason == Reason.VERSION_CONFLICT


async def test_an_id_must_have_64_digits(world: World) -> None:
    with pytest.raises(PortLayerError, match="64"):
        await world.execution.commit(Handle(id="../etc", spec=world.spec()))


async def test_the_vch_limits_how_many_there_are(world: World) -> None:
    object.__setattr__(world.config, "max_containers", 1)
    await world.create(name="one")
    with pytest.raises(PortLayerError) as caught:
        await world.create(name="two")
    assert caught.value.reason == Reason.LIMIT_EXCEEDED


async def test_a_static_address_is_claimed_at_start_not_at_create(world: World) -> None:
    """Compose creates the replacement while the old container still runs."""
    fixed = [Endpoint(network=NETWORK, ipv4="172.30.0.9")]
    old = await world.running(name="old", endpoints=fixed)
    new = await world.create(name="new", endpoints=fixed)
    with pytest.raises(PortLayerError) as caught:
        await world.execution.start(new)
    assert caught.value.reason == Reason.ADDRESS_IN_USE
    await world.execution.kill(old, 9)
    await world.execution.start(new)
    assert world.execution.get(new).spec.endpoints[0].assigned_ipv4 == "172.30.0.9/24"
