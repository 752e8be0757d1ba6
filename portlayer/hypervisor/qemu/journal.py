"""Files that QEMU appends to while we move and shorten them.

The journal is moved by name first; QEMU goes on writing to the moved file until
its chardev is pointed at the new one. QEMU itself switches between two writes,
so no byte is lost and none is written twice, and a kill between the steps leaves
an order that reads right: :func:`reopen` at the next attach ends it.
"""

from __future__ import annotations

from pathlib import Path

from portlayer.hypervisor.qemu.monitor import Monitor

__all__ = ["reopen"]


async def reopen(monitor: Monitor, path: Path) -> None:
    """Point the journal's chardev at ``path``, which exists and is QEMU's."""
    backend = {"type": "file", "data": {"out": str(path), "append": True}}
    await monitor.execute("chardev-change", id="journal", backend=backend)
