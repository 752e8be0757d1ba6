"""Several VCHs on one host, and the ways to reach one."""

from __future__ import annotations

import json
import sys

import pytest

from tests.system.harness import VIC_MACHINE, Docker, Host, Vch

pytestmark = pytest.mark.system


def test_two_hosts_do_not_see_each_other(vch: Vch, docker: Docker, host: Host) -> None:
    other = Vch(host, "other")
    archive = host.directory / "busybox.tar"
    try:
        assert other.docker.out("images", "-q") == ""
        other.docker("load", "--input", archive)
        other.docker("run", "--detach", "--name", "same", "busybox", "sleep", "1000")
        docker("run", "--detach", "--name", "same", "busybox", "sleep", "1000")
        assert other.docker.out("ps", "--quiet") != docker.out("ps", "--quiet")
        address = other.docker.out("inspect", "--format", "{{.NetworkSettings.IPAddress}}", "same")
        assert docker("exec", "same", "ping", "-c", "1", "-W", "2", address, check=False).returncode != 0
        names = {row["name"] for row in json.loads(host.run(*other_ls(other)).stdout)}
        assert names == {"main", "other"}
        busy = other.machine("delete", "other", check=False)
        assert (busy.returncode, "same" in busy.stderr) == (6, True)
        docker("rm", "--force", "same")
    finally:
        other.delete()
    assert vch.docker.out("ps", "--quiet", "--all") == ""


def other_ls(vch: Vch) -> list[str]:
    return [*VIC_MACHINE, "ls", "--json", *vch.places]


def test_tls_lets_in_whom_it_knows(vch: Vch, docker: Docker) -> None:
    environment = vch.info["environment"]
    tls = Docker(docker.host, docker.socket, docker.config, environment)
    assert tls.out("run", "--rm", "-i", "busybox", "cat", input="over TLS") == "over TLS"
    address = environment["DOCKER_HOST"].replace("tcp://", "https://")
    script = (
        "import ssl, urllib.request as r\n"
        f"try: r.urlopen('{address}/_ping', context=ssl._create_unverified_context())\n"
        "except Exception as error: print(error)\n"
    )
    refused = docker.host.run(sys.executable, "-c", script).stdout.lower()
    assert "certificate required" in refused


def test_a_client_speaks_its_own_version(vch: Vch, docker: Docker) -> None:
    for version in ("1.24", "1.41", "1.50"):
        old = Docker(docker.host, docker.socket, docker.config, {"DOCKER_API_VERSION": version})
        assert old.out("version", "--format", "{{.Client.APIVersion}}") == version
        assert old.out("run", "--rm", "busybox", "echo", version) == version
    new = Docker(docker.host, docker.socket, docker.config, {"DOCKER_API_VERSION": "1.99"})
    assert "is too new" in new("ps", check=False).stderr


def test_debug_writes_a_bundle(vch: Vch, host: Host) -> None:
    bundle = host.directory / "bundle.tar.gz"
    vch.machine("debug", vch.name, "--output", str(bundle))
    listing = host.run("tar", "-tzf", bundle).stdout
    assert f"{vch.name}/log/portlayer.log" in listing
    assert "key" not in listing
