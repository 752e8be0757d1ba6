"""One client connection: HTTP/1.1 requests in, answers out, until it ends or is hijacked.

h11 holds the protocol's states; this module moves bytes and decides whose turn
it is. While a handler works, a *watcher* reads ahead so that a client going
away is noticed at once. It is started when the request's body is complete and
stopped before a hijack: there is never more than one reader.

What a lost client means: a streaming answer and a ``blocking`` route are
cancelled; any other handler finishes, because half an operation helps nobody.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import unquote

import h11

from engine import operation
from engine.http.errors import ApiError, BadRequest, Disconnected
from engine.http.hijack import Duplex
from engine.http.messages import Query, Request, Response, json_response
from engine.http.routing import Router
from engine.http.transport import Transport
from engine.http.versions import negotiate

__all__ = ["Application", "Connection"]

logger = logging.getLogger(__name__)

MAX_HEAD_BYTES = 256 * 1024
MAX_READ_AHEAD = 256 * 1024
IDLE_SECONDS = 300.0
DISCARD_BYTES = 1 << 20
DISCARD_SECONDS = 5.0

_SLASHES = re.compile("//+")  # some clients say "/web" for a container's name
_MIGHT_SWITCH = vars(h11)["MIGHT_SWITCH_PROTOCOL"]  # exported, but not declared so


@dataclass(frozen=True, kw_only=True)
class Application:
    """What a connection serves. ``headers`` stand on every answer."""

    router: Router
    headers: Sequence[tuple[str, str]] = ()


class Connection:
    def __init__(self, transport: Transport, application: Application) -> None:
        self._transport = transport
        self._application = application
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._pending: deque[h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]] = deque()
        self._body_done = False
        self._eof = False
        self._read_ahead = 0
        self._awaits_continue = False
        self._cancellable = False
        self._hijacked = False
        self._draining = False
        self._work: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """A request is being answered that must not be cut short."""
        return self._work is not None and not self._cancellable and not self._hijacked

    def drain(self) -> None:
        """Finish the present request and take no other."""
        self._draining = True

    async def serve(self) -> None:
        """Answer requests until the connection ends; it is closed when this returns or raises."""
        try:
            while await self._cycle():
                pass
        except Disconnected as error:
            logger.debug("%s: %s", self._transport.peer, error)
            self._transport.abort()
        except BaseException:
            self._transport.abort()
            raise
        else:
            await self._transport.close()

    # ------------------------------------------------------------ one request

    async def _cycle(self) -> bool:
        try:
            head = await self._receive_head()
        except h11.RemoteProtocolError as error:
            await self._refuse(error)
            return False
        if head is None:
            return False
        operation.begin()
        self._body_done = self._cancellable = False
        self._read_ahead = 0
        self._awaits_continue = self._h11.they_are_waiting_for_100_continue
        self._work = asyncio.create_task(self._answer(head))
        self._peek_body_end()
        try:
            await asyncio.wait({self._work})
        finally:
            work, self._work = self._work, None
            work.cancel()
            await self._stop_watching()
            await asyncio.wait({work})
        if work.cancelled():
            raise Disconnected("client went away")
        work.result()
        return not self._hijacked and not self._draining and await self._finish_cycle()

    async def _receive_head(self) -> h11.Request | None:
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                while True:
                    event = self._h11.next_event()
                    if isinstance(event, h11.Request):
                        return event
                    if isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
                        return None
                    if self._eof:
                        return None
                    data = await self._transport.read()
                    self._eof = not data
                    self._h11.receive_data(data)
        except TimeoutError:
            return None

    async def _answer(self, head: h11.Request) -> None:
        method = head.method.decode("ascii")
        target = head.target.decode("latin-1")
        logger.debug("%s %s %s", self._transport.peer, method, target)
        try:
            response = await self._call_handler(method, target, head)
        except (ApiError, Disconnected) as error:
            if self._hijacked:
                raise Disconnected(f"{method} {target}: session ended: {error}") from error
            if isinstance(error, Disconnected):
                raise
            if error.status >= 500:
                logger.warning("%s %s: %d %s", method, target, error.status, error.message)
            response = _error_response(error.status, error.message)
        except Exception as error:
            logger.exception("%s %s failed", method, target)
            if self._hijacked:
                raise Disconnected("session ended by a bug") from error
            response = _error_response(500, f"internal error in operation {operation.current()}")
        if not self._hijacked:
            await self._send(response, head_only=method == "HEAD")

    async def _call_handler(self, method: str, target: str, head: h11.Request) -> Response:
        raw_path, _, raw_query = target.partition("?")
        version, path = negotiate(_SLASHES.sub("/", unquote(raw_path)))
        headers: dict[str, str] = {}
        for raw_name, raw_value in head.headers:
            name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        route, match = self._application.router.find(method, path, version)
        self._cancellable = route.blocking
        if self._cancellable and self._eof:
            raise Disconnected("client went away")
        request = Request(
            method=method,
            path=path,
            version=version,
            query=Query(raw_query),
            headers=headers,
            exchange=self,
            peer=self._transport.peer,
            match=match,
            upgrade="upgrade" in headers.get("connection", "").lower() and "upgrade" in headers,
            has_body=not self._body_done,
        )
        try:
            return await route.handler(request)
        finally:
            self._cancellable = False

    # ------------------------------------------------------------ body and watcher

    async def receive(self) -> bytes:
        while not self._body_done:
            try:
                event = self._pending.popleft() if self._pending else self._h11.next_event()
            except h11.RemoteProtocolError as error:
                raise BadRequest(f"malformed request body: {error}") from error
            if isinstance(event, h11.Data):
                return bytes(event.data)
            if isinstance(event, h11.EndOfMessage):
                self._complete_body()
            elif event is h11.NEED_DATA:
                await self._read_body_bytes()
            else:
                raise Disconnected("connection closed inside a request body")
        return b""

    async def _read_body_bytes(self) -> None:
        if self._awaits_continue:
            self._awaits_continue = False
            go_on = self._h11.send(h11.InformationalResponse(status_code=100, headers=[]))
            assert go_on is not None
            await self._transport.write(go_on)
        data = await self._transport.read()
        if not data:
            self._eof = True
            raise Disconnected("connection closed inside a request body")
        self._h11.receive_data(data)

    def _peek_body_end(self) -> None:
        """A request without a body is complete at once, whether the handler asks or not."""
        try:
            event = self._h11.next_event()
        except h11.RemoteProtocolError:
            return  # the handler hears of it when it reads
        if isinstance(event, h11.EndOfMessage):
            self._complete_body()
        elif event is not h11.NEED_DATA:
            self._pending.append(event)

    def _complete_body(self) -> None:
        self._body_done = True
        self._watcher = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        try:
            while self._read_ahead < MAX_READ_AHEAD:
                data = await self._transport.read()
                if not data:
                    break
                self._read_ahead += len(data)
                self._h11.receive_data(data)
            else:
                return  # too much is waiting: leave the rest in the kernel
        except Disconnected:
            pass
        self._eof = True
        if self._cancellable and self._work is not None:
            self._work.cancel()

    async def _stop_watching(self) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
            await asyncio.wait({watcher})

    # ------------------------------------------------------------ answers

    async def _send(self, response: Response, *, head_only: bool) -> None:
        body = response.body
        headers = [*self._application.headers, *response.headers]
        if isinstance(body, bytes):
            if response.status not in (204, 304) and not any(
                n.lower() == "content-length" for n, _ in headers
            ):
                headers.append(("Content-Length", str(len(body))))
            data = self._encode(
                h11.Response(status_code=response.status, headers=headers, reason=_reason(response.status))
            )
            if body and not head_only and response.status not in (204, 304):
                data += self._encode(h11.Data(data=body))
            await self._transport.write(data + self._encode(h11.EndOfMessage()))
            return
        try:
            if self._eof:
                raise Disconnected("client went away")
            self._cancellable = True
            await self._transport.write(
                self._encode(
                    h11.Response(
                        status_code=response.status, headers=headers, reason=_reason(response.status)
                    )
                )
            )
            if not head_only:
                async for chunk in body:
                    if chunk:
                        await self._transport.write(self._encode(h11.Data(data=chunk)))
            self._cancellable = False
            await self._transport.write(self._encode(h11.EndOfMessage()))
        except ApiError as error:  # too late for a status: cutting the stream is the only honest sign left
            raise Disconnected(f"answer cut short: {error.message}") from error
        finally:
            await _close_iterator(body)

    def _encode(self, event: h11.Event) -> bytes:
        return self._h11.send(event) or b""

    async def hijack(self, content_type: str) -> Duplex:
        while await self.receive():  # what is left of the request's body is not the session's input
            pass
        await self._stop_watching()
        upgraded = self._h11.their_state is _MIGHT_SWITCH
        lines = [("Content-Type", content_type), *self._application.headers]
        if upgraded:
            lines[:0] = [("Connection", "Upgrade"), ("Upgrade", "tcp")]
        status = "101 UPGRADED" if upgraded else "200 OK"
        head = f"HTTP/1.1 {status}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines) + "\r\n"
        self._hijacked = True
        await self._transport.write(head.encode("latin-1"))
        return Duplex(self._transport, bytes(self._h11.trailing_data[0]))

    async def _finish_cycle(self) -> bool:
        """Make the connection ready for the next request; False when it must close."""
        if self._awaits_continue:  # h11 forgets it with the answer; the client may or may not send its body
            return False
        discarded = 0
        try:
            async with asyncio.timeout(DISCARD_SECONDS):
                while not self._body_done:
                    if discarded > DISCARD_BYTES:
                        return False
                    discarded += len(await self.receive())
        except (BadRequest, TimeoutError):
            return False
        await self._stop_watching()
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        self._h11.start_next_cycle()
        return True

    async def _refuse(self, error: h11.RemoteProtocolError) -> None:
        """Not HTTP, or too large: say so when h11 still can."""
        if self._h11.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        status = error.error_status_hint
        response = _error_response(status, str(error))
        response.headers = [*response.headers, ("Connection", "close")]
        await self._send(response, head_only=False)


def _error_response(status: int, message: str) -> Response:
    if status == 304:
        return Response(status=304)
    return json_response({"message": message}, status)


def _reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return b""


async def _close_iterator(body: AsyncIterator[bytes]) -> None:
    if isinstance(body, AsyncGenerator):
        await body.aclose()
