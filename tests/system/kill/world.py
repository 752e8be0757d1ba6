"""A VCH whose daemons are killed hundreds of times, and everything of it that can be looked at.

The port layer and the engine are the real ones, started by the
:mod:`~tests.system.kill.zygote` in place of the supervisor; clients come over the
Docker API as ever.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import docker.errors
import requests.exceptions
import urllib3.exceptions

from tests.system.harness import GUEST, ROOT, Host, eventually, footprint
from tests.system.kill.steps import Steps
from vch.config import Defaults, Guest, Registry, Tls, TlsMode, VchConfig

__all__ = ["World"]

#: What a client gets when a daemon dies under its call.
CUT_SHORT = (docker.errors.APIError, requests.exceptions.RequestException, urllib3.exceptions.HTTPError)
_ANONYMOUS = re.compile(r"[0-9a-f]{64}")


class World:
    def __init__(self, host: Host, registry: str) -> None:
        self.host = host
        self.root = host.directory / "vch"
        self.root.mkdir(mode=0o711)
        self.config = VchConfig(
            name="kill",
            id="5" * 32,
            root=self.root,
            run=Path(f"/run/{host.name}"),
            guest=Guest(kernel=GUEST / "kernel", initrd=GUEST / "initrd"),
            bridge_range="172.29.0.0/16",
            volume_stores={"default": self.root / "volumes" / "default"},
            qemu_user="nobody",
            docker_group="root",
            tls=Tls(mode=TlsMode.NONE),
            defaults=Defaults(memory_mib=128, disk_bytes=256 << 20),
            registry=Registry(insecure=(registry,), mirrors=(f"http://{registry}",)),
        )
        self.config.run.mkdir(mode=0o711, exist_ok=True)
        self.config.save(self.config.paths.config)
        self.steps = Steps(host.directory)
        self._pids: dict[str, int] = {}
        words = ["-m", "tests.system.kill.zygote", host.directory, self.config.paths.config]
        with (host.directory / "zygote.log").open("wb") as log:
            self._zygote = subprocess.Popen(
                host.wrap([sys.executable, *words]),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=ROOT, text=True,
            )  # fmt: skip
        self.client = docker.APIClient(base_url=f"unix://{self.config.paths.docker_socket}", version="1.47")

    # -- the daemons
    def start(self, *names: str) -> None:
        for name in names:
            self._pids[name] = int(self._ask(name))

    def kill(self, *names: str) -> None:
        """kill -9, and what a killed process leaves on a host: its sockets' names."""
        for name in names:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pids[name], signal.SIGKILL)
        for name in names:
            self.reap(name)

    def reap(self, name: str) -> int:
        """Wait until the daemon is dead; what killed it."""
        return os.waitstatus_to_exitcode(int(self._ask(f"reap {self._pids.pop(name)}")))

    def pid(self, name: str) -> int:
        return self._pids[name]

    def dead(self, name: str) -> bool:
        state = Path(f"/proc/{self._pids[name]}/stat").read_text().rpartition(")")[2].split()[0]
        return state == "Z"

    def serving(self) -> bool:
        """Whether the port layer takes calls: its recovery is over."""
        with socket.socket(socket.AF_UNIX) as peer:
            return peer.connect_ex(str(self.config.paths.portlayer_socket)) == 0

    def wait_ready(self) -> None:
        eventually(self._answers, "the API answers")

    def close(self) -> None:
        for name in list(self._pids):
            self.kill(name)
        self.host.run(
            sys.executable, "-m", "portlayer", "--config", self.config.paths.config, "--purge", cwd=ROOT
        )
        assert self._zygote.stdin is not None
        self._zygote.stdin.close()
        self._zygote.wait(30)

    def log(self, name: str) -> str:
        return (self.host.directory / f"{name}.log").read_text(errors="replace")

    def _ask(self, line: str) -> str:
        assert self._zygote.stdin is not None
        assert self._zygote.stdout is not None
        self._zygote.stdin.write(f"{line}\n")
        self._zygote.stdin.flush()
        answer = self._zygote.stdout.readline()
        assert answer, (self.host.directory / "zygote.log").read_text()
        return answer

    def _answers(self) -> bool:
        assert not any(self.dead(name) for name in self._pids), self.log("portlayer")[-4000:]
        with contextlib.suppress(*CUT_SHORT):
            self.client.containers(all=True)
            return True
        return False

    # -- what a client sees
    def seen(self) -> dict[str, Any]:
        containers = {}
        for summary in self.client.containers(all=True):
            inspected = self.client.inspect_container(summary["Id"])
            containers[inspected["Name"]] = {
                "status": inspected["State"]["Status"],
                "code": inspected["State"]["ExitCode"],
                "networks": sorted(inspected["NetworkSettings"]["Networks"]),
                "mounts": sorted(mount["Destination"] for mount in inspected["Mounts"]),
                "policy": inspected["HostConfig"]["RestartPolicy"]["Name"],
            }
        images = {
            tag: image["Id"] for image in self.client.images() for tag in image["RepoTags"] or [image["Id"]]
        }
        volumes = self.client.volumes()["Volumes"] or []
        return {
            "containers": containers,
            "images": images,
            "volumes": sorted(_ANONYMOUS.sub("anonymous", volume["Name"]) for volume in volumes),
            "networks": sorted(network["Name"] for network in self.client.networks()),
        }

    # -- what lies on the host
    def left(self) -> dict[str, Any]:
        """Everything a kill could leave behind, without names that are new each time."""
        found: dict[str, Any] = {}
        for place in ("vms", "containers", "layers", "volumes/default", "networks", "kv", "spool"):
            names = [path.name for path in (self.root / place).glob("*")]
            half_made = [name for name in names if name.startswith(".") and name != ".work"]
            found[place] = (len(names), half_made)
        for path in (self.root / "vms").glob("*/*"):
            assert not path.name.startswith("."), path
        print_ = footprint_of(self.host, self.root)
        found |= {
            "runs": len(list((self.config.run / "vm").glob("*"))),
            "processes": len(print_["processes"]),
            "links": len(print_["links"]),
            "rules": _anonymous_rules(print_["nft"]),
            "loops": print_["loops"],
            "mounts": print_["mounts"],
        }
        return found

    def settled(self, legal: Callable[[], str]) -> None:
        """Wait until ``legal`` gives no complaint; what is swept in the background has its time."""
        complaint = ""

        def fine() -> bool:
            nonlocal complaint
            complaint = legal()
            return not complaint

        try:
            eventually(fine, "a legal state", seconds=15)
        except AssertionError:
            raise AssertionError(complaint) from None


def footprint_of(host: Host, root: Path) -> dict[str, list[str]]:
    class _Vch:  # the part of a VCH that footprint() looks at
        pass

    vch: Any = _Vch()
    vch.root = root
    return footprint(host, vch)


_NAMES = re.compile(r"[0-9a-f]{8,}|\d+\.\d+\.\d+\.\d+|(?<=m[rt])[0-9a-f]+|\d+")


def _anonymous_rules(lines: list[str]) -> list[str]:
    return sorted(_NAMES.sub("…", line) for line in lines)


def dump(value: Any) -> str:
    return json.dumps(value, indent=1, default=str, sort_keys=True)
