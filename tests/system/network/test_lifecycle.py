"""Lives of the port layer: closing, kill -9 at every step, strays, neighbours on the host, nothing left."""

import asyncio
import errno
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from portlayer.errors import PortLayerError
from portlayer.network import Attachment
from portlayer.network.nft import table_name
from portlayer.network.purge import purge
from portlayer.portlayer_pb2 import Endpoint, Network, PortBinding, Reason
from tests.system.network import victim
from tests.system.network.lab import HOST4, ROOT, Lab, Vch

pytestmark = pytest.mark.system


def tcp(port: int) -> PortBinding:
    return PortBinding(container_port=80, protocol="tcp", host_port=port)


async def test_traffic_flows_on_while_nobody_manages_and_a_new_life_takes_over(lab: Lab, tenant: Vch) -> None:
    await tenant.network("front", ipv6=True)
    web, client = (
        await tenant.container("web", "front", ports=[tcp(8080)]),
        await tenant.container("c", "front"),
    )
    web.serve(80)
    await tenant.manager.close()
    assert (await client.ask(tenant.address("web"), 80)).startswith(web.name)
    assert (await lab.outside.ask(HOST4, 8080)).startswith(web.name)
    rules = lab.rules()
    networks = tenant.manager.list()
    await tenant.reopen()
    assert tenant.manager.list() == networks
    assert lab.rules() == rules
    assert (await client.ask(tenant.address("web", 6), 80)).startswith(web.name)
    assert await client.resolve(client.nameserver, "web") == [tenant.address("web")]
    assert await client.resolve(client.nameserver, "web", "AAAA") == [tenant.address("web", 6)]
    with pytest.raises(PortLayerError) as caught:
        tenant.manager.reserve_ports("x" * 64, [tcp(8080)])
    assert caught.value.reason == Reason.PORT_IN_USE
    network = tenant.network_id("front")
    fresh = tenant.manager.allocate("x" * 64, "x", Endpoint(network=network))
    assert fresh.assigned_ipv4.partition("/")[0] not in (tenant.address("web"), tenant.address("c"))


async def test_plugging_again_after_a_restart_keeps_taps_and_interface_names(tenant: Vch) -> None:
    for name in ("a", "b", "c"):
        await tenant.network(name)
    await tenant.container("web", "a", "b", "c")
    await tenant.disconnect("web", tenant.network_id("a"))
    attachment = tenant.attachments["web"]
    before = await tenant.manager.plug(attachment), tenant.manager.interfaces(attachment)
    assert [i.name for i in before[1][0]] == ["eth1", "eth2"]
    await tenant.manager.close()
    await tenant.reopen()
    assert (await tenant.manager.plug(attachment), tenant.manager.interfaces(attachment)) == before


async def test_stopped_containers_keep_addresses_but_have_no_traces(lab: Lab, tenant: Vch) -> None:
    await tenant.network("front")
    await tenant.container("web", "front", ports=[tcp(8080)])
    stopped = tenant.attachments["web"]
    address = tenant.address("web")
    await tenant.manager.close()
    tenant.attachments["web"] = Attachment(
        container=stopped.container, name="web", endpoints=stopped.endpoints, ports=stopped.ports
    )
    await tenant.reopen()
    assert "mt" + stopped.container[:8] not in lab.host.run("ip", "link")
    assert "8080" not in lab.rules()
    other = tenant.manager.allocate("x" * 64, "x", Endpoint(network=stopped.endpoints[0].network))
    assert other.assigned_ipv4.partition("/")[0] != address
    assert tenant.manager.reserve_ports("x" * 64, [tcp(8080)])


async def test_everything_is_rebuilt_after_a_reboot(lab: Lab, tenant: Vch) -> None:
    await tenant.network("front", ipv6=True)
    await tenant.manager.close()
    before = tenant.traces()
    await tenant.remove()
    assert tenant.traces() == []
    await tenant.reopen()
    assert sorted(w.split()[0] for w in tenant.traces()) == sorted(w.split()[0] for w in before)
    web = await tenant.container("web", "front")
    web.serve(80)
    assert (await lab.host.ask(tenant.address("web", 6), 80)).startswith(web.name)


async def test_strays_go_and_what_belongs_to_others_stays(lab: Lab, tenant: Vch) -> None:
    await tenant.manager.close()
    for name, alias in (
        ("mrstray", f"mooring:{tenant.id}:bridge:{'1' * 64}"),
        ("mtstray", f"mooring:{tenant.id}:tap:{'1' * 64}:{'2' * 64}:eth0"),
        ("mrother", f"mooring:{'0' * 32}:bridge:{'1' * 64}"),
        ("mrplain", ""),
    ):
        lab.host.run("ip", "link", "add", name, "type", "bridge")
        if alias:
            lab.host.run("ip", "link", "set", name, "alias", alias)
    await tenant.reopen()
    links = lab.host.run("ip", "-br", "link")
    assert "mrstray" not in links and "mtstray" not in links
    assert "mrother" in links and "mrplain" in links


async def test_removing_a_vch_leaves_nothing(lab: Lab, tenant: Vch) -> None:
    lab.host.run("iptables", "-P", "FORWARD", "DROP")
    untouched = lab.host.run("iptables-save", "-t", "filter").splitlines()[2:-2]
    await tenant.network("front", ipv6=True)
    await tenant.container("web", "front", ports=[tcp(8080)])
    assert tenant.traces()
    await tenant.manager.close()
    await tenant.remove()
    await tenant.remove()
    assert tenant.traces() == []
    assert lab.host.run("iptables-save", "-t", "filter").splitlines()[2:-2] == untouched


async def test_containers_leave_nothing_behind(lab: Lab, tenant: Vch) -> None:
    network = await tenant.network("front", ipv6=True)
    before = tenant.traces(), lab.rules(), lab.links()
    for _ in range(3):
        await tenant.container("web", "front", ports=[tcp(8080)])
        with pytest.raises(PortLayerError, match="network front has active endpoints") as caught:
            await tenant.manager.remove(network.id)
        assert caught.value.reason == Reason.NETWORK_IN_USE
        await tenant.stop("web")
    assert (tenant.traces(), lab.rules(), lab.links()) == before
    await tenant.manager.remove(network.id)
    assert network.bridge not in lab.host.run("ip", "link")
    assert not (tenant.root / "networks" / f"{network.id}.json").exists()


async def test_many_containers_at_once(lab: Lab, tenant: Vch) -> None:
    network = await tenant.network("front")
    attachments = [
        Attachment(
            container=(container := secrets.token_hex(32)),
            name=f"c{n}",
            endpoints=[tenant.manager.allocate(container, f"c{n}", Endpoint(network=network.id))],
            ports=tenant.manager.reserve_ports(container, [tcp(9000 + n)]),
        )
        for n in range(20)
    ]
    plugged = await asyncio.gather(*(tenant.manager.plug(a) for a in attachments))
    taps = {nic.tap for nics in plugged for nic in nics}
    links = lab.host.run("ip", "-br", "link", "show", "master", network.bridge)
    assert {line.split()[0] for line in links.splitlines()} == taps and len(taps) == 20
    assert lab.rules().count(". 9000 : ") == 1
    await asyncio.gather(*(tenant.manager.unplug(a.container) for a in attachments))
    assert lab.host.run("ip", "-br", "link", "show", "master", network.bridge) == ""


async def test_create_refuses_what_the_host_already_has(lab: Lab, tenant: Vch) -> None:
    for subnet in ("198.51.100.0/25", "198.51.0.0/16"):
        with pytest.raises(
            PortLayerError, match="Pool overlaps with other one on this address space"
        ) as caught:
            await tenant.network("x", subnet=subnet)
        assert caught.value.reason == Reason.POOL_OVERLAP
    with pytest.raises(PortLayerError, match="interface uplink already exists") as caught:
        await tenant.network("x", bridge__name="uplink")
    assert caught.value.reason == Reason.NAME_IN_USE
    assert {n.name for n in tenant.manager.list()} == {"bridge", "none"}
    assert len(list((tenant.root / "networks").iterdir())) == 2
    for builtin in ("bridge", "none"):
        with pytest.raises(PortLayerError, match=f"{builtin} is a pre-defined network"):
            await tenant.manager.remove(tenant.network_id(builtin))


async def test_vchs_that_start_together_get_different_subnets(lab: Lab) -> None:
    tenants = [lab.vch() for _ in range(4)]
    await asyncio.gather(*(tenant.open() for tenant in tenants))
    subnets = [tenant.manager.get(tenant.network_id("bridge")).pools[0].subnet for tenant in tenants]
    assert len(set(subnets)) == 4
    for tenant in tenants:
        await tenant.manager.close()


async def test_a_failing_plug_leaves_no_trace(lab: Lab, tenant: Vch, monkeypatch: pytest.MonkeyPatch) -> None:
    network = await tenant.network("front")
    before = tenant.traces(), lab.rules(), lab.links()
    lab.host.run("ip", "link", "set", network.bridge, "down")
    lab.host.run("ip", "link", "del", network.bridge)
    with pytest.raises(PortLayerError, match=network.bridge):
        await tenant.container("web", "front", ports=[tcp(8080)])
    await tenant.manager.close()
    await tenant.reopen()
    assert (tenant.traces(), lab.rules(), lab.links()) == before


async def test_a_full_disk_is_named_and_changes_nothing(
    lab: Lab, tenant: Vch, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tenant.traces(), lab.rules(), lab.links()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PortLayerError, match="No space left on device") as caught:
        await tenant.network("front")
    monkeypatch.undo()
    assert caught.value.reason == Reason.NO_SPACE
    assert (tenant.traces(), lab.rules(), lab.links()) == before
    assert await tenant.network("front")


async def eventually(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not await asyncio.to_thread(done):
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("command", ["flush ruleset", "delete table bridge {}", "flush chain inet {} decide"])
async def test_rules_that_an_administrator_removed_come_back(lab: Lab, tenant: Vch, command: str) -> None:
    await tenant.network("front")
    web = await tenant.container("web", "front", ports=[tcp(8080)])
    web.serve(80)

    def rules() -> str:
        return lab.rules()

    before = rules()
    lab.host.run("nft", command.format(table_name(tenant.id)))
    await eventually(lambda: rules() == before)
    assert (await lab.outside.ask(HOST4, 8080)).startswith(web.name)
    transactions = tenant.manager.transactions
    await asyncio.sleep(1)  # repairing must not look like damage to itself
    assert tenant.manager.transactions == transactions


async def test_a_docker_that_starts_later_does_not_cut_us_off(lab: Lab, tenant: Vch) -> None:
    network = await tenant.network("front")
    web = await tenant.container("web", "front", ports=[tcp(8080)])
    web.serve(80)
    lab.host.run("iptables", "-N", "DOCKER-USER")
    lab.host.run("iptables", "-A", "FORWARD", "-j", "DOCKER-USER")
    lab.host.run("iptables", "-P", "FORWARD", "DROP")
    await eventually(lambda: f"-o {network.bridge}" in lab.host.run("iptables", "-S", "DOCKER-USER"))
    assert (await lab.outside.ask(HOST4, 8080)).startswith(web.name)
    lab.host.run("iptables", "-F")
    lab.host.run("iptables", "-X", "DOCKER-USER")
    await eventually(lambda: f"-o {network.bridge}" in lab.host.run("iptables", "-S", "FORWARD"))


async def test_a_foreign_firewall_that_we_cannot_open_is_named(
    lab: Lab, tenant: Vch, caplog: pytest.LogCaptureFixture
) -> None:
    lab.host.run("nft", "add table inet mine")
    lab.host.run("nft", "add chain inet mine fence { type filter hook forward priority 5; policy drop; }")
    await tenant.network("front")
    assert "inet mine fence drops packets by default" in caplog.text


@pytest.mark.parametrize("internal", [False, True])
async def test_names_are_served_beside_a_dns_server_of_the_host(lab: Lab, internal: bool) -> None:
    """A dnsmasq on every address has port 53 already: then the rules lead port 53 to ours."""
    lab.host.serve(53, udp=True)
    lab.host.serve(53)
    tenant = await lab.vch().open()
    await tenant.network("front", ipv6=True, internal=internal)
    web, client = await tenant.container("web", "front"), await tenant.container("client", "front")
    for server in (client.nameserver, tenant.gateway("front", 6)):
        assert await client.resolve(server, "web") == [tenant.address("web")]
        assert await client.resolve(server, "web", "A", "+tcp") == [tenant.address("web")]
    await tenant.manager.close()
    await tenant.reopen()
    assert await web.resolve(web.nameserver, "client") == [tenant.address("client")]
    await tenant.manager.close()


async def test_one_network_that_the_host_refuses_does_not_keep_the_others_down(
    lab: Lab, tenant: Vch, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = await tenant.network("bad"), await tenant.network("good")
    await tenant.container("lost", "bad")
    web = await tenant.container("web", "good")
    web.serve(80)
    await tenant.manager.close()
    lab.host.run("ip", "link", "del", bad.bridge)
    lab.host.run("ip", "link", "add", bad.bridge, "type", "veth", "peer", "name", "somebody")
    await tenant.reopen()
    assert f"bridge {bad.bridge}: an interface of that name exists and is not ours" in caplog.text
    assert (await lab.host.ask(tenant.address("web"), 80)).startswith(web.name)
    assert {n.name for n in tenant.manager.list()} >= {"bad", "good"}
    assert good.bridge in lab.links()


class Lives:
    """The process that lives and dies on demand."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.system.network.victim"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def live(self, state: Path, vch: str, operation: str, fuse: int) -> list[str]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{state} {vch} {operation} {fuse}\n")
        self._process.stdin.flush()
        steps = []
        while not (line := self._process.stdout.readline()).startswith("exit "):
            assert line
            steps.append(line)
        return [*steps, line.strip()]

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        assert self._process.wait(10) == 0


@pytest.mark.parametrize("operation", ["open", "create", "plug", "unplug", "remove"])
async def test_kill_9_at_every_step(lab: Lab, operation: str, tmp_path: Path) -> None:
    """The next open() brings the host to what files and specifications say, whichever step was the last."""
    lives = Lives()
    for fuse in range(1, 100):
        vch, state = secrets.token_hex(16), tmp_path / f"{operation}{fuse}"
        steps = await asyncio.to_thread(lives.live, state, vch, operation, fuse)
        print(*steps)
        for running in (True, False):
            await recover(lab, state, vch, running=running)
        await purge(vch)
        assert vch not in lab.rules() + lab.host.run("ip", "-d", "link")
        assert steps[-1] in ("exit 0", f"exit -{signal.SIGKILL:d}")
        if steps[-1] == "exit 0":
            break
    lives.close()
    assert fuse > 3


async def recover(lab: Lab, state: Path, vch: str, *, running: bool) -> None:
    managed = victim.manager(state, vch)
    there = (state / f"{victim.NETWORK}.json").exists()
    specification = []
    if there:
        endpoint = Endpoint(network=victim.NETWORK, assigned_ipv4="172.30.1.2/24", endpoint_id="e" * 64)
        specification = [
            Attachment(
                container=victim.CONTAINER,
                name="web",
                endpoints=[endpoint],
                ports=[PortBinding(container_port=80, protocol="tcp", assigned_port=8080)],
                running=running,
            )
        ]
    await managed.open(specification)
    links = lab.links()
    names = {n.name for n in managed.list()}
    assert names == ({"bridge", "none", "front"} if there else {"bridge", "none"})
    assert sorted(name for name in links if name.startswith("mr")) == sorted(
        n.bridge for n in managed.list() if n.bridge
    )
    taps = [name for name in links if name.startswith("mt")]
    assert len(taps) == (1 if running and there else 0)
    rules = lab.rules()
    assert rules.count(f"table inet {table_name(vch)}") == 1
    assert ("8080" in rules) == (running and there)
    assert all(f'"{tap}" . 172.30.1.2' in rules for tap in taps)
    assert not [path for path in state.iterdir() if path.name.startswith(".new-")]
    if not there:
        assert await managed.create(Network(id=victim.NETWORK, name="front", type="bridge"))
        await managed.remove(victim.NETWORK)
    await managed.close()


async def test_the_manager_of_an_empty_vch_removes_all_its_traces(lab: Lab, tenant: Vch) -> None:
    await tenant.network("front", ipv6=True)
    for _ in range(2):
        await tenant.manager.purge()
        assert tenant.traces() == []
        assert not [name for name in lab.links() if name.startswith("mr")]
