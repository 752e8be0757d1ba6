"""The states of one call, the same table at both ends.

    ASKED ──answer──▶ ANSWERED        the guest's half: one answer, then data
      │                  │
    host END          host END        the host's half: data until its END
      ▼                  ▼
    ASKED_ENDED ─────▶ ANSWERED_ENDED
      └──────┬───────────┘
    FINISH, ERROR (guest) or CANCEL (host), from anywhere
             ▼
          CLOSED

A call that goes wrong is somebody's fault: `LocalProtocolError` is a bug in our
own code and leaves the session as it was; `RemoteProtocolError` is the peer's
and ends the session.
"""

from __future__ import annotations

import enum

__all__ = ["Act", "LocalProtocolError", "Phase", "ProtocolError", "RemoteProtocolError", "advance"]


class ProtocolError(Exception):
    """Something was said on the channel that its state does not allow."""


class LocalProtocolError(ProtocolError):
    """We tried to."""


class RemoteProtocolError(ProtocolError):
    """The peer did."""


class Phase(enum.Enum):
    ASKED = "asked"
    ANSWERED = "answered"
    ASKED_ENDED = "asked, host's half ended"
    ANSWERED_ENDED = "answered, host's half ended"
    CLOSED = "closed"

    @property
    def host_may_send(self) -> bool:
        return self in (Phase.ASKED, Phase.ANSWERED)


class Act(enum.Enum):
    RESPOND = "the first answer"
    GUEST_DATA = "data from the guest"
    FINISH = "the guest's last word"
    ERROR = "an error from the guest"
    HOST_DATA = "data from the host"
    HOST_END = "the end of the host's half"
    CANCEL = "a cancellation"


_TABLE: dict[tuple[Phase, Act], Phase] = {
    (Phase.ASKED, Act.RESPOND): Phase.ANSWERED,
    (Phase.ASKED, Act.GUEST_DATA): Phase.ANSWERED,
    (Phase.ASKED, Act.HOST_DATA): Phase.ASKED,
    (Phase.ASKED, Act.HOST_END): Phase.ASKED_ENDED,
    (Phase.ANSWERED, Act.GUEST_DATA): Phase.ANSWERED,
    (Phase.ANSWERED, Act.HOST_DATA): Phase.ANSWERED,
    (Phase.ANSWERED, Act.HOST_END): Phase.ANSWERED_ENDED,
    (Phase.ASKED_ENDED, Act.RESPOND): Phase.ANSWERED_ENDED,
    (Phase.ASKED_ENDED, Act.GUEST_DATA): Phase.ANSWERED_ENDED,
    (Phase.ANSWERED_ENDED, Act.GUEST_DATA): Phase.ANSWERED_ENDED,
    **{
        (phase, act): Phase.CLOSED
        for phase in Phase
        if phase is not Phase.CLOSED
        for act in (Act.FINISH, Act.ERROR, Act.CANCEL)
    },
}


def advance(phase: Phase, act: Act, blame: type[ProtocolError]) -> Phase:
    """The phase after ``act``.

    Raises:
        blame: the table does not know the step.
    """
    try:
        return _TABLE[phase, act]
    except KeyError:
        raise blame(f"{act.value} on a call that is {phase.value}") from None
