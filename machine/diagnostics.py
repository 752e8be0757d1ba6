"""The bundle ``vic-machine debug`` writes: what somebody far away needs to find a fault.

No keys, no journals, no disks: a bundle can be mailed. Logs are cut to their
last part so that it stays small.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import time
from pathlib import Path

from machine.local import docker_get
from vch import VchConfig

__all__ = ["write_bundle"]

TAIL = 1 << 20  # bytes of each log
COMMANDS = {
    "processes.txt": ["ps", "-eo", "pid,ppid,user,rss,etime,args"],
    "links.txt": ["ip", "-details", "address"],
    "routes.txt": ["ip", "route", "show", "table", "all"],
    "nft.txt": ["nft", "list", "ruleset"],
    "mounts.txt": ["findmnt"],
    "loops.txt": ["losetup", "--list"],
    "disk.txt": ["df", "-h"],
    "memory.txt": ["free", "-m"],
    "kernel.txt": ["uname", "-a"],
}
API = {"info.json": "/info", "containers.json": "/containers/json?all=1", "networks.json": "/networks"}


def write_bundle(config: VchConfig, target: Path) -> None:
    """Write a gzipped tar; whole or not at all."""
    temporary = target.with_name(f".new-{target.name}")
    with tarfile.open(temporary, "w:gz") as archive:

        def add(name: str, data: bytes) -> None:
            member = tarfile.TarInfo(f"{config.name}/{name}")
            member.size = len(data)
            member.mtime = int(time.time())
            archive.addfile(member, io.BytesIO(data))

        add("vch.json", config.paths.config.read_bytes())
        for name, endpoint in API.items():
            add(name, json.dumps(docker_get(config, endpoint), indent=2).encode())
        for name, command in COMMANDS.items():
            add(name, _output(command))
        for path in sorted(config.paths.log.glob("*.log")):
            add(f"log/{path.name}", _tail(path))
        for path in sorted(config.paths.vms.glob("*/console.log")):
            add(f"vms/{path.parent.name}/console.log", _tail(path))
    temporary.rename(target)


def _output(command: list[str]) -> bytes:
    try:
        result = subprocess.run(command, capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{command[0]}: {error}\n".encode()
    return result.stdout + result.stderr


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        return file.read()
