"""The verdict about KVM is asked for once, and forgotten when what it rests on changes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from portlayer.hypervisor.base import HypervisorError
from portlayer.hypervisor.qemu import accelerator
from portlayer.hypervisor.qemu.accelerator import Accelerator
from portlayer.hypervisor.qemu.process import Credentials


class Bench:
    """A host whose KVM works or not, and which counts the probes."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.failure = ""
        self.probes = 0
        self.directory = directory
        self.kernel = directory / "kernel"
        self.kernel.write_bytes(b"kernel")
        self.device = directory / "kvm"
        self.device.touch()
        monkeypatch.setattr(accelerator, "DEVICE", self.device)
        monkeypatch.setattr(accelerator, "boot_probe", self._probe)

    async def _probe(self, binary: str, kernel: Path, credentials: Credentials) -> str:
        self.probes += 1
        await asyncio.sleep(0)
        return self.failure

    def make(self, wanted: str = "auto", *, version: str = "7.2", uid: int = 100) -> Accelerator:
        return Accelerator(
            wanted,
            binary="qemu",
            version=version,
            kernel=self.kernel,
            credentials=Credentials(uid=uid, gid=100),
            verdict=self.directory / "accelerator.json",
        )


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


async def test_a_guest_that_boots_means_kvm(bench: Bench) -> None:
    assert await bench.make().choose() == "kvm"


async def test_one_that_does_not_means_tcg_and_says_why(bench: Bench) -> None:
    bench.failure = "no guest came up in 20 s: not a word"
    assert await bench.make().choose() == "tcg"
    assert json.loads((bench.directory / "accelerator.json").read_text())["reason"] == bench.failure


async def test_concurrent_callers_probe_once(bench: Bench) -> None:
    first, second = bench.make(), bench.make()  # two processes share nothing but the file
    assert set(await asyncio.gather(*(a.choose() for a in (first, first, second, second)))) == {"kvm"}
    assert bench.probes == 1


async def test_the_verdict_outlives_us(bench: Bench) -> None:
    await bench.make().choose()
    bench.failure = "would fail now"
    assert await bench.make().choose() == "kvm"
    assert bench.probes == 1


@pytest.mark.parametrize("change", ["kernel", "version", "user", "device", "damage"])
async def test_it_is_asked_again_when_its_ground_changes(bench: Bench, change: str) -> None:
    await bench.make().choose()
    bench.failure = "no"
    words: dict[str, object] = {}
    match change:
        case "kernel":
            bench.kernel.write_bytes(b"another kernel")
        case "version":
            words["version"] = "8.0"
        case "user":
            words["uid"] = 101
        case "device":
            bench.device.chmod(0o600)
        case "damage":
            (bench.directory / "accelerator.json").write_text('{"key"')
    assert await bench.make(**words).choose() == "tcg"  # type: ignore[arg-type]
    assert bench.probes == 2


async def test_without_the_device_nobody_is_asked(bench: Bench) -> None:
    bench.device.unlink()
    assert await bench.make().choose() == "tcg"
    assert bench.probes == 0


@pytest.mark.parametrize("wanted", ["kvm", "tcg"])
async def test_an_order_is_an_order(bench: Bench, wanted: str) -> None:
    bench.failure = "no"
    assert await bench.make(wanted).choose() == wanted
    assert bench.probes == 0


def test_an_unknown_wish_is_refused(bench: Bench) -> None:
    with pytest.raises(HypervisorError, match="hvf"):
        bench.make("hvf")
