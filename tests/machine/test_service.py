"""The systemd unit of a VCH, with a systemctl that writes down what it is asked."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from machine.errors import MachineError
from machine.places import Places
from machine.service import install, remove, unit
from tests.machine.test_machine import config


@dataclass
class Systemd:
    root: Path

    @property
    def asked(self) -> list[str]:
        return (self.root / "asked").read_text().splitlines()

    @property
    def places(self) -> dict[str, Path]:
        return {"units": self.root / "units", "booted": self.root / "booted"}

    def refuse(self, word: str) -> None:
        (self.root / "refused").write_text(word)


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Systemd:
    for name in ("units", "booted", "bin"):
        (tmp_path / name).mkdir()
    program = tmp_path / "bin/systemctl"
    program.write_text(
        f'#!/bin/sh\necho "$*" >>{tmp_path}/asked\n'
        f'if [ "$(cat {tmp_path}/refused 2>/dev/null)" = "$1" ]; then echo no >&2; exit 1; fi\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    return Systemd(tmp_path)


def places(root: Path) -> Places:
    return Places(state=root / "a state", run=root / "100%")


def test_install_and_remove(systemd: Systemd, tmp_path: Path) -> None:
    path = install(config(tmp_path), places(tmp_path), **systemd.places)
    assert path == tmp_path / "units/mooring-a.service"
    assert systemd.asked == ["daemon-reload", "enable mooring-a.service"]
    assert remove("a", **systemd.places)
    assert systemd.asked[2:] == ["disable mooring-a.service", "daemon-reload"]
    assert not path.exists()
    assert not remove("a", **systemd.places)


def test_words_are_quoted_for_systemd(tmp_path: Path) -> None:
    text = unit(config(tmp_path), places(tmp_path))
    start = next(line for line in text.splitlines() if line.startswith("ExecStart="))
    assert f'"start" "--state-dir" "{tmp_path}/a state" "--run-dir" "{tmp_path}/100%%" "a"' in start


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    path = tmp_path / "mooring-a.service"
    path.write_text(unit(config(tmp_path), places(tmp_path)))
    done = subprocess.run(
        ["systemd-analyze", "verify", path], capture_output=True, text=True, check=False, timeout=60
    )
    assert [line for line in done.stderr.splitlines() if "mooring-a" in line] == []


def test_another_init_is_named_as_the_reason(systemd: Systemd, tmp_path: Path) -> None:
    (tmp_path / "booted").rmdir()
    with pytest.raises(MachineError, match="systemd does not run this host"):
        install(config(tmp_path), places(tmp_path), **systemd.places)
    assert list((tmp_path / "units").iterdir()) == []


def test_a_refusal_leaves_no_unit(systemd: Systemd, tmp_path: Path) -> None:
    systemd.refuse("enable")
    with pytest.raises(MachineError, match=r"systemctl enable mooring-a\.service failed: no"):
        install(config(tmp_path), places(tmp_path), **systemd.places)
    assert list((tmp_path / "units").iterdir()) == []
