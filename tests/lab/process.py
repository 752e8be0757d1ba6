"""A lab of a test's own: the process, its control API, and what it must not leave behind."""

from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent


def build() -> Path:
    """The lab's binary, compiled if its sources have changed. LAB_BINARY names another one (built with -race)."""
    if given := os.environ.get("LAB_BINARY"):
        return Path(given)
    result = subprocess.run([ROOT / "tools/lab.sh"], stdout=subprocess.PIPE, text=True, check=True)
    return Path(result.stdout.strip())


class LabProcess:
    """A running lab; ``ready`` is the line that it printed.

    ``prefix`` goes before the command: ``ip netns exec …`` for a lab that boots VMs.
    """

    def __init__(self, directory: Path, *options: str, prefix: Sequence[str] = ()) -> None:
        self.directory = directory
        self.log = directory / "lab.log"
        directory.mkdir(parents=True, exist_ok=True)
        command = [
            *prefix,
            str(build()),
            "-listen",
            "127.0.0.1:0",
            "-directory",
            str(directory / "runs"),
            *options,
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            raise AssertionError(f"the lab does not start: {self.log.read_text()}")
        self.ready: dict[str, Any] = json.loads(line)

    @property
    def port(self) -> int:
        return int(self.ready["url"].rsplit(":", 1)[1])

    @property
    def datastore(self) -> Path:
        return Path(self.ready["datastores"]["LocalDS_0"])

    def control(self, method: str, path: str, body: Any = None) -> Any:
        """One call of the control API."""
        credentials = f"{self.ready['user']}:{self.ready['password']}".encode()
        request = urllib.request.Request(
            f"{self.ready['url']}/lab/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": "Basic " + base64.b64encode(credentials).decode()},
        )
        with urllib.request.urlopen(request, context=insecure(), timeout=60) as answer:
            return json.load(answer)

    def fault(self, **rule: Any) -> None:
        self.control("POST", "faults", rule)

    def state(self) -> Any:
        return self.control("GET", "state")

    def vm(self, name: str) -> Any:
        return next(vm for vm in self.state()["vms"] if vm["name"] == name)

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
        assert self.leftovers() == []

    def leftovers(self) -> list[str]:
        """Run directories and QEMU processes of this lab that are still there."""
        runs = self.directory / "runs"
        left = [str(path) for path in runs.iterdir()] if runs.exists() else []
        return left + processes_naming(str(runs))


def processes_naming(word: str) -> list[str]:
    """Command lines of QEMU processes in which the word occurs."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                words = Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if words.startswith("qemu-system") and word in words:
                found.append(words)
    return found


def insecure() -> ssl.SSLContext:
    """The lab's certificate is the one of Go's test server."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
