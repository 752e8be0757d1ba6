"""A host of its own for system tests: a network namespace with a registry and a real VCH.

Everything runs inside the namespace (bridges, nftables, published ports), so
that tests neither see nor disturb the machine they run on, and two runs can
go side by side. Files lie below one temporary directory.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.system.terminal import Terminal

ROOT = Path(__file__).resolve().parent.parent.parent
GUEST = ROOT / "build" / "guest"
REGISTRY = "127.0.0.1:5000"
VIC_MACHINE = [sys.executable, "-m", "machine"]
Result = subprocess.CompletedProcess[str]


class Host:
    """A network namespace. Close it and everything started through it is gone."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory
        self._processes: list[subprocess.Popen[bytes]] = []
        run("ip", "netns", "add", name)
        self.run("ip", "link", "set", "lo", "up")

    def wrap(self, command: Sequence[str | Path]) -> list[str]:
        return ["ip", "netns", "exec", self.name, *map(str, command)]

    def run(self, *command: str | Path, check: bool = True, **options: Any) -> Result:
        return run(*self.wrap(command), check=check, **options)

    def spawn(self, *command: str | Path, log: Path, **options: Any) -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            process = subprocess.Popen(
                self.wrap(command), stdin=subprocess.DEVNULL, stdout=output, stderr=output, **options
            )
        self._processes.append(process)
        return process

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()
        run("ip", "netns", "delete", self.name)


@dataclass
class Docker:
    """The real docker CLI against one VCH."""

    host: Host
    socket: Path
    config: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("DOCKER_")}
        docker = {"DOCKER_HOST": f"unix://{self.socket}", "DOCKER_CONFIG": str(self.config)}
        path = f"{os.environ['PATH']}:{ROOT / '.cache/bin'}"
        return {**clean, **docker, "PATH": path, **self.environment}

    def __call__(
        self, *words: str | Path, check: bool = True, timeout: float = 180, **options: Any
    ) -> Result:
        """Run ``docker WORDS``; with ``check`` a failure shows both outputs."""
        result = self.host.run("docker", *words, check=False, env=self.env, timeout=timeout, **options)
        if check and result.returncode != 0:
            raise AssertionError(
                f"docker {' '.join(map(str, words))} gave {result.returncode}\n"
                f"stdout: {result.stdout}\nstderr: {result.stderr}"
            )
        return result

    def out(self, *words: str | Path, **options: Any) -> str:
        return self(*words, **options).stdout.strip()

    def json(self, *words: str | Path) -> Any:
        return json.loads(self(*words).stdout)

    def terminal(self, *words: str, rows: int = 24, columns: int = 80) -> Terminal:
        return Terminal(self.host.wrap(["docker", *words]), self.env, rows=rows, columns=columns)

    def popen(self, *words: str | Path, **options: Any) -> subprocess.Popen[bytes]:
        options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.Popen(self.host.wrap(["docker", *words]), env=self.env, **options)


class Vch:
    """A VCH made by vic-machine, with handles on its daemons for fault tests."""

    def __init__(self, host: Host, name: str, *options: str) -> None:
        self.host = host
        self.name = name
        self.places = ["--state-dir", str(host.directory / "state"), "--run-dir", f"/run/{host.name}"]
        created = host.run(
            *VIC_MACHINE,
            "create",
            "--json",
            "--name",
            name,
            "--guest",
            GUEST,
            *self.places,
            *options,
            check=False,
            cwd=ROOT,
            timeout=240,
        )
        assert created.returncode == 0, created.stderr
        self.info: dict[str, Any] = json.loads(created.stdout)
        self.root = Path(self.info["root"])
        self.socket = Path(self.info["docker_socket"])
        self.root_run = self.socket.parent
        config = host.directory / f"docker-{name}"
        config.mkdir(exist_ok=True)
        self.docker = Docker(host, self.socket, config)

    def machine(self, *words: str, check: bool = True) -> Result:
        return self.host.run(*VIC_MACHINE, *words, *self.places, check=check, cwd=ROOT, timeout=400)

    def process(self, module: str) -> int:
        """The process ID of the daemon ``python -m module`` of this VCH; 0 when there is none."""
        wanted = ["-m", module, "--config", str(self.root / "vch.json")]
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):
                    words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                    if words[1:5] == wanted:
                        return int(entry.name)
        return 0

    def kill(self, *modules: str) -> None:
        """kill -9 daemons and wait until the supervisor has brought them back and the API answers."""
        processes = [self.process(module) for module in modules]
        assert all(processes), dict(zip(modules, processes, strict=True))
        kill_and_wait(processes)
        self.machine("start", self.name)
        eventually(lambda: self.docker("version", check=False).returncode == 0, "the API answers again")

    def reboot(self) -> None:
        """What a power cut takes from a host: every process, /run, links and packet rules; then start."""
        daemons = [self.process(name) for name in ("machine.supervisor", "portlayer", "engine")]
        kill_and_wait([*daemons, *self.qemus()])
        shutil.rmtree(self.root_run)
        for link in json.loads(self.host.run("ip", "-json", "link").stdout):
            if link["ifname"] != "lo":
                self.host.run("ip", "link", "delete", link["ifname"])
        self.host.run("nft", "flush", "ruleset")
        self.machine("start", self.name)

    def qemu(self, container: str) -> int:
        """The process ID of the QEMU behind a container."""
        return int(self.docker.out("inspect", "--format", "{{.State.Pid}}", container))

    def qemus(self) -> list[int]:
        """Process IDs of all container VMs of this VCH."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):
                    words = (entry / "cmdline").read_bytes().decode(errors="replace")
                    if "qemu-system" in words.partition("\0")[0] and str(self.root) in words:
                        found.append(int(entry.name))
        return found

    def delete(self) -> None:
        deleted = self.machine("delete", self.name, "--force", check=False)
        assert deleted.returncode == 0, deleted.stderr


def kill_and_wait(processes: Sequence[int]) -> None:
    """kill -9, all at once; returns when the last has let go of everything it held."""
    descriptors = [os.pidfd_open(process) for process in processes]
    for descriptor in descriptors:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    for descriptor in descriptors:
        select.select([descriptor], [], [])
        os.close(descriptor)


def registry_in(host: Host) -> str:
    """Start Debian's docker-registry on the host's loopback; its address."""
    config = host.directory / "registry.yml"
    config.write_text(
        f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {host.directory / 'registry'}\n"
        f"http:\n  addr: {REGISTRY}\nlog:\n  level: warn\n"
    )
    host.spawn("docker-registry", "serve", config, log=host.directory / "registry.log")
    ping = [sys.executable, "-c", f"import urllib.request as r; r.urlopen('http://{REGISTRY}/v2/')"]
    eventually(lambda: host.run(*ping, check=False).returncode == 0, "the registry answers")
    return REGISTRY


def run(*command: str | Path, check: bool = True, timeout: float = 120, **options: Any) -> Result:
    options = {"capture_output": True, "text": True, **options}
    if "input" not in options:
        options.setdefault("stdin", subprocess.DEVNULL)
    result = subprocess.run([*map(str, command)], check=False, timeout=timeout, **options)
    if check and result.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: {result.returncode}\n{result.stderr}")
    return result


def eventually(condition: Any, what: str, *, seconds: float = 60) -> None:
    """Wait for an outside condition that nobody announces. The time-out is a safety net."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def footprint(host: Host, vch: Vch) -> dict[str, list[str]]:
    """What a container may leave behind: compared before and after a test."""
    root, runtime = str(vch.root), f"/run/{host.name}"
    processes = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if "qemu" in words and (root in words or runtime in words):
                    processes.append(words[:120])
    links = json.loads(host.run("ip", "-json", "link").stdout)
    loops = run("losetup", "--list", "--noheadings", "--output", "BACK-FILE").stdout.splitlines()
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    files = [
        str(path.relative_to(vch.root))
        for name in ("vms", "containers", "volumes")
        for path in (vch.root / name).glob("*")
    ]
    return {
        "processes": sorted(processes),
        "links": sorted(link["ifname"] for link in links),
        # What expires (who asked for names in the last minute) is the kernel's memory, not a rule.
        "nft": [
            line.strip()
            for line in host.run("nft", "list", "ruleset").stdout.splitlines()
            if " expires " not in line
        ],
        "loops": sorted(line for line in loops if root in line),
        "mounts": sorted(line for line in mounts if root in line),
        "files": sorted(files),
        "sockets": sorted(str(path) for path in Path(runtime).glob("*/vm/*")),
    }


@contextlib.contextmanager
def temporary_host(name: str, directory: Path) -> Iterator[Host]:
    host = Host(name, directory)
    try:
        yield host
    finally:
        host.close()
        shutil.rmtree(f"/run/{name}", ignore_errors=True)
