from __future__ import annotations

import time

import pytest

from portlayer.syslog.message import Source, message

MOMENT = 1_700_000_003_123_456_789  # 2023-11-14T22:13:23Z


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("", b"<30>Nov 14 22:13:23 web[7]: hello\n"),
        ("rfc3164", b"<30>Nov 14 22:13:23 host web[7]: hello\n"),
        ("rfc5424", b"<30>1 2023-11-14T22:13:23Z host web 7 web - hello\n"),
        ("rfc5424micro", b"<30>1 2023-11-14T22:13:23.123456Z host web 7 web - hello\n"),
    ],
)
@pytest.mark.parametrize("line", [b"hello", b"hello\n"])
def test_formats(form: str, expected: bytes, line: bytes) -> None:
    source = Source(facility=3, tag="web", hostname="host", process=7, form=form)
    assert message(source, stream=1, time_ns=MOMENT, line=line) == expected


def test_stderr_is_an_error_and_a_counted_message_begins_with_its_length() -> None:
    source = Source(facility=23, tag="t", hostname="h", process=1, form="rfc5424", counted=True)
    made = message(source, stream=2, time_ns=MOMENT, line=b"\xff")
    length, _, rest = made.partition(b" ")
    assert int(length) == len(rest)
    assert rest.startswith(b"<187>1 ")
    assert rest.endswith(b" - \xff\n")
