"""Disks out of QEMU's way for a moment: it saves no memory while a VMDK is open, even for reading.

With the vCPUs stopped each device gets a placeholder of its disk's size, and the
image is closed. Nothing asks the device meanwhile. What a placeholder is called
says whether the VM is to go on afterwards, so that whoever finds one after our
death (:func:`put_back`) brings the VM back to where it was.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from portlayer.hypervisor.base import Disk
from portlayer.hypervisor.qemu.devices import disk_backend, disk_device_id, disk_node
from portlayer.hypervisor.qemu.monitor import Monitor

__all__ = ["disks_aside", "put_back"]

_GOES_ON, _STAYS = "held-", "stay-"


@asynccontextmanager
async def disks_aside(monitor: Monitor, disks: Sequence[Disk], *, running: bool) -> AsyncIterator[None]:
    """Inside, the VM stands still and QEMU has none of ``disks`` open; afterwards all is as before.

    A VM that is gone by then stays gone.
    """
    prefix = _GOES_ON if running else _STAYS
    sizes = {
        node["node-name"]: node["image"]["virtual-size"]
        for node in await monitor.execute("query-named-block-nodes", flat=True)
    }
    try:
        for disk in disks:
            size = sizes[disk_node(disk.id)]
            placeholder = {"driver": "null-co", "node-name": f"{prefix}{disk.id}", "size": size}
            await monitor.run("blockdev-add", placeholder)
        if running:
            await monitor.execute("stop")
        for disk in disks:
            await _show(monitor, disk, f"{prefix}{disk.id}")
            await monitor.execute("blockdev-del", node_name=disk_node(disk.id))
        yield
    finally:
        if monitor.connected:
            await put_back(monitor, disks)
            if running:
                await monitor.execute("cont")  # one without disks


async def put_back(monitor: Monitor, disks: Sequence[Disk]) -> None:
    """Undo whatever :func:`disks_aside` has done so far. Nothing happens where it has done nothing."""
    nodes = {node["node-name"] for node in await monitor.execute("query-named-block-nodes", flat=True)}
    shown = {entry.get("inserted", {}).get("node-name") for entry in await monitor.execute("query-block")}
    placeholders = [
        (disk, name) for disk in disks for prefix in (_GOES_ON, _STAYS) if (name := prefix + disk.id) in nodes
    ]
    for disk, name in placeholders:
        if name in shown:
            if disk_node(disk.id) not in nodes:
                await monitor.run("blockdev-add", disk_backend(disk))
            await _show(monitor, disk, disk_node(disk.id))
    if any(name.startswith(_GOES_ON) for _, name in placeholders):
        await monitor.execute("cont")  # before the last trace is gone that says so
    for _, name in placeholders:
        await monitor.execute("blockdev-del", node_name=name)


async def _show(monitor: Monitor, disk: Disk, node: str) -> None:
    path = f"/machine/peripheral/{disk_device_id(disk.id)}"
    await monitor.run("qom-set", {"path": path, "property": "drive", "value": node})
