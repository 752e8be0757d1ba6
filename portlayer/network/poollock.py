"""One VCH at a time looks for a free subnet and takes it.

Several VCHs on a host cut their networks from the same range and see each
other's only once the routes are there. The lock is an abstract unix socket:
its scope is the network namespace, exactly that of routes and interfaces, and
it goes with its holder, however that dies.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["pool_lock"]

_log = logging.getLogger(__name__)

_NAME = "\0mooring-network-pools"
_PATIENCE = 10.0
_PAUSE = 0.02  # nothing tells when an abstract name becomes free


@asynccontextmanager
async def pool_lock(*, name: str = _NAME, patience: float = _PATIENCE) -> AsyncIterator[None]:
    """Any local user could sit on the name, so patience ends: then the risk of a double subnet is taken."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as lock:
        while True:
            try:
                lock.bind(name)
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            if loop.time() > deadline:
                _log.warning("somebody holds the lock for subnets for more than %.0f s; going on", patience)
                break
            await asyncio.sleep(_PAUSE)
        yield
