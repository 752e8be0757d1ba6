"""The golden transcript: the script on a fresh VCH gives what it gave when it was compared with dockerd."""

from __future__ import annotations

import pytest

from tests.sidebyside.recording import run_script
from tests.sidebyside.transcript import Entry
from tools.differences import page, transcript

LONG = 900


def test_every_difference_is_explained() -> None:
    assert page()[1] == []


@pytest.mark.system
@pytest.mark.slow  # to be looked at by a person: `make soak`, or `make sidebyside` for a new one
@pytest.mark.timeout(LONG)
def test_the_transcript_is_the_golden_one() -> None:
    golden = transcript("mooring")
    fresh: list[Entry] = run_script("mooring")
    assert [entry for entry, known in zip(fresh, golden, strict=True) if entry != known] == []
