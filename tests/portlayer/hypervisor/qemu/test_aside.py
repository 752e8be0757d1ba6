"""Disks put aside and put back, on a QEMU that only keeps books."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from portlayer.hypervisor.base import Disk, HypervisorError
from portlayer.hypervisor.qemu.aside import disks_aside, put_back

DISKS = (Disk(id="root", path=Path("/d/root.vmdk")), Disk(id="v", path=Path("/d/v.vmdk"), read_only=True))


class Books:
    """A monitor: nodes, what devices show, whether the vCPUs run; it fails at its nth command."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.nodes = {"node-root": 10, "node-v": 20}
        self.shown = {"root": "node-root", "v": "node-v"}
        self.running = True
        self.connected = True
        self._left = fail_at

    async def execute(self, command: str, **arguments: Any) -> Any:
        return await self.run(command, {key.replace("_", "-"): value for key, value in arguments.items()})

    async def run(self, command: str, arguments: Mapping[str, Any]) -> Any:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                self.connected = False
                raise HypervisorError("killed")
        if command == "query-named-block-nodes":
            return [{"node-name": n, "image": {"virtual-size": s}} for n, s in self.nodes.items()]
        if command == "query-block":
            return [{"inserted": {"node-name": node}} for node in self.shown.values()]
        if command == "blockdev-add":
            assert arguments["node-name"] not in self.nodes
            self.nodes[arguments["node-name"]] = arguments.get("size", 0)
        elif command == "blockdev-del":
            assert arguments["node-name"] not in self.shown.values()
            del self.nodes[arguments["node-name"]]
        elif command == "qom-set":
            assert not self.running
            assert arguments["value"] in self.nodes
            self.shown[arguments["path"].rpartition("disk-")[2]] = arguments["value"]
        else:
            self.running = {"cont": True, "stop": False}[command]
        return {}

    @property
    def as_before(self) -> bool:
        return set(self.nodes) == {"node-root", "node-v"} and self.shown == {
            "root": "node-root",
            "v": "node-v",
        }


async def aside(books: Books, *, running: bool) -> None:
    async with disks_aside(books, DISKS, running=running):  # type: ignore[arg-type]
        assert not books.running
        assert {node.partition("-")[0] for node in books.nodes} == {"held" if running else "stay"}
        assert sorted(books.nodes.values()) == [10, 20]


@pytest.mark.parametrize("running", [True, False])
async def test_there_and_back(running: bool) -> None:
    books = Books()
    books.running = running
    await aside(books, running=running)
    assert books.as_before
    assert books.running is running


@pytest.mark.parametrize("step", range(1, 18))
async def test_whoever_comes_after_a_death_at_any_step_puts_it_back(step: int) -> None:
    books = Books(fail_at=step)
    with pytest.raises(HypervisorError):
        await aside(books, running=True)
    books._left, books.connected = None, True
    await put_back(books, DISKS)  # type: ignore[arg-type]
    assert books.as_before
    assert books.running


async def test_nothing_is_done_where_nothing_was() -> None:
    books = Books()
    books.running = False
    await put_back(books, DISKS)  # type: ignore[arg-type]
    assert books.as_before
    assert not books.running
