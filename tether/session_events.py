"""What happens in a session, as `Session.receive` reports it."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from tether.callstate import RemoteProtocolError

__all__ = [
    "CancelReceived",
    "DataReceived",
    "ErrorReceived",
    "Event",
    "PongReceived",
    "RequestReceived",
    "ResponseReceived",
    "SessionFailed",
    "SessionStarted",
]


class SessionStarted(NamedTuple):
    """Both sides have reset; every stream of before is gone."""


class SessionFailed(NamedTuple):
    """The peer broke the protocol; every stream is gone. The guest waits for a reset."""

    error: RemoteProtocolError


class RequestReceived(NamedTuple):
    stream: int
    method: str
    body: bytes


class ResponseReceived(NamedTuple):
    stream: int
    body: bytes
    end: bool


class ErrorReceived(NamedTuple):
    stream: int
    code: int
    message: str


class DataReceived(NamedTuple):
    stream: int
    body: bytes
    end: bool


class CancelReceived(NamedTuple):
    stream: int


class PongReceived(NamedTuple):
    body: bytes


Event: TypeAlias = (
    SessionStarted
    | SessionFailed
    | RequestReceived
    | ResponseReceived
    | ErrorReceived
    | DataReceived
    | CancelReceived
    | PongReceived
)
