"""Debian's dockerd + containerd + runc, unpacked from their packages and run beside us.

Not installed: the packages would start a daemon of their own and change the
host's firewall. It runs in the bench's network namespace on scratch
directories, and is gone afterwards.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.system.harness import ROOT, Docker, Host, eventually, run

PACKAGES = "docker.io containerd runc iptables libnftnl11 libip6tc2 libxtables12 libnfnetlink0 tini".split()
CACHE = ROOT / ".cache" / "dockerd"


def unpack() -> Path:
    """The directory holding the unpacked packages; downloaded once."""
    root = CACHE / "root"
    if not root.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        for package in PACKAGES:
            run("apt-get", "-qq", "download", package, cwd=CACHE)
        temporary = CACHE / ".new-root"
        for path in sorted(CACHE.glob("*.deb")):
            run("dpkg-deb", "-x", path, temporary)
        temporary.rename(root)
    return root


@contextlib.contextmanager
def dockerd(host: Host, registry: str) -> Iterator[Docker]:
    """A running dockerd that may pull from ``registry`` without TLS."""
    root = unpack()
    directory = host.directory / "dockerd"
    directory.mkdir()
    socket = directory / "docker.sock"
    environment = {**os.environ, "PATH": f"{root}/usr/sbin:{root}/usr/bin:{os.environ['PATH']}"}
    # nsenter and not `ip netns exec`: dockerd wants to see the host's cgroups below /sys.
    command = ["nsenter", f"--net=/run/netns/{host.name}", str(root / "usr/sbin/dockerd")]
    command += ["--data-root", str(directory / "data"), "--exec-root", str(directory / "exec")]
    command += ["--pidfile", str(directory / "pid"), "--host", f"unix://{socket}"]
    command += ["--insecure-registry", registry, "--bip", "10.250.0.1/24"]
    command += ["--registry-mirror", f"http://{registry}"]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
    config = directory / "config"
    config.mkdir()
    docker = Docker(host, socket, config)
    try:
        eventually(lambda: docker("version", check=False).returncode == 0, "dockerd answers")
        yield docker
    finally:
        process.terminate()
        process.wait(30)
