"""The table of a call's phases, by hand."""

from __future__ import annotations

import pytest

from tether.callstate import Act, LocalProtocolError, Phase, RemoteProtocolError, advance


@pytest.mark.parametrize(
    ("acts", "end"),
    [
        ([Act.RESPOND], Phase.ANSWERED),
        ([Act.FINISH], Phase.CLOSED),
        ([Act.HOST_DATA, Act.HOST_END, Act.RESPOND], Phase.ANSWERED_ENDED),
        ([Act.RESPOND, Act.GUEST_DATA, Act.HOST_END, Act.GUEST_DATA, Act.FINISH], Phase.CLOSED),
        ([Act.GUEST_DATA], Phase.ANSWERED),
        ([Act.HOST_END, Act.GUEST_DATA, Act.GUEST_DATA], Phase.ANSWERED_ENDED),
        ([Act.HOST_END, Act.CANCEL], Phase.CLOSED),
        ([Act.RESPOND, Act.ERROR], Phase.CLOSED),
    ],
)
def test_a_course_of_a_call(acts: list[Act], end: Phase) -> None:
    phase = Phase.ASKED
    for act in acts:
        phase = advance(phase, act, LocalProtocolError)
    assert phase is end


@pytest.mark.parametrize(
    ("phase", "act"),
    [
        (Phase.ANSWERED, Act.RESPOND),
        (Phase.ANSWERED_ENDED, Act.RESPOND),
        (Phase.ASKED_ENDED, Act.HOST_DATA),
        (Phase.ASKED_ENDED, Act.HOST_END),
        (Phase.ANSWERED_ENDED, Act.HOST_END),
        *((Phase.CLOSED, act) for act in Act),
    ],
)
def test_an_illegal_step_is_blamed_on_who_took_it(phase: Phase, act: Act) -> None:
    for blame in (LocalProtocolError, RemoteProtocolError):
        with pytest.raises(blame, match=phase.value):
            advance(phase, act, blame)
