"""What can go wrong on a channel.

ChannelError
├── ChannelLost      the connection died, or the guest broke the protocol: resume on the next one
├── ChannelClosed    we closed the channel: do not try again
└── TetherError      the guest's own answer: a code and its words
"""

from __future__ import annotations

from tether.wire import Code

__all__ = ["ChannelClosed", "ChannelError", "ChannelLost", "TetherError"]


class ChannelError(Exception):
    """Any failure of a call to a guest."""


class ChannelLost(ChannelError):
    """The call's connection is gone. Whether the guest acted on the call is unknown."""


class ChannelClosed(ChannelError):
    """The channel was closed on this side."""


class TetherError(ChannelError):
    """The guest refused, or did not answer in time (``DEADLINE_EXCEEDED``)."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        try:
            self.code = Code(code)
        except ValueError:  # the guest may say any number
            self.code = Code.UNKNOWN
