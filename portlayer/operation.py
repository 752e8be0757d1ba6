"""The operation ID: enters with a call, appears in every log line the call causes.

A context variable, so that tasks started by a call inherit it: the exit of a
container is logged under the operation that started it.
"""

from __future__ import annotations

import contextvars
import logging
import secrets

__all__ = ["METADATA_KEY", "OperationFilter", "current_operation", "new_operation", "set_operation"]

METADATA_KEY = "mooring-operation"
_LONGEST = 64

_operation: contextvars.ContextVar[str] = contextvars.ContextVar("operation", default="-")


def current_operation() -> str:
    return _operation.get()


def new_operation() -> str:
    return secrets.token_hex(6)


def set_operation(value: str) -> str:
    """Adopt the caller's ID (cut and cleaned: it ends up in log lines) or make one."""
    cleaned = "".join(c for c in value[:_LONGEST] if c.isalnum() or c in "-_.")
    chosen = cleaned or new_operation()
    _operation.set(chosen)
    return chosen


class OperationFilter(logging.Filter):
    """Adds ``operation`` to every record of the handler it sits on."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.operation = current_operation()
        return True
