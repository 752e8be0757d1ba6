"""Hardware that comes and goes while the VM runs."""

from __future__ import annotations

import pytest

from portlayer.hypervisor.base import Hypervisor, HypervisorError, InvalidState
from tests.contract.scene import Scene

pytestmark = pytest.mark.system


async def test_disks_are_found_by_serial_and_keep_their_data(scene: Scene, hypervisor: Hypervisor) -> None:
    first, second = scene.backend.disk("first"), scene.backend.disk("second", mib=16)
    frozen = scene.backend.disk("frozen", read_only=True)
    untouched = frozen.path.read_bytes()
    vm, guest = await scene.started(disks=(first, frozen))
    assert await guest.disks() == {"first": 8 << 20, "frozen": 8 << 20}
    assert await guest.ask("put first cold") == "done"
    await guest.ask("put frozen no")  # refused, or it reaches nobody: ESXi cannot write-protect a disk
    before = (await hypervisor.get(vm)).version

    await hypervisor.add_disk(vm, second)
    await guest.until("disks", f"disks first={8 << 11} frozen={8 << 11} second={16 << 11}")
    assert await guest.ask("put second hot") == "done"
    info = await hypervisor.get(vm)
    assert [disk.id for disk in info.config.disks] == ["first", "frozen", "second"]
    assert info.version > before

    await hypervisor.remove_disk(vm, "frozen")
    await guest.until("disks", f"disks first={8 << 11} second={16 << 11}")
    with pytest.raises(HypervisorError, match="frozen"):
        await hypervisor.remove_disk(vm, "frozen")

    await hypervisor.power_off(vm)
    await hypervisor.start(vm)
    guest = await scene.guest(vm)
    assert await guest.disks() == {"first": 8 << 20, "second": 16 << 20}
    assert await guest.ask("get first") == "got cold"
    assert await guest.ask("get second") == "got hot"
    assert frozen.path.read_bytes() == untouched


async def test_written_data_survives_the_death_of_the_hypervisors_process(
    scene: Scene, hypervisor: Hypervisor
) -> None:
    vm, guest = await scene.started(disks=(scene.backend.disk("data"),))
    assert await guest.ask("put data precious") == "done"
    await guest.ask("journal 0 1000")
    scene.backend.kill(await hypervisor.get(vm))
    await hypervisor.power_off(vm)
    lines = hypervisor.journal(vm).read_bytes().splitlines()[1:]
    assert lines == [b"%015d" % number for number in range(1000)]
    await hypervisor.start(vm)
    assert await (await scene.guest(vm)).ask("get data") == "got precious"


async def test_nics_carry_traffic_cold_and_hot(network: None, scene: Scene, hypervisor: Hypervisor) -> None:
    backend = scene.backend
    cold, hot = backend.nic(1), backend.nic(2)

    def configure(number: int, mac: str) -> str:
        return f"net {mac} {backend.guest_address(number)}/24 {backend.host_address(number)}"

    vm, guest = await scene.started(nics=(cold,))
    assert await guest.nics() == {cold.mac}
    assert await guest.ask(configure(1, cold.mac)) == "done"

    await hypervisor.add_nic(vm, hot)
    await guest.until("nics", f"nics {cold.mac} {hot.mac}")
    assert await guest.ask(configure(2, hot.mac)) == "done"
    assert [nic.id for nic in (await hypervisor.get(vm)).config.nics] == [cold.id, hot.id]

    await hypervisor.remove_nic(vm, cold.id)
    await guest.until("nics", f"nics {hot.mac}")
    await hypervisor.add_nic(vm, cold)  # its interface is free again
    await guest.until("nics", f"nics {cold.mac} {hot.mac}")
    await hypervisor.remove_nic(vm, cold.id)

    await hypervisor.power_off(vm)
    await hypervisor.start(vm)
    guest = await scene.guest(vm)
    assert await guest.nics() == {hot.mac}
    assert await guest.ask(configure(2, hot.mac)) == "done"


async def test_a_failed_plug_changes_nothing(network: None, scene: Scene, hypervisor: Hypervisor) -> None:
    nic = scene.backend.nic(1)
    vm, guest = await scene.started(nics=(nic,))
    before = await hypervisor.get(vm)
    missing = scene.backend.disk("missing")
    missing.path.unlink()
    with pytest.raises(HypervisorError, match="No such file"):
        await hypervisor.add_disk(vm, missing)
    with pytest.raises(HypervisorError, match="no such interface"):
        await hypervisor.add_nic(vm, type(nic)(id="mtnowhere", mac="02:00:5e:00:00:77", network="x"))
    with pytest.raises(HypervisorError):
        await hypervisor.remove_nic(vm, "mtnowhere")
    assert await hypervisor.get(vm) == before
    scene.backend.disk("missing")
    await hypervisor.add_disk(vm, missing)
    await guest.until("disks", f"disks missing={8 << 11}")


async def test_hot_plug_needs_a_running_vm(scene: Scene, hypervisor: Hypervisor) -> None:
    vm = (await scene.create()).config.id
    with pytest.raises(InvalidState):
        await hypervisor.add_disk(vm, scene.backend.disk("d"))
    with pytest.raises(InvalidState):
        await hypervisor.remove_nic(vm, "mt1")
