"""The host's end of the tether channel: one guest, calls and streams, over any byte stream.

`TetherChannel` owns the connection: it makes it, resets it, notices that it is
dead, makes it again. Calls do not survive their connection (`ChannelLost`):
whoever needs more resumes by offset, sequence number or ID. A guest that
floods, lies or never answers costs its own channel only, and bounded memory.
"""

from portlayer.channel.client import TetherChannel
from portlayer.channel.connection import Timing
from portlayer.channel.errors import ChannelClosed, ChannelError, ChannelLost, TetherError
from portlayer.channel.stream import ChannelStream

__all__ = [
    "ChannelClosed",
    "ChannelError",
    "ChannelLost",
    "ChannelStream",
    "TetherChannel",
    "TetherError",
    "Timing",
]
