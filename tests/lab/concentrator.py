"""The concentrator's end of one proxied serial port: telnet with VMware's option 232, as little as a test needs."""

from __future__ import annotations

import socket

IAC, DONT, DO, WONT, WILL, SB, SE = 255, 254, 253, 252, 251, 250, 240
VMWARE = 232
KNOWN_1, KNOWN_2 = 0, 1
BEGIN, GOAHEAD, PEER, PEER_OK, COMPLETE = 40, 41, 44, 45, 46
DO_PROXY, WILL_PROXY, UUID, GET_UUID = 70, 71, 80, 81


class Concentrator:
    """A connection from a host; reads and writes like the socket that it wraps."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._raw = b""
        self.heard: dict[int, bytes] = {}  # suboption -> its data

    def settimeout(self, seconds: float) -> None:
        self._socket.settimeout(seconds)

    def close(self) -> None:
        self._socket.close()

    def sendall(self, data: bytes) -> None:
        self._socket.sendall(data.replace(b"\xff", b"\xff\xff"))

    def recv(self, _size: int) -> bytes:
        """The guest's next bytes; b"" at the end. Negotiates on the way."""
        while True:
            data = self._parse()
            if data:
                return data
            piece = self._socket.recv(4096)
            if not piece:
                return b""
            self._raw += piece

    def listen_for(self, suboption: int, *, seconds: float = 30) -> bytes:
        """Wait for a suboption; the guest is quiet meanwhile."""
        self.settimeout(seconds)
        while suboption not in self.heard:
            assert self._parse() == b""
            if suboption not in self.heard:
                piece = self._socket.recv(4096)
                assert piece, f"closed before suboption {suboption}"
                self._raw += piece
        return self.heard.pop(suboption)

    def _parse(self) -> bytes:
        data = b""
        while self._raw:
            plain, found, rest = self._raw.partition(bytes([IAC]))
            data += plain
            self._raw = found + rest
            if not found or not rest:
                break
            if rest[0] == IAC:
                data, self._raw = data + b"\xff", rest[1:]
            elif rest[0] == SB:
                end = rest.find(bytes([IAC, SE]))
                if end < 0:
                    break
                self._suboption(rest[2], rest[3:end].replace(b"\xff\xff", b"\xff"))
                self._raw = rest[end + 2 :]
            elif len(rest) < 2:
                break
            else:
                self._command(rest[0], rest[1])
                self._raw = rest[2:]
        return data

    def _command(self, verb: int, option: int) -> None:
        if (verb, option) == (WILL, VMWARE):
            self._socket.sendall(bytes([IAC, DO, VMWARE]))

    def _suboption(self, command: int, data: bytes) -> None:
        self.heard[command] = data
        if command == KNOWN_1:
            self._send(KNOWN_2, data)
            self._send(GET_UUID)
        elif command == DO_PROXY:
            self._send(WILL_PROXY)
        elif command == BEGIN:
            self._send(GOAHEAD, data + b"\xff\x01\x02\x03")  # the secret, with a byte to escape
        elif command == PEER:
            self._send(PEER_OK, data)

    def _send(self, command: int, data: bytes = b"") -> None:
        body = data.replace(b"\xff", b"\xff\xff")
        self._socket.sendall(bytes([IAC, SB, VMWARE, command]) + body + bytes([IAC, SE]))
