"""Frames between the port layer and the child that opens disks: ``u8 type, u32 length, body``.

    parent -> child   REQUEST (JSON: verb and arguments), DATA, END, CANCEL
    child -> parent   DATA, REPLY (JSON), ERROR (JSON: kind, message, errno)

One request at a time. DATA of an upload follows its REQUEST and ends with END;
DATA of a download precedes its REPLY. A REPLY or ERROR ends the request, also
in the middle of an upload: what is still on the way is then read and dropped
up to END. Paths are bytes outside and surrogate-escaped text in JSON.
"""

from __future__ import annotations

import json
import os
import select
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "CANCEL",
    "DATA",
    "END",
    "ERROR",
    "HEADER",
    "MAX_BODY",
    "REPLY",
    "REQUEST",
    "Channel",
    "PeerGone",
    "encode",
    "encode_document",
]

REQUEST, DATA, END, CANCEL, REPLY, ERROR = range(1, 7)
HEADER = struct.Struct("<BI")
MAX_BODY = 1 << 20


class PeerGone(Exception):
    """The other end closed the pipe."""


def encode(kind: int, body: bytes | memoryview = b"") -> bytes:
    return HEADER.pack(kind, len(body)) + body


def encode_document(kind: int, document: dict[str, Any]) -> bytes:
    return encode(kind, json.dumps(document).encode())


class Channel:
    """The child's end: blocking reads and writes."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        self._incoming = incoming
        self._outgoing = outgoing

    def receive(self) -> tuple[int, bytes]:
        kind, length = HEADER.unpack(self._read(HEADER.size))
        if length > MAX_BODY:
            raise PeerGone("frame too long")
        return kind, self._read(length)

    def receive_request(self) -> dict[str, Any]:
        """The next request; the rest of an upload that ended early, and late CANCELs, are dropped."""
        while True:
            kind, body = self.receive()
            if kind == REQUEST:
                document: dict[str, Any] = json.loads(body)
                return document

    def cancelled(self) -> bool:
        """True when the parent wants no more of a download."""
        if not select.select([self._incoming], [], [], 0)[0]:
            return False
        return self.receive()[0] == CANCEL

    def send(self, kind: int, body: bytes = b"") -> None:
        self._write(encode(kind, body))

    def send_document(self, kind: int, document: dict[str, Any]) -> None:
        self._write(encode_document(kind, document))

    def _write(self, frame: bytes) -> None:
        view = memoryview(frame)
        while view:
            view = view[os.write(self._outgoing, view) :]

    def _read(self, length: int) -> bytes:
        data = os.read(self._incoming, length) if length else b""
        if len(data) == length:
            return data
        pieces = [data]
        missing = length - len(data)
        while missing:
            data = os.read(self._incoming, missing)
            if not data:
                raise PeerGone("end of input")
            pieces.append(data)
            missing -= len(data)
        return b"".join(pieces)
