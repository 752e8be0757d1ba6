"""Channel, journal and console."""

from __future__ import annotations

import asyncio

import pytest

from portlayer.hypervisor.base import Hypervisor
from tests.contract.guest import Guest
from tests.contract.scene import Scene

pytestmark = pytest.mark.system


async def test_a_new_channel_connection_replaces_the_old(scene: Scene, hypervisor: Hypervisor) -> None:
    vm, first = await scene.started()
    second = await scene.guest(vm)
    assert await second.ask("ping second") == "pong second"
    with pytest.raises((EOFError, ConnectionError)):
        await first.ask("ping first", timeout=5)
    third = Guest(*await hypervisor.open_channel(vm))
    await third.contact()
    assert await third.ask("ping third") == "pong third"


async def test_rotation_under_a_flood_loses_and_doubles_nothing(scene: Scene, hypervisor: Hypervisor) -> None:
    vm, guest = await scene.started()
    journal = hypervisor.journal(vm)
    total = 4000
    flooding = asyncio.ensure_future(guest.ask(f"journal 0 {total}"))
    rotations = 0
    while not flooding.done() and rotations < 40:
        await hypervisor.rotate_journal(vm, keep=50)
        rotations += 1
        await asyncio.sleep(0.02)
    assert await flooding == "done"
    await guest.ask("ping end")
    parts = sorted(journal.parent.glob("journal.*"), key=lambda path: -int(path.suffix[1:]))
    assert len(parts) == rotations > 1
    written = b"".join(path.read_bytes() for path in (*parts, journal))
    assert written.splitlines()[1:] == [b"%015d" % number for number in range(total)]
    assert sum(path.stat().st_size > 0 for path in parts) > 1, "no rotation hit the flood"


async def test_rotation_keeps_at_most_so_many(scene: Scene, hypervisor: Hypervisor) -> None:
    vm = (await scene.create()).config.id
    journal = hypervisor.journal(vm)
    for number in range(5):
        journal.write_bytes(b"%d" % number)
        await hypervisor.rotate_journal(vm, keep=2)
    kept = {path.name: path.read_bytes() for path in journal.parent.glob("journal*")}
    assert kept == {"journal": b"", "journal.1": b"4", "journal.2": b"3"}
    await hypervisor.rotate_journal(vm, keep=0)
    assert [path.name for path in journal.parent.glob("journal*")] == ["journal"]


async def test_the_console_is_the_end_of_what_the_kernel_said(scene: Scene, hypervisor: Hypervisor) -> None:
    vm, guest = await scene.started()
    await guest.ask("console the-last-words")
    said = await hypervisor.console(vm)
    assert said.rstrip().endswith(b"the-last-words")
    assert await hypervisor.console(vm, limit=4) == said[-4:]
