"""The socket: private to root, there only while the port layer serves."""

from __future__ import annotations

import os
from pathlib import Path

import grpc.aio

from portlayer.service.interceptor import OperationInterceptor

__all__ = ["MESSAGE_LIMIT", "bind", "make_server", "unbind"]

MESSAGE_LIMIT = 64 << 20  # a list of thousands of containers; streams use far smaller messages
_LONGEST_SOCKET_PATH = 107  # sun_path of unix(7)


def make_server() -> grpc.aio.Server:
    return grpc.aio.server(
        interceptors=[OperationInterceptor()],
        options=[
            ("grpc.max_receive_message_length", MESSAGE_LIMIT),
            ("grpc.max_send_message_length", MESSAGE_LIMIT),
            ("grpc.so_reuseport", 0),
        ],
    )


def bind(server: grpc.aio.Server, path: Path) -> None:
    """Listen on ``path``, mode 0600 from its first moment. A socket left by a dead one is replaced."""
    if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
        raise OSError(f"{path}: a socket's path has at most {_LONGEST_SOCKET_PATH} bytes")
    path.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        server.add_insecure_port(f"unix:{path}")
    finally:
        os.umask(before)
    path.chmod(0o600)


def unbind(path: Path) -> None:
    path.unlink(missing_ok=True)
