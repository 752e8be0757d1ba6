"""python -m bench.network: what plugging a container in costs, alone and beside many. Needs root.

Runs in a network namespace of its own; no VMs.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import resource
import secrets
import statistics
import tempfile
import time
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path

from portlayer.network import Attachment, NetworkManager
from portlayer.portlayer_pb2 import Endpoint, Network, Pool, PortBinding

_CLONE_NEWNET = 0x40000000


def new_manager(state: Path, vch: str) -> NetworkManager:
    return NetworkManager(
        state,
        vch_id=vch,
        bridge_range="172.30.0.0/16",
        bridge_width=24,
        bridge_range_v6="",
        dns=(),
        qemu_uid=65534,
    )


async def timed(work: Awaitable[object]) -> float:
    started = time.perf_counter()
    await work
    return (time.perf_counter() - started) * 1000


def show(what: str, samples: list[float]) -> None:
    print(f"{what:<56}{statistics.median(samples):>10.1f} ms{len(samples):>6}")


async def measure(state: Path, containers: int, runs: int) -> None:
    vch = secrets.token_hex(16)
    manager = new_manager(state, vch)
    show("open, a new VCH", [await timed(manager.open([]))])
    network = Network(id=secrets.token_hex(32), name="bench", pools=[Pool(subnet="172.29.0.0/16")])
    show("create a network", [await timed(manager.create(network))])

    def container(number: int) -> Attachment:
        identifier = secrets.token_hex(32)
        port = PortBinding(container_port=80, protocol="tcp", host_port=20000 + number)
        return Attachment(
            container=identifier,
            name=f"c{number}",
            endpoints=[manager.allocate(identifier, f"c{number}", Endpoint(network=network.id))],
            ports=manager.reserve_ports(identifier, [port]),
        )

    async def plug_and_unplug(what: str) -> None:
        plugs, unplugs = [], []
        for number in range(runs):
            attachment = container(15000 + number)
            plugs.append(await timed(manager.plug(attachment)))
            unplugs.append(await timed(manager.unplug(attachment.container)))
            manager.release(attachment.container)
            manager.release_ports(attachment.container)
        show(f"plug a container with one port, {what}", plugs)
        show(f"unplug it, {what}", unplugs)

    await plug_and_unplug("alone")
    attachments = [container(number) for number in range(containers)]
    show(f"plug {containers} at once", [await timed(asyncio.gather(*map(manager.plug, attachments)))])
    await plug_and_unplug(f"beside {containers}")
    show(f"replace the rules of {containers}", [await timed(manager.reload()) for _ in range(runs)])
    await manager.close()
    manager = new_manager(state, vch)
    running = [replace(attachment, running=True) for attachment in attachments]
    show(f"open with {containers} running", [await timed(manager.open(running))])
    show("purge", [await timed(manager.purge())])
    await manager.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.network", description=__doc__)
    parser.add_argument("--containers", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))  # one descriptor for each published port
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    with tempfile.TemporaryDirectory(prefix="mooring-bench-") as state:
        asyncio.run(measure(Path(state), options.containers, options.runs))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
