"""The operation ID: born with an API request, on every log line it causes, on both sides.

It lives in a context variable, so tasks started by a request carry it along
without anybody passing it. Work that no request caused gets an ID of its own
from :func:`begin`.
"""

from __future__ import annotations

import contextvars
import logging
import secrets

__all__ = ["METADATA_KEY", "OperationFilter", "begin", "current"]

METADATA_KEY = "mooring-operation"  # gRPC metadata towards the port layer

_current: contextvars.ContextVar[str] = contextvars.ContextVar("operation", default="-")


def begin() -> str:
    """Give the running task (and the tasks it starts) a new operation ID."""
    operation = secrets.token_hex(8)
    _current.set(operation)
    return operation


def current() -> str:
    return _current.get()


class OperationFilter(logging.Filter):
    """Adds ``operation`` to every record for the log format."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.operation = current()
        return True
