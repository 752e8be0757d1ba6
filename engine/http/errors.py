"""Errors that are answers: raise one anywhere below a handler.

::

    ApiError            status, message; the body is {"message": …}
      ├─ NotModified        304  (no body)
      ├─ BadRequest         400
      ├─ Unauthorized       401
      ├─ Forbidden          403
      ├─ NotFound           404
      ├─ Conflict           409
      ├─ TooLarge           413
      ├─ InternalError      500
      ├─ Unsupported        501  names what is not supported
      └─ Unavailable        503

``Disconnected`` is not an answer: the client has gone, nobody hears us.
"""

from __future__ import annotations

__all__ = [
    "ApiError",
    "BadRequest",
    "Conflict",
    "Disconnected",
    "Forbidden",
    "InternalError",
    "NotFound",
    "NotModified",
    "TooLarge",
    "Unauthorized",
    "Unavailable",
    "Unsupported",
]


class ApiError(Exception):
    """An answer other than success. ``message`` is a sentence for the person at the client."""

    status = 500

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        if status is not None:
            self.status = status


class NotModified(ApiError):
    status = 304


class BadRequest(ApiError):
    status = 400


class Unauthorized(ApiError):
    status = 401


class Forbidden(ApiError):
    status = 403


class NotFound(ApiError):
    status = 404


class Conflict(ApiError):
    status = 409


class TooLarge(ApiError):
    status = 413


class InternalError(ApiError):
    status = 500


class Unsupported(ApiError):
    """Not there (yet): the message names the option or endpoint."""

    status = 501


class Unavailable(ApiError):
    status = 503


class Disconnected(Exception):
    """The client is gone; whatever was going to be said is moot."""
