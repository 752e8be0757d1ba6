"""A syslog server for tests: ``python -m tests.system.syslogserver udp|tcp|unixgram ADDRESS FILE``.

What it is sent goes to FILE as it comes; FILE appears when it listens.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

KINDS = {
    "udp": (socket.AF_INET, socket.SOCK_DGRAM),
    "tcp": (socket.AF_INET, socket.SOCK_STREAM),
    "unixgram": (socket.AF_UNIX, socket.SOCK_DGRAM),
}


def main() -> None:
    kind, address, file = sys.argv[1:]
    family, style = KINDS[kind]
    server = socket.socket(family, style)
    if family == socket.AF_INET:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", int(address)))
    else:
        server.bind(address)
    if style == socket.SOCK_STREAM:
        server.listen()
    with Path(file).open("ab", buffering=0) as output:
        while True:
            peer = server.accept()[0] if style == socket.SOCK_STREAM else server
            while data := peer.recv(65536):
                output.write(data)


if __name__ == "__main__":
    main()
