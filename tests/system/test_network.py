"""Networks: names, addresses, published ports, isolation."""

from __future__ import annotations

import json
import socket
import sys

import pytest

from tests.system.harness import Docker, Host, eventually

pytestmark = pytest.mark.system
# timeout(1) around wget: its own option -T makes Debian's busybox crash
SERVE = "while :; do echo -e 'HTTP/1.0 200 OK\\r\\n\\r\\nhi' | nc -l -p 80 >/dev/null; done"


def fetch(host: Host, url: str) -> str:
    script = f"import urllib.request as r; print(r.urlopen({url!r}, timeout=10).read().decode())"
    return host.run(sys.executable, "-c", script, check=False).stdout.strip()


def test_a_published_port(docker: Docker, host: Host) -> None:
    docker("run", "--detach", "--name", "web", "--publish", "8080:80", "busybox", "sh", "-c", SERVE)
    eventually(lambda: fetch(host, "http://127.0.0.1:8080/") == "hi", "the port answers on localhost")
    assert docker.out("port", "web").splitlines()[0] == "80/tcp -> 0.0.0.0:8080"
    docker("rm", "--force", "web")
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", 8080)) != 0


def test_names_on_a_network_of_ones_own(docker: Docker) -> None:
    """Names, aliases, short IDs, --ip, --mac-address, and isolation from other networks."""
    docker("network", "create", "--subnet", "172.31.77.0/24", "n1")
    docker("network", "create", "n2")
    docker("run", "--detach", "--name", "db", "--network", "n1", "--network-alias", "store",
           "--ip", "172.31.77.50", "--mac-address", "02:42:ac:1f:4d:32", "busybox", "sh", "-c", SERVE)  # fmt: skip
    script = "wget -qO- http://db/; wget -qO- http://store/; nslookup store | tail -3; ip -o link show eth0"
    seen = docker.out("run", "--rm", "--network", "n1", "busybox", "sh", "-c", script)
    assert seen.startswith("hi\nhi")
    assert "172.31.77.50" in seen
    link = docker.out("exec", "db", "ip", "-o", "link", "show", "eth0")
    assert "02:42:ac:1f:4d:32" in link
    # through a shell: as PID 1 wget would not hear timeout's SIGTERM
    reach = "timeout 4 wget -qO- http://172.31.77.50/ || exit 1"
    other = docker("run", "--rm", "--network", "n2", "busybox", "sh", "-c", reach, check=False)
    assert other.returncode != 0
    assert docker("run", "--rm", "--network", "n2", "busybox", "nslookup", "db", check=False).returncode != 0
    docker("rm", "--force", "db")
    docker("network", "rm", "n1", "n2")


def test_connect_and_disconnect_while_running(docker: Docker) -> None:
    docker("network", "create", "late")
    docker("run", "--detach", "--name", "srv", "--network", "late", "busybox", "sh", "-c", SERVE)
    docker("run", "--detach", "--name", "cli", "busybox", "sleep", "1000")
    assert docker("exec", "cli", "timeout", "4", "wget", "-qO-", "http://srv/", check=False).returncode != 0
    docker("network", "connect", "late", "cli")
    assert docker.out("exec", "cli", "timeout", "10", "wget", "-qO-", "http://srv/") == "hi"
    networks = json.loads(docker.out("inspect", "-f", "{{json .NetworkSettings.Networks}}", "cli"))
    assert set(networks) == {"bridge", "late"}
    docker("network", "disconnect", "late", "cli")
    assert docker("exec", "cli", "timeout", "4", "wget", "-qO-", "http://srv/", check=False).returncode != 0
    docker("rm", "--force", "srv", "cli")
    docker("network", "rm", "late")


def test_internal_and_none(docker: Docker) -> None:
    docker("network", "create", "--internal", "inside")
    routes = docker.out("run", "--rm", "--network", "inside", "busybox", "ip", "route")
    assert "default" not in routes
    links = docker.out("run", "--rm", "--network", "none", "busybox", "ip", "-o", "link")
    assert "eth0" not in links
    docker("network", "rm", "inside")


def test_ipv6(docker: Docker) -> None:
    docker("network", "create", "--ipv6", "--subnet", "fd00:77::/64", "six")
    docker(
        "run",
        "--detach",
        "--name",
        "v6",
        "--network",
        "six",
        "--ip6",
        "fd00:77::50",
        "busybox",
        "sleep",
        "1000",
    )
    pinged = docker(
        "run", "--rm", "--network", "six", "busybox", "ping", "-6", "-c", "1", "-W", "5", "fd00:77::50"
    )
    assert "1 packets received" in pinged.stdout
    docker("rm", "--force", "v6")
    docker("network", "rm", "six")


def test_links(docker: Docker) -> None:
    docker("run", "--detach", "--name", "target", "busybox", "sh", "-c", SERVE)
    seen = docker.out("run", "--rm", "--link", "target:nick", "busybox", "sh", "-c", "wget -qO- http://nick/")
    assert seen == "hi"
    docker("rm", "--force", "target")


def test_an_address_in_use_is_refused_and_comes_back(docker: Docker) -> None:
    docker("network", "create", "--subnet", "172.31.78.0/24", "tight")
    wanted = ("--network", "tight", "--ip", "172.31.78.9", "busybox", "sleep", "1000")
    docker("run", "--detach", "--name", "holder", *wanted)
    docker("create", "--name", "second", *wanted)  # as in Docker: only running containers hold it
    second = docker("start", "second", check=False)
    assert second.returncode != 0
    assert "Address already in use" in second.stderr
    docker("rm", "--force", "holder", "second")
    docker("run", "--rm", "--network", "tight", "--ip", "172.31.78.9", "busybox", "true")
    docker("network", "rm", "tight")


def test_a_port_in_use_is_refused(docker: Docker) -> None:
    docker("run", "--detach", "--name", "p1", "--publish", "8081:80", "busybox", "sleep", "1000")
    second = docker("run", "--name", "p2", "--publish", "8081:80", "busybox", "true", check=False)
    assert second.returncode == 125
    assert "port is already allocated" in second.stderr
    docker("rm", "--force", "p1", "p2")
