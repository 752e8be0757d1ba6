"""A small world for network tests: a host, an outside machine and pretended guests, each a network namespace.

A guest is what QEMU would be: it opens the tap that the manager made and
carries frames to an interface of its own namespace. The test's main thread sits
in the host's namespace, so the manager runs in it as it would under
``ip netns exec``. Nothing leaves these namespaces.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import itertools
import os
import re
import secrets
import select
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from portlayer.network import Attachment, NetworkManager, PluggedNic
from portlayer.portlayer_pb2 import Endpoint, Network, Pool, PortBinding
from tether.tether_pb2 import Interface, Resolver

ROOT = Path(__file__).resolve().parents[3]
_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_libc = ctypes.CDLL(None, use_errno=True)

OUTSIDE4, OUTSIDE6 = "198.51.100.2", "2001:db8:51::2"
HOST4, HOST6 = "198.51.100.1", "2001:db8:51::1"


def run(*command: str, check: bool = True, cwd: str | None = None) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, cwd=cwd)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout


def enter(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(descriptor, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {path}")
    finally:
        os.close(descriptor)


def open_tap(name: str) -> int:
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return descriptor


class Space:
    """A network namespace and the servers running in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._servers: list[subprocess.Popen[str]] = []
        run("ip", "netns", "add", name)
        self.run("ip", "link", "set", "lo", "up")

    def run(self, *command: str, check: bool = True) -> str:
        return run("ip", "netns", "exec", self.name, *command, check=check)

    def python(self, code: str, *arguments: str) -> str:
        return self.run(sys.executable, "-c", code, *arguments)

    def start(self, code: str, *arguments: str) -> subprocess.Popen[str]:
        """Run Python code until the end of the test; it says "ready" when it is."""
        server = subprocess.Popen(
            ["ip", "netns", "exec", self.name, sys.executable, "-c", code, *arguments],
            stdout=subprocess.PIPE,
            text=True,
        )
        self._servers.append(server)
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        return server

    def serve(self, port: int, *, udp: bool = False, text: str = "") -> None:
        """Answer every connection (datagram) with ``text`` and the client's address."""
        self.start(_UDP_SERVER if udp else _TCP_SERVER, str(port), text or self.name)

    async def ask(
        self, address: str, port: int, *, udp: bool = False, timeout: float = 10, source: str = ""
    ) -> str:
        """The server's answer, or "timeout", "refused", "unreachable"."""
        kind = "udp" if udp else "tcp"
        out = await asyncio.to_thread(self.python, _CLIENT, address, str(port), kind, str(timeout), source)
        return out.strip()

    async def resolve(self, server: str, name: str, kind: str = "A", *options: str) -> list[str]:
        """dig: answers, sorted; [status] when there is none."""
        return sorted(await self.lines(server, name, kind, *options))

    async def lines(self, server: str, name: str, kind: str = "A", *options: str) -> list[str]:
        """The answers in their order."""
        dig = ("dig", "+time=8", "+tries=1", *options, f"@{server}", "-q", name, "-t", kind)
        out = await asyncio.to_thread(self.run, *dig, check=False)
        answers = [line.split()[-1] for line in _section(out, "ANSWER SECTION")]
        status = out.partition("status: ")[2].partition(",")[0]
        return answers or [status or "TIMEOUT"]

    def close(self) -> None:
        for server in self._servers:
            server.kill()
            server.wait()
            assert server.stdout is not None
            server.stdout.close()
        run("ip", "netns", "del", self.name)


def _section(out: str, title: str) -> list[str]:
    _, found, rest = out.partition(f"{title}:\n")
    return rest.split("\n\n")[0].splitlines() if found else []


class Guest(Space):
    """A pretended container VM: one wire per NIC between the host's tap and its own interface."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.resolver = Resolver()
        self._wires: dict[str, Wire] = {}

    def neighbours(self) -> dict[str, str]:
        """Address -> MAC, of the addresses that are known."""
        words = [line.split() for line in self.run("ip", "neigh").splitlines()]
        return {w[0]: w[w.index("lladdr") + 1] for w in words if "lladdr" in w}

    @property
    def nameserver(self) -> str:
        return self.resolver.servers[0]

    def configure(
        self, nics: Sequence[PluggedNic], interfaces: Sequence[Interface], resolver: Resolver
    ) -> None:
        """Do what the tether does with NetworkSet: the complete wanted set."""
        self.resolver = resolver
        taps = {nic.mac: nic.tap for nic in nics}
        for mac in self._wires.keys() - taps.keys():
            self._wires.pop(mac).close()
        for interface in interfaces:
            if interface.mac not in self._wires:
                self._wires[interface.mac] = Wire(taps[interface.mac], self.name, interface.name)
                self._set_up(interface)
        for family in ("-4", "-6"):
            self.run("ip", family, "route", "flush", "default")
        for interface in interfaces:
            for route in interface.routes:
                self.run("ip", "route", "add", route.destination, "via", route.gateway, "dev", interface.name)

    def _set_up(self, interface: Interface) -> None:
        name = interface.name
        self.run("ip", "link", "set", name, "address", interface.mac, "mtu", str(interface.mtu), "up")
        for address in interface.addresses:
            nodad = ["nodad"] if ":" in address else []
            self.run("ip", "addr", "add", address, "dev", name, *nodad)

    def unplug(self) -> None:
        for wire in self._wires.values():
            wire.close()
        self._wires.clear()

    def close(self) -> None:
        self.unplug()
        super().close()


class Wire:
    def __init__(self, tap: str, space: str, interface: str) -> None:
        self._outer = open_tap(tap)
        self._stop_read, self._stop_write = os.pipe()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._carry, args=(space, interface, ready), daemon=True)
        self._thread.start()
        assert ready.wait(10)

    def _carry(self, space: str, interface: str, ready: threading.Event) -> None:
        enter(f"/var/run/netns/{space}")
        inner = open_tap(interface)
        ready.set()
        other = {self._outer: inner, inner: self._outer}
        poll = select.poll()
        for descriptor in (self._outer, inner, self._stop_read):
            poll.register(descriptor, select.POLLIN)
        try:
            while True:
                for descriptor, _ in poll.poll():
                    if descriptor == self._stop_read:
                        return
                    try:
                        frame = os.read(descriptor, 65536)
                    except BlockingIOError:
                        continue
                    except OSError:  # the tap is gone: a cable without a plug
                        poll.unregister(descriptor)
                        continue
                    with suppress(OSError):  # the other end is down: the frame is lost
                        os.write(other[descriptor], frame)
        finally:
            os.close(inner)
            os.close(self._outer)

    def close(self) -> None:
        os.write(self._stop_write, b"x")
        self._thread.join(10)
        os.close(self._stop_read)
        os.close(self._stop_write)


class Vch:
    """A manager and the containers of its VCH, as the execution room would keep them."""

    def __init__(
        self,
        lab: Lab,
        root: Path,
        *,
        id: str = "",
        dns: Sequence[str] = (),
        host_access: bool = False,
    ) -> None:
        self.id = id or secrets.token_hex(16)
        self.lab = lab
        self.root = root
        self.dns = dns
        self.host_access = host_access
        self.resolv_conf = root / "resolv.conf"
        self.attachments: dict[str, Attachment] = {}
        self.guests: dict[str, Guest] = {}
        self.manager = self._new()

    def _new(self) -> NetworkManager:
        return NetworkManager(
            self.root / "networks",
            vch_id=self.id,
            bridge_range="172.30.0.0/16",
            bridge_width=24,
            bridge_range_v6="",
            dns=self.dns,
            qemu_uid=65534,
            host_access=self.host_access,
            resolv_conf=self.resolv_conf,
        )

    async def open(self) -> Vch:
        self.root.mkdir(parents=True, exist_ok=True)
        await self.manager.open(list(self.attachments.values()))
        return self

    async def reopen(self) -> None:
        """A new life of the port layer."""
        self.manager = self._new()
        await self.open()

    async def network(
        self, name: str, *, ipv6: bool = False, internal: bool = False, subnet: str = "", **options: str
    ) -> Network:
        keys = {key: f"com.docker.network.{key.replace('__', '.')}" for key in options}
        return await self.manager.create(
            Network(
                name=name,
                type="bridge",
                enable_ipv6=ipv6,
                internal=internal,
                pools=[Pool(subnet=subnet)] if subnet else [],
                options={keys[key]: value for key, value in options.items()},
            )
        )

    def network_id(self, name: str) -> str:
        return next(n.id for n in self.manager.list() if n.name == name)

    async def container(
        self,
        name: str,
        *networks: str | Endpoint,
        ports: Sequence[PortBinding] = (),
        dns: Sequence[str] = (),
    ) -> Guest:
        container = secrets.token_hex(32)
        wanted = [n if isinstance(n, Endpoint) else Endpoint(network=self.network_id(n)) for n in networks]
        attachment = Attachment(
            container=container,
            name=name,
            endpoints=[self.manager.allocate(container, name, endpoint) for endpoint in wanted],
            ports=self.manager.reserve_ports(container, ports),
            running=True,
            resolver=Resolver(servers=dns),
        )
        nics = await self.manager.plug(attachment)
        self.attachments[name] = attachment
        guest = self.lab.guest()
        self.guests[name] = guest
        guest.configure(nics, *self.manager.interfaces(attachment))
        return guest

    def address(self, name: str, version: int = 4, index: int = 0) -> str:
        endpoint = self.attachments[name].endpoints[index]
        return (endpoint.assigned_ipv4 if version == 4 else endpoint.assigned_ipv6).partition("/")[0]

    def gateway(self, network: str, version: int = 4) -> str:
        pools = self.manager.get(self.network_id(network)).pools
        return next(pool.gateway for pool in pools if (":" in pool.gateway) == (version == 6))

    def rename(self, name: str, new: str) -> None:
        self.attachments[new] = replace(self.attachments.pop(name), name=new)
        self.guests[new] = self.guests.pop(name)
        self.manager.update_names(self.attachments[new])

    async def connect(self, name: str, endpoint: Endpoint) -> None:
        old = self.attachments[name]
        leased = self.manager.allocate(old.container, name, endpoint)
        await self._change(name, replace(old, endpoints=[*old.endpoints, leased]))

    async def disconnect(self, name: str, network: str) -> None:
        old = self.attachments[name]
        await self.manager.unplug(old.container, network)
        self.manager.release(old.container, network)
        await self._change(name, replace(old, endpoints=[e for e in old.endpoints if e.network != network]))

    async def _change(self, name: str, attachment: Attachment) -> None:
        nics = await self.manager.plug(attachment)
        self.attachments[name] = attachment
        self.guests[name].configure(nics, *self.manager.interfaces(attachment))

    def traces(self) -> list[str]:
        """Everything on the host that carries this VCH's mark."""
        links = self.lab.host.run("ip", "-d", "link").splitlines()
        rules = self.lab.host.run("nft", "list", "ruleset").splitlines()
        return [line.strip() for line in (*links, *rules) if self.id in line]

    async def remove(self) -> None:
        """What the administrator's delete does on the host."""
        await asyncio.to_thread(
            run, sys.executable, "-m", "portlayer.network", "remove", self.id, cwd=str(ROOT)
        )

    async def stop(self, name: str) -> None:
        attachment = self.attachments.pop(name)
        if name in self.guests:
            self.guests.pop(name).unplug()
        await self.manager.unplug(attachment.container)
        self.manager.release_ports(attachment.container)
        self.manager.release(attachment.container)


class Lab:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._prefix = f"mt-{secrets.token_hex(3)}"
        self._number = itertools.count()
        self._home = f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net"
        self._home_fd = os.open(self._home, os.O_RDONLY | os.O_CLOEXEC)
        self.spaces: list[Space] = []
        self.host = self._space("host")
        self.outside = self._space("out")
        self._wire_outside()
        enter(f"/var/run/netns/{self.host.name}")

    def _space(self, word: str) -> Space:
        space = Space(f"{self._prefix}-{word}")
        self.spaces.append(space)
        return space

    def guest(self) -> Guest:
        guest = Guest(f"{self._prefix}-g{next(self._number)}")
        self.spaces.append(guest)
        return guest

    def links(self) -> set[str]:
        """The host's interfaces."""
        lines = self.host.run("ip", "-br", "link").splitlines()
        return {line.split()[0].partition("@")[0] for line in lines}

    def rules(self) -> str:
        """nftables, without what the kernel itself notes about guests."""
        text = self.host.run("nft", "list", "ruleset")
        return re.sub(r"(?s)\tset (askers|flows)\w+ \{.*?\n\t\}\n", "", text)

    def vch(self, *, dns: Sequence[str] = (), host_access: bool = False) -> Vch:
        return Vch(self, self._root / f"vch{next(self._number)}", dns=dns, host_access=host_access)

    def _wire_outside(self) -> None:
        host, outside = self.host, self.outside
        host.run("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "wan", "netns", outside.name)
        for space, link, ipv4, ipv6 in (
            (host, "uplink", HOST4, HOST6),
            (outside, "wan", OUTSIDE4, OUTSIDE6),
        ):
            space.run("sysctl", "-qw", f"net.ipv6.conf.{link}.accept_dad=0")
            space.run("ip", "addr", "add", f"{ipv4}/24", "dev", link)
            space.run("ip", "addr", "add", f"{ipv6}/64", "dev", link, "nodad")
            space.run("ip", "link", "set", link, "up")

    def close(self) -> None:
        if _libc.setns(self._home_fd, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns back")
        os.close(self._home_fd)
        for space in reversed(self.spaces):
            space.close()


_TCP_SERVER = """
import socket, sys
s = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
while True:
    c, peer = s.accept()
    with c:
        c.sendall(f"{sys.argv[2]} sees {peer[0].removeprefix('::ffff:')}".encode())
"""

_UDP_SERVER = """
import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
s.bind(("::", int(sys.argv[1])))
print("ready", flush=True)
while True:
    data, peer = s.recvfrom(2048)
    s.sendto(f"{sys.argv[2]} sees {peer[0].removeprefix('::ffff:')}".encode(), peer)
"""

_CLIENT = """
import socket, sys
address, port, kind, timeout, source = sys.argv[1:]
family = socket.AF_INET6 if ":" in address else socket.AF_INET
s = socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
s.settimeout(float(timeout))
if source:
    s.bind((source, 0))
try:
    s.connect((address, int(port)))
    if kind == "udp":
        s.send(b"hello")
    print(s.recv(2048).decode())
except TimeoutError:
    print("timeout")
except ConnectionRefusedError:
    print("refused")
except OSError as error:
    print("unreachable", error.errno)
"""
