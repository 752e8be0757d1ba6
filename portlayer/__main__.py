"""``python -m portlayer --config vch.json``: the port layer of one VCH, in the foreground.

Exit codes: 0 after SIGTERM or SIGINT, 1 when it cannot serve, 2 for a wrong
command line or configuration.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import resource
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from portlayer.operation import OperationFilter
from vch.config import VchConfig, VchConfigError

__all__ = ["main"]

log = logging.getLogger("portlayer")


def main() -> int:
    parser = argparse.ArgumentParser(prog="mooring-portlayer", description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True, help="the VCH's vch.json")
    parser.add_argument(
        "--purge", action="store_true", help="remove all containers and the networks, then exit"
    )
    parser.add_argument("--debug", action="store_true", help="log more of our own doings")
    arguments = parser.parse_args()
    _log_to_stderr(debug=arguments.debug)
    try:
        config = VchConfig.load(arguments.config)
    except VchConfigError as error:
        log.error("%s", error)
        return 2
    # A descriptor for each published port, a few for each VM: the usual soft limit is 1024.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # We start QEMU with fork and exec, which gRPC's fork handlers do not survive (children died of SIGSEGV
    # before their exec). It reads this when it is imported, so all that imports it comes after.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"
    from portlayer.service.daemon import AlreadyServed, purge, serve

    try:
        asyncio.run(purge(config) if arguments.purge else _run(config, serve))
    except AlreadyServed as error:
        log.error("%s", error)
        return 1
    except Exception:
        log.exception("the port layer of %s cannot go on", config.name)
        return 1
    return 0


def _log_to_stderr(*, debug: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(OperationFilter())
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s [%(operation)s] %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    if debug:  # ours only: libraries log every netlink message
        log.setLevel(logging.DEBUG)


async def _run(config: VchConfig, serve: Callable[[VchConfig, asyncio.Event], Awaitable[None]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(config, stop)


if __name__ == "__main__":
    raise SystemExit(main())
