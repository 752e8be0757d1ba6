"""testcontainers-python as people use it: a server, waited for, talked to, thrown away."""

import os
import urllib.request

os.environ["TESTCONTAINERS_RYUK_DISABLED"] = (
    "true"  # its reaper is an image of a registry that nobody has here
)

from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.waiting_utils import wait_for_logs

with Network() as network:
    server = (
        DockerContainer("busybox")
        .with_command(
            "sh -c 'mkdir /www; echo hello > /www/index.html; echo serving; exec httpd -f -p 8080 -h /www'"
        )
        .with_exposed_ports(8080)
        .with_env("A", "b")
        .with_network(network)
        .with_network_aliases("web")
    )
    with server:
        wait_for_logs(server, "serving", timeout=60)
        address = f"http://{server.get_container_host_ip()}:{server.get_exposed_port(8080)}/"
        with urllib.request.urlopen(address, timeout=30) as reply:
            assert reply.read() == b"hello\n"
        code, output = server.exec(["sh", "-c", "echo $A"])
        assert (code, output) == (0, b"b\n")
        assert server.get_logs()[0] == b"serving\n"
        with DockerContainer("busybox").with_command("sleep 600").with_network(network) as other:
            code, output = other.exec(["wget", "-q", "-O", "-", "http://web:8080/"])
            assert (code, output) == (0, b"hello\n"), output
print("ok")
