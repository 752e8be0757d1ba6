"""TLS with half-close, on a plain transport.

asyncio's own TLS treats the client's close_notify as the end of everything.
Docker clients send it when their standard input ends and keep reading, so TLS
is terminated here with ``ssl.MemoryBIO``: close_notify is ``b""`` from
``read`` and writing goes on.

Invariant: bytes leave the outgoing BIO in the order OpenSSL made them, because
every SSL call is followed by a flush without an ``await`` in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path

from engine.http.errors import Disconnected
from engine.http.transport import READ_SIZE, PlainTransport

__all__ = ["TlsTransport", "server_context"]

HANDSHAKE_SECONDS = 10.0


def server_context(*, cert: Path, key: Path, ca: Path | None) -> ssl.SSLContext:
    """TLS 1.2 or newer; with ``ca``, clients must show a certificate it signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # a cut must not pass for the end of input
    context.load_cert_chain(cert, key)
    if ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(ca)
    return context


class TlsTransport:
    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext
    ) -> None:
        self._plain = PlainTransport(reader, writer)
        self._writer = writer
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.peer = self._plain.peer

    async def handshake(self) -> None:
        """Finish the handshake, or raise Disconnected after telling the client why (an alert)."""
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                while True:
                    try:
                        self._ssl.do_handshake()
                    except ssl.SSLWantReadError:
                        await self._fill()
                    else:
                        break
        except TimeoutError as error:
            raise Disconnected("TLS handshake timed out") from error
        except ssl.SSLError as error:
            with contextlib.suppress(Disconnected):
                await self._flush()
            raise Disconnected(f"TLS handshake: {error.reason or error}") from error
        await self._flush()
        subject = self._common_name()
        if subject:
            self.peer = f"{self.peer} ({subject})"

    async def read(self, limit: int = READ_SIZE) -> bytes:
        while True:
            try:
                return self._ssl.read(limit)  # b"" after close_notify
            except ssl.SSLWantReadError:
                await self._fill()
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLEOFError:  # closed without close_notify: a truncated stream is not an end of input
                raise Disconnected("connection closed without TLS close") from None
            except ssl.SSLError as error:
                raise Disconnected(f"TLS: {error.reason or error}") from error

    async def write(self, data: bytes) -> None:
        try:
            self._ssl.write(data)  # a memory BIO takes everything
        except ssl.SSLError as error:
            raise Disconnected(f"TLS: {error.reason or error}") from error
        await self._flush()

    async def write_eof(self) -> None:
        with contextlib.suppress(ssl.SSLError):  # SSLWantRead: our close_notify is out, theirs is not in yet
            self._ssl.unwrap()
        await self._flush()

    async def close(self) -> None:
        try:
            with contextlib.suppress(Disconnected):
                await self.write_eof()
        except BaseException:
            self._plain.abort()
            raise
        await self._plain.close()

    def abort(self) -> None:
        self._plain.abort()

    async def _fill(self) -> None:
        await self._flush()
        data = await self._plain.read()
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self._plain.write(self._outgoing.read())

    def _common_name(self) -> str:
        certificate = self._ssl.getpeercert() or {}
        for relative_name in certificate.get("subject", ()):
            for pair in relative_name:
                if pair[0] == "commonName":
                    return str(pair[1])
        return ""
