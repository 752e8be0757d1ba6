"""Real packets through real taps, bridges and rules."""

import pytest

from portlayer.portlayer_pb2 import PortBinding
from tests.system.network.lab import HOST4, HOST6, OUTSIDE4, Lab

pytestmark = pytest.mark.system


def tcp(port: int, container_port: int = 80, host_ip: str = "") -> PortBinding:
    return PortBinding(container_port=container_port, protocol="tcp", host_port=port, host_ip=host_ip)


async def test_containers_of_one_network_reach_each_other_by_name(lab: Lab) -> None:
    vch = await lab.vch().open()
    await vch.network("front")
    web = await vch.container("web", "front")
    client = await vch.container("client", "front")
    web.serve(80)
    assert (await client.resolve(client.nameserver, "web")) == [vch.address("web")]
    assert (await client.ask(vch.address("web"), 80)) == f"{web.name} sees {vch.address('client')}"
    await vch.manager.close()


@pytest.mark.parametrize("bridge_netfilter", ["0", "1"])
async def test_a_published_port_is_reached_from_everywhere(lab: Lab, bridge_netfilter: str) -> None:
    lab.host.run("sysctl", "-qw", f"net.bridge.bridge-nf-call-iptables={bridge_netfilter}")
    lab.host.run("sysctl", "-qw", f"net.bridge.bridge-nf-call-ip6tables={bridge_netfilter}")
    vch = await lab.vch().open()
    await vch.network("front", ipv6=True)
    await vch.network("back")
    web = await vch.container("web", "front", ports=[tcp(8080)])
    neighbour = await vch.container("neighbour", "front")
    stranger = await vch.container("stranger", "back")
    web.serve(80)
    gateway = vch.attachments["web"].endpoints[0].gateway_ipv4
    assert (await lab.outside.ask(HOST4, 8080)) == f"{web.name} sees {OUTSIDE4}"
    assert (await lab.outside.ask(HOST6, 8080)).startswith(f"{web.name} sees 2001:db8:51::2")
    assert (await lab.host.ask("127.0.0.1", 8080)) == f"{web.name} sees {gateway}"
    assert (await lab.host.ask(HOST4, 8080)).startswith(f"{web.name} sees ")
    assert (await neighbour.ask(HOST4, 8080)) == f"{web.name} sees {gateway}"
    assert (await web.ask(HOST4, 8080)) == f"{web.name} sees {gateway}"
    assert (await web.ask(HOST6, 8080)).startswith(f"{web.name} sees fd")
    assert (await web.ask(gateway, 8080)) == f"{web.name} sees {gateway}"
    assert (await stranger.ask(HOST4, 8080)).startswith(f"{web.name} sees ")
    assert (await lab.host.ask("::1", 8080)) == "refused"
    await vch.manager.close()
