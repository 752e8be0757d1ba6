"""What a QEMU that its guest has taken over could reach."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from portlayer.hypervisor.qemu.accelerator import boot_probe
from portlayer.hypervisor.qemu.process import Credentials
from tests.contract.backend import QemuBackend
from tests.contract.scene import Scene

pytestmark = [
    pytest.mark.system,
    pytest.mark.parametrize("backend", ["qemu-fast", "qemu-vsphere"], indirect=True),
]
TCG = ("-accel", "tcg", "-cpu", "max")
NOBODY = Credentials(uid=65534, gid=65534)


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


async def test_it_is_nobody_without_rights(scene: Scene, backend: QemuBackend) -> None:
    vm = (await scene.create(boot_config=b"secret", disks=(backend.disk("d"),))).config.id
    pid = (await scene.hypervisor.start(vm)).pid
    seen = status(pid)
    assert seen["Uid"].split() == seen["Gid"].split() == ["65534"] * 4
    assert len(seen["Groups"].split()) <= 1, "kvm at most"
    assert int(seen["CapEff"], 16) == int(seen["CapPrm"], 16) == int(seen["CapInh"], 16) == 0
    assert (seen["NoNewPrivs"], seen["Seccomp"]) == ("1", "2")
    assert os.getsid(pid) == pid
    assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "200"


async def test_it_holds_open_its_own_files_and_nothing_of_ours(scene: Scene, backend: QemuBackend) -> None:
    first, second = [
        (await scene.create(boot_config=b"secret", disks=(backend.disk(name),))).config.id for name in "ab"
    ]
    await scene.hypervisor.start(first)
    pid = (await scene.hypervisor.start(second)).pid
    targets = {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()}
    files = {Path(target).name for target in targets if target.startswith(str(backend.directory))}
    assert files <= {"b.vmdk", "journal", "console.log", "qemu.log", "lock", "boot.bin", "test.iso"}
    assert not any(first in target or first[:16] in target for target in targets)


async def test_its_secrets_are_not_on_its_command_line(scene: Scene) -> None:
    vm = (
        await scene.create(boot_config=b"PASSWORD=hunter2", extra={"x": b"hunter2"}, name="hunter2")
    ).config.id
    pid = (await scene.hypervisor.start(vm)).pid
    assert b"hunter2" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert b"hunter2" not in Path(f"/proc/{pid}/environ").read_bytes()


async def test_nobody_else_reads_the_boot_config(scene: Scene, backend: QemuBackend) -> None:
    vm = (await scene.create(boot_config=b"secret")).config.id
    await scene.hypervisor.start(vm)
    directory = scene.hypervisor.journal(vm).parent
    for name in ("config.json", "boot.bin", "journal"):
        process = await asyncio.create_subprocess_exec(
            *("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", "cat", str(directory / name)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert (await process.communicate())[0] == b""
        assert process.returncode != 0


async def test_the_probe_guest_boots(backend: QemuBackend) -> None:
    """Under emulation; that it says the truth about KVM rests on the same boot."""
    kernel = backend.config.guest.kernel
    assert await boot_probe("qemu-system-x86_64", kernel, NOBODY, processor=TCG, time_limit=60) == ""


async def test_a_guest_that_hangs_is_waited_for_so_long(backend: QemuBackend) -> None:
    kernel = backend.config.guest.kernel
    failure = await boot_probe("qemu-system-x86_64", kernel, NOBODY, processor=(*TCG, "-S"), time_limit=1)
    assert failure == "no guest came up in 1 s: not a word"


async def test_a_broken_accelerator_is_quoted(backend: QemuBackend) -> None:
    kernel = backend.config.guest.kernel
    failure = await boot_probe("qemu-system-x86_64", kernel, NOBODY, processor=("-accel", "none-such"))
    assert "none-such" in failure
