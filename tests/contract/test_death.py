"""kill -9 of the port layer after every step that leaves a trace: whoever opens next finds a legal state."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import sys
from collections.abc import AsyncIterator

import pytest

from portlayer.hypervisor.base import PowerState, VmInfo
from portlayer.hypervisor.qemu import QemuHypervisor
from tests.contract.backend import QemuBackend
from tests.contract.guest import ROOT
from tests.contract.scene import Scene

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(600),
    # what is persisted, and when, is the same for both profiles
    pytest.mark.parametrize("backend", ["qemu-fast"], indirect=True),
]
VM = "d" * 64


async def victim(backend: QemuBackend, verb: str, step: int) -> bool:
    """Returns whether it died; False: the verb has fewer steps."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.contract.victim"),
        *(str(backend.directory), backend.config.guest.profile, verb, VM, str(step)),
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )
    _, words = await process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), words.decode()
    return process.returncode != 0


async def found(backend: QemuBackend) -> tuple[QemuHypervisor, VmInfo | None]:
    hypervisor = backend.hypervisor()
    await hypervisor.open()
    vms = await hypervisor.list()
    assert [info.config.id for info in vms] in ([], [VM])
    left = [path.name for path in (backend.config.root / "vms").iterdir()]
    assert left == [info.config.id for info in vms], "half-made things are swept"
    for info in vms:
        alive = backend.processes()
        assert alive == ([info.pid] if info.power is not PowerState.OFF else []), "no process is forgotten"
    if not vms:
        assert backend.processes() == []
    return hypervisor, vms[0] if vms else None


async def steps(backend: QemuBackend, verb: str, before: str) -> AsyncIterator[int]:
    """Kill at step 1, 2, … of ``verb``, each time on a fresh VM that is absent, off or on."""
    step = 0
    died = True
    while died:
        step += 1
        hypervisor = backend.hypervisor()
        await hypervisor.open()
        if before != "absent":
            await hypervisor.create(Scene(backend).config(id=VM, boot_config=b"old", extra={"a": b"1"}))
        if before == "on":
            await hypervisor.start(VM)
        await hypervisor.close()
        died = await victim(backend, verb, step)
        yield step
        hypervisor, _ = await found(backend)
        await hypervisor.power_off(VM) if await hypervisor.list() else None
        await hypervisor.delete(VM)
        await hypervisor.close()
        assert backend.remains() == []
    assert step > 1, "nothing was injected"


async def test_create(backend: QemuBackend) -> None:
    outcomes = set()
    async for step in steps(backend, "create", "absent"):
        hypervisor, info = await found(backend)
        outcomes.add(info is not None)
        if info is not None:
            assert (info.config.boot_config, info.config.extra, info.version) == (b"new", {"a": b"1"}, 1), (
                step
            )
        await hypervisor.close()
    assert outcomes == {True, False}


async def test_configure(backend: QemuBackend) -> None:
    outcomes = set()
    async for _ in steps(backend, "configure", "off"):
        hypervisor, info = await found(backend)
        assert info is not None
        outcomes.add((info.version, info.config.extra["a"], info.config.name == "changed"))
        await hypervisor.close()
    assert outcomes == {(1, b"1", False), (2, b"2", True)}


async def test_delete(backend: QemuBackend) -> None:
    outcomes = set()
    async for _ in steps(backend, "delete", "off"):
        hypervisor, info = await found(backend)
        outcomes.add(info is not None)
        await hypervisor.close()
    assert False in outcomes


async def test_start(backend: QemuBackend) -> None:
    outcomes = set()
    async for _ in steps(backend, "start", "off"):
        hypervisor, info = await found(backend)
        assert info is not None
        outcomes.add(info.power)
        if info.power is PowerState.OFF:
            await hypervisor.start(VM)
        await hypervisor.suspend(VM)
        await hypervisor.resume(VM)
        await hypervisor.close()
    assert outcomes == {PowerState.OFF, PowerState.ON}


async def test_power_off(backend: QemuBackend) -> None:
    async for _ in steps(backend, "power_off", "on"):
        hypervisor, info = await found(backend)
        assert info is not None
        await hypervisor.power_off(VM)
        assert (await hypervisor.get(VM)).power is PowerState.OFF
        await hypervisor.close()


async def test_add_disk(backend: QemuBackend) -> None:
    outcomes = set()
    backend.disk("hot")
    async for _ in steps(backend, "add_disk", "on"):
        hypervisor, info = await found(backend)
        assert info is not None
        outcomes.add(len(info.config.disks))
        await hypervisor.add_disk(VM, backend.disk("hot"))
        assert [disk.id for disk in (await hypervisor.get(VM)).config.disks] == ["hot"]
        await hypervisor.power_off(VM)
        await hypervisor.start(VM)
        await hypervisor.close()
    assert outcomes == {0, 1}


async def test_rotate(backend: QemuBackend) -> None:
    async for _ in steps(backend, "rotate", "on"):
        hypervisor, _info = await found(backend)
        scene = Scene(backend)
        scene.hypervisor = hypervisor
        guest = await scene.guest(VM)
        await guest.ask("journal 0 3")
        await hypervisor.rotate_journal(VM, keep=9)
        await guest.ask("journal 3 5")
        journal = hypervisor.journal(VM)
        parts = sorted(journal.parent.glob("journal.*"), key=lambda path: -int(path.suffix[1:]))
        written = b"".join(path.read_bytes() for path in (*parts, journal)).splitlines()
        assert written[0].startswith(b"booted")
        assert written[1:] == [b"%015d" % number for number in range(5)]
        await hypervisor.close()


async def test_a_process_that_got_the_number_of_a_dead_one_is_not_ours(backend: QemuBackend) -> None:
    hypervisor = backend.hypervisor()
    await hypervisor.open()
    await hypervisor.create(Scene(backend).config(id=VM))
    info = await hypervisor.start(VM)
    await hypervisor.close()
    backend.kill(info)
    backend.reap(info)
    note = next((backend.config.run / "vm").glob("*/qemu.pid"))
    note.write_text(f"{os.getpid()} {note.read_text().split()[1]}\n")
    hypervisor, again = await found(backend)
    assert again is not None
    ours = {"power": PowerState.ON, "pid": info.pid, "plugged_nics": info.plugged_nics}
    assert dataclasses.replace(again, **ours) == info
    assert again.plugged_nics is None, "it does not run"
    assert again.power is PowerState.OFF
    await hypervisor.delete(VM)
    await hypervisor.close()
