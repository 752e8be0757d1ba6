"""Devices that come and go while a VM runs.

Adding is two steps (backend, device) and undone when the second fails. Removing
needs the guest: it is asked again until QEMU reports the device deleted, because
a guest that is still booting loses the first request.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
from collections.abc import Iterable

from portlayer.hypervisor.base import Disk, HypervisorError, Nic
from portlayer.hypervisor.qemu.devices import (
    Profile,
    disk_backend,
    disk_device,
    disk_device_id,
    disk_node,
    free_target,
    nic_backend,
    nic_backend_id,
    nic_device,
    nic_device_id,
)
from portlayer.hypervisor.qemu.monitor import Monitor, MonitorError
from portlayer.hypervisor.qemu.runtime import Launched
from portlayer.hypervisor.qemu.tap import open_tap

__all__ = ["Unplugged", "add_disk", "add_nic", "reconcile", "remove_disk", "remove_nic"]

UNPLUG_TIMEOUT = 20.0
ASK_AGAIN = 2.0
_log = logging.getLogger(__name__)


class Unplugged:
    """Who waits for which device to be deleted."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[None]] = {}

    def expect(self, device: str) -> asyncio.Future[None]:
        future = asyncio.get_running_loop().create_future()
        self._waiting[device] = future
        return future

    def forget(self, device: str) -> None:
        self._waiting.pop(device, None)

    def gone(self, device: str) -> None:
        future = self._waiting.get(device)
        if future is not None and not future.done():
            future.set_result(None)

    def fail(self, error: HypervisorError) -> None:
        """The VM ended: nothing more will be deleted."""
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(error)


async def add_nic(monitor: Monitor, nic: Nic, profile: Profile) -> None:
    backend = nic_backend(nic, f"tap-{nic.id}")
    descriptor = open_tap(nic.id)
    try:
        await monitor.execute("getfd", fd=descriptor, fdname=backend["fd"])
    finally:
        os.close(descriptor)
    try:
        await monitor.run("netdev_add", backend)
    except MonitorError:
        with contextlib.suppress(MonitorError):
            await monitor.execute("closefd", fdname=backend["fd"])
        raise
    try:
        await monitor.run("device_add", nic_device(nic, profile))
    except MonitorError:
        await monitor.execute("netdev_del", id=nic_backend_id(nic.id))
        raise


async def remove_nic(monitor: Monitor, nic_id: str, unplugged: Unplugged) -> None:
    await _unplug(monitor, nic_device_id(nic_id), unplugged)
    await monitor.execute("netdev_del", id=nic_backend_id(nic_id))


async def add_disk(monitor: Monitor, disk: Disk, profile: Profile, taken: Iterable[int]) -> int:
    """Returns the SCSI target it got (counted on every bus)."""
    target = free_target(taken)
    await monitor.run("blockdev-add", disk_backend(disk))
    try:
        await monitor.run("device_add", disk_device(disk, profile, target=target))
    except MonitorError:
        await monitor.execute("blockdev-del", node_name=disk_node(disk.id))
        raise
    return target


async def remove_disk(monitor: Monitor, disk_id: str, unplugged: Unplugged) -> None:
    await _unplug(monitor, disk_device_id(disk_id), unplugged)
    await monitor.execute("blockdev-del", node_name=disk_node(disk_id))


async def reconcile(monitor: Monitor, launched: Launched, unplugged: Unplugged, *, vm: str) -> Launched:
    """After our death in the middle of a plug: what QEMU has counts.

    A device that QEMU has and the note does not was being added by a call that
    nobody got an answer to: it goes. The other way round, it went already.
    """
    present = {entry["name"] for entry in await monitor.execute("qom-list", path="/machine/peripheral")}
    disks = {known: target for known, target in launched.disks.items() if disk_device_id(known) in present}
    nics = tuple(known for known in launched.nics if nic_device_id(known) in present)
    expected = {disk_device_id(known) for known in disks} | {nic_device_id(known) for known in nics}
    for device in sorted(present - expected):
        kind, _, name = device.partition("-")
        if kind not in ("disk", "nic"):
            continue
        _log.warning("VM %s: device %s was being added when we died: removing it", vm[:12], device)
        try:
            await (remove_nic if kind == "nic" else remove_disk)(monitor, name, unplugged)
        except HypervisorError as error:
            _log.error("VM %s: device %s stays until the VM is off: %s", vm[:12], device, error)
    await _drop_unused(monitor)
    return dataclasses.replace(launched, disks=disks, nics=nics)


async def _drop_unused(monitor: Monitor) -> None:
    """Block nodes of ours that no device uses any more, or yet."""
    used = {entry.get("inserted", {}).get("node-name") for entry in await monitor.execute("query-block")}
    for node in await monitor.execute("query-named-block-nodes", flat=True):
        name = node["node-name"]
        if name.startswith("node-") and name not in used:
            await monitor.execute("blockdev-del", node_name=name)


async def _unplug(monitor: Monitor, device: str, unplugged: Unplugged) -> None:
    """Ask the guest to let go until it has.

    Raises:
        HypervisorError: it did not in time; the device is still there.
    """
    gone = unplugged.expect(device)
    try:
        async with asyncio.timeout(UNPLUG_TIMEOUT):
            while not gone.done():
                try:
                    await monitor.execute("device_del", id=device)
                except MonitorError as error:
                    if "not found" in error.reason:
                        return
                    if "in the process of unplug" not in error.reason:
                        raise
                await asyncio.wait((gone,), timeout=ASK_AGAIN)
            gone.result()
    except TimeoutError as error:
        raise HypervisorError(f"the guest did not release {device} in {UNPLUG_TIMEOUT:.0f} s") from error
    finally:
        unplugged.forget(device)
