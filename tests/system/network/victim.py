"""A port layer that kills itself at the n-th step that changes anything outside its own memory.

Each line "STATE VCH_ID OPERATION N" of input is one life. It prints its steps
and how it ended: "exit 0" when N was more than there are steps.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from portlayer.network import Attachment, NetworkManager, links
from portlayer.portlayer_pb2 import Endpoint, Network, PortBinding

CONTAINER = "c" * 64
NETWORK = "d" * 64


def manager(state: Path, vch: str) -> NetworkManager:
    return NetworkManager(
        state,
        vch_id=vch,
        bridge_range="172.30.0.0/16",
        bridge_width=24,
        bridge_range_v6="",
        dns=(),
        qemu_uid=65534,
        resolv_conf=state / "resolv.conf",
    )


def network() -> Network:
    return Network(id=NETWORK, name="front", type="bridge", enable_ipv6=True)


def container(managed: NetworkManager, *, running: bool) -> Attachment:
    """The container's specification: the same in every life."""
    endpoint = managed.allocate(CONTAINER, "web", Endpoint(network=NETWORK, endpoint_id="e" * 64))
    ports = [PortBinding(container_port=80, protocol="tcp", host_port=8080, assigned_port=8080)]
    return Attachment(container=CONTAINER, name="web", endpoints=[endpoint], ports=ports, running=running)


class Bomb:
    def __init__(self, fuse: int) -> None:
        self.fuse = fuse
        self.armed = False

    def step(self, what: str) -> None:
        if not self.armed:
            return
        self.fuse -= 1
        sys.stdout.write(f"{what}\n")
        sys.stdout.flush()
        if self.fuse == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("os.rename", "os.remove", "fcntl.ioctl", "subprocess.Popen", "os.mkdir"):
            self.step(f"{event} {arguments[:2]}")
        elif event == "open" and isinstance(arguments[1], str) and "w" in arguments[1]:
            self.step(f"open {arguments[:2]}")


class CountedRoute:
    """Netlink whose changes are steps."""

    bomb: Bomb

    def __init__(self) -> None:
        self._route = IPRoute()

    def __enter__(self) -> CountedRoute:
        return self

    def __exit__(self, *_: object) -> None:
        self._route.close()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._route, name)
        if name not in ("link", "addr", "brport"):
            return method

        def counted(command: str, **arguments: Any) -> Any:
            self.bomb.step(f"netlink {name} {command} {arguments}")
            return method(command, **arguments)

        return counted


async def main(state: Path, vch: str, operation: str, fuse: int) -> None:
    bomb = Bomb(fuse)
    sys.addaudithook(bomb.audit)
    CountedRoute.bomb = bomb
    links.IPRoute = CountedRoute
    managed = manager(state, vch)
    attachment: Attachment | None = None

    def specified() -> Attachment:
        nonlocal attachment
        attachment = attachment or container(managed, running=True)
        return attachment

    operations = {
        "open": lambda: managed.open([]),
        "create": lambda: managed.create(network()),
        "plug": lambda: managed.plug(specified()),
        "unplug": lambda: managed.unplug(CONTAINER),
        "remove": lambda: managed.remove(NETWORK),
    }
    for name, start in operations.items():
        bomb.armed = name == operation
        await start()
        bomb.armed = False
    await managed.close()


def serve() -> None:
    """One life per line of input, each in a process of its own that has its imports already."""
    for line in sys.stdin:
        state, vch, operation, fuse = line.split()
        sys.stdout.flush()
        child = os.fork()
        if not child:
            asyncio.run(main(Path(state), vch, operation, int(fuse)))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"exit {os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
