"""A VCH that comes back by itself after a reboot: one systemd unit for each VCH that wants it.

The unit does what `vic-machine start` and `stop` do, so it makes no difference
who started a VCH. Its processes are left alone when it stops (``KillMode``):
container VMs outlive their daemons. Restart policies then decide which
containers run again.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from machine.errors import MachineError
from machine.places import Places
from vch import VchConfig

__all__ = ["BOOTED", "UNITS", "install", "remove", "unit", "unit_name"]

UNITS = Path("/etc/systemd/system")
BOOTED = Path("/run/systemd/system")  # there when systemd is PID 1: sd_booted(3)


def unit_name(name: str) -> str:
    return f"mooring-{name}.service"


def unit(config: VchConfig, places: Places) -> str:
    """The text of the unit file."""
    words = [sys.executable, "-m", "machine"]
    where = ["--state-dir", str(places.state), "--run-dir", str(places.run), config.name]
    source = Path(__file__).resolve().parent.parent
    return f"""# Written by `vic-machine service {config.name}`; removed with the VCH.
[Unit]
Description=Mooring virtual container host {config.name}
Wants=network-online.target
After=network-online.target nftables.service local-fs.target
RequiresMountsFor={_quoted(config.root)}

[Service]
Type=oneshot
RemainAfterExit=yes
KillMode=process
Environment={_quoted(f"PYTHONPATH={source}")}
ExecStart={_command([*words, "start", *where])}
ExecStop={_command([*words, "stop", *where])}
TimeoutStartSec=180

[Install]
WantedBy=multi-user.target
"""


def install(config: VchConfig, places: Places, *, units: Path = UNITS, booted: Path = BOOTED) -> Path:
    """Write the unit and enable it; the path. A running VCH runs on.

    Raises:
        MachineError: systemd is not what runs this host, or refuses the unit; then there is none.
    """
    if not booted.is_dir():
        raise MachineError(
            "systemd does not run this host: let what starts its services call"
            f" `vic-machine start {config.name}`"
        )
    path = units / unit_name(config.name)
    path.write_text(unit(config, places))
    try:
        _systemctl("daemon-reload")
        _systemctl("enable", path.name)
    except MachineError:
        path.unlink()
        raise
    return path


def remove(name: str, *, units: Path = UNITS, booted: Path = BOOTED) -> bool:
    """Disable and remove the unit; False when there is none."""
    path = units / unit_name(name)
    if not path.exists():
        return False
    if booted.is_dir():
        _systemctl("disable", path.name)
    path.unlink(missing_ok=True)
    if booted.is_dir():
        _systemctl("daemon-reload")
    return True


def _systemctl(*words: str) -> None:
    result = subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise MachineError(f"systemctl {' '.join(words)} failed: {result.stderr.strip()}")


def _command(words: list[str]) -> str:
    return " ".join(_quoted(word) for word in words)


def _quoted(value: str | Path) -> str:
    """One word of a unit file: systemd.syntax(7) and specifiers of systemd.unit(5)."""
    text = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text.replace("$", "$$")}"'
