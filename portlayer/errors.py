"""The one error the rooms of the port layer raise to their callers.

The gRPC servicers turn it into a status: ``reason`` travels as trailing
metadata, ``str(error)`` is the sentence an end user reads.
"""

from __future__ import annotations

from portlayer.portlayer_pb2 import Reason

__all__ = ["PortLayerError"]


class PortLayerError(Exception):
    """What went wrong, for whom, and what to do: ``message`` is fit for an end user."""

    def __init__(self, reason: Reason.ValueType, message: str, *, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.exit_code = exit_code  # LAUNCH_FAILED only: 126, 127 or 128
