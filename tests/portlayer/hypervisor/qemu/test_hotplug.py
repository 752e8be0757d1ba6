"""Plugging against a QEMU from a table: the order of steps, and what is undone."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from portlayer.hypervisor.base import Disk, HypervisorError, Nic
from portlayer.hypervisor.qemu import hotplug
from portlayer.hypervisor.qemu.devices import Profile
from portlayer.hypervisor.qemu.monitor import Monitor, MonitorError, MonitorLost
from portlayer.hypervisor.qemu.runtime import Launched
from tests.portlayer.hypervisor.qemu.fake_qmp import FakeQmp, Refusal

NIC = Nic(id="mt1", mac="02:00:00:00:00:01", network="mr1")
DISK = Disk(id="hot", path=Path("/d/hot.vmdk"))


@pytest.fixture(autouse=True)
def tap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hotplug, "open_tap", lambda name: os.open("/dev/null", os.O_RDWR))


def refuse(reason: str) -> Any:
    def answer(_: object) -> None:
        raise Refusal(reason)

    return answer


async def test_a_nic_is_backend_then_device(qmp: FakeQmp, monitor: Monitor) -> None:
    await hotplug.add_nic(monitor, NIC, Profile.FAST)
    assert qmp.names()[1:] == ["getfd", "netdev_add", "device_add"]
    assert qmp.commands[2][1] == {"type": "tap", "id": "net-mt1", "fd": "tap-mt1"}
    assert qmp.commands[3][1]["bus"] == "hot"


async def test_a_refused_nic_leaves_no_backend(qmp: FakeQmp, monitor: Monitor) -> None:
    qmp.answers["device_add"] = refuse("slot taken")
    with pytest.raises(MonitorError, match="slot taken"):
        await hotplug.add_nic(monitor, NIC, Profile.FAST)
    assert qmp.names()[-1] == "netdev_del"


async def test_a_refused_backend_leaves_no_descriptor(qmp: FakeQmp, monitor: Monitor) -> None:
    qmp.answers["netdev_add"] = refuse("Duplicate ID")
    with pytest.raises(MonitorError, match="Duplicate"):
        await hotplug.add_nic(monitor, NIC, Profile.FAST)
    assert qmp.names()[-1] == "closefd"


async def test_a_disk_gets_a_target_that_is_free(qmp: FakeQmp, monitor: Monitor) -> None:
    assert await hotplug.add_disk(monitor, DISK, Profile.VSPHERE, [0, 1, 2, 3, 4, 5, 6, 8]) == 9
    assert qmp.commands[-1][1]["scsi-id"] == 9


async def test_a_refused_disk_leaves_no_image_open(qmp: FakeQmp, monitor: Monitor) -> None:
    qmp.answers["device_add"] = refuse("no")
    with pytest.raises(MonitorError):
        await hotplug.add_disk(monitor, DISK, Profile.FAST, [])
    assert qmp.commands[-1] == ("blockdev-del", {"node-name": "node-hot"})


async def test_the_guest_is_asked_until_it_lets_go(
    qmp: FakeQmp, monitor: Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hotplug, "ASK_AGAIN", 0.01)
    unplugged = hotplug.Unplugged()
    asked = 0

    def ask(_: object) -> dict[str, Any]:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise Refusal("Device nic-mt1 is already in the process of unplug")
        if asked == 3:
            unplugged.gone("nic-other")
            unplugged.gone("nic-mt1")
        return {}

    qmp.answers["device_del"] = ask
    await hotplug.remove_nic(monitor, "mt1", unplugged)
    assert asked == 3
    assert qmp.names()[-1] == "netdev_del"


async def test_a_guest_that_does_not_let_go_keeps_its_device(
    qmp: FakeQmp, monitor: Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hotplug, "UNPLUG_TIMEOUT", 0.05)
    with pytest.raises(HypervisorError, match="did not release disk-hot"):
        await hotplug.remove_disk(monitor, "hot", hotplug.Unplugged())
    assert "blockdev-del" not in qmp.names()


async def test_a_device_that_went_before_is_gone(qmp: FakeQmp, monitor: Monitor) -> None:
    qmp.answers["device_del"] = refuse("Device 'disk-hot' not found")
    await hotplug.remove_disk(monitor, "hot", hotplug.Unplugged())
    assert qmp.names()[-1] == "blockdev-del"


async def test_the_end_of_the_vm_ends_the_wait(qmp: FakeQmp, monitor: Monitor) -> None:
    unplugged = hotplug.Unplugged()
    task = asyncio.ensure_future(hotplug.remove_disk(monitor, "hot", unplugged))
    while "device_del" not in qmp.names():
        await asyncio.sleep(0)
    unplugged.fail(MonitorLost("VM ended"))
    with pytest.raises(MonitorLost, match="ended"):
        await asyncio.wait_for(task, 10)


async def test_what_qemu_has_counts(qmp: FakeQmp, monitor: Monitor) -> None:
    """Killed in the middle of plugs: a device too many goes, a note too many too, nodes without device close."""
    unplugged = hotplug.Unplugged()
    present = ["disk-root", "disk-half", "nic-mt1", "rng", "port-channel"]
    qmp.answers["qom-list"] = lambda _: [{"name": name, "type": "child<x>"} for name in present]
    qmp.answers["device_del"] = lambda arguments: unplugged.gone(arguments["id"]) or {}
    qmp.answers["query-block"] = lambda _: [{"inserted": {"node-name": "node-root"}}, {}]
    qmp.answers["query-named-block-nodes"] = lambda _: [
        {"node-name": name} for name in ("node-root", "file-root", "node-orphan", "#block1")
    ]
    launched = Launched(profile="fast", accelerator="tcg", disks={"root": 0, "gone": 1}, nics=("mt1", "mt2"))
    seen = await hotplug.reconcile(monitor, launched, unplugged, vm="ab" * 32)
    assert (seen.disks, seen.nics) == ({"root": 0}, ("mt1",))
    assert ("device_del", {"id": "disk-half"}) in qmp.commands
    closed = [arguments["node-name"] for name, arguments in qmp.commands if name == "blockdev-del"]
    assert closed == ["node-half", "node-orphan"]
