"""ps arguments of docker top."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.containers.pscolumns import parse_ps_args, table
from engine.http import BadRequest
from tether import tether_pb2

PROCESS = tether_pb2.ProcessInfo(
    pid=7,
    ppid=1,
    uid=5,
    user="app",
    argv=[b"serve", b"-x\xff"],
    comm="serve",
    cpu_ns=3_725_000_000_000,
    rss=4096,
    vsz=8192,
    stat="Ss",
)


def titles(arguments: str) -> list[str]:
    return [column.title for column in parse_ps_args(arguments)]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("-ef", "UID PID PPID C STIME TTY TIME CMD"),
        ("aux", "USER PID %CPU VSZ RSS TTY STAT START TIME COMMAND"),
        ("-o pid,comm", "PID COMMAND"),
        ("-opid", "PID"),
        ("-eo user,pid=NUMBER,args", "USER NUMBER COMMAND"),
        ("axo pid", "PID"),
        ("--format pid,vsz", "PID VSZ"),
        ("-A", "PID TTY TIME COMMAND"),
    ],
)
def test_layouts(arguments: str, expected: str) -> None:
    assert titles(arguments) == expected.split()


@pytest.mark.parametrize("arguments", ["-Z", "-o nonsense", "--forest", "-ef --sort=pid", "-o"])
def test_what_is_not_understood_is_named(arguments: str) -> None:
    with pytest.raises(BadRequest, match=r"^ps: "):
        parse_ps_args(arguments)


def test_cells() -> None:
    columns = parse_ps_args("-o pid,ppid,user,time,rss,vsz,stat,args,tty")
    assert table(columns, [PROCESS]) == [["7", "1", "app", "01:02:05", "4", "8", "Ss", "serve -x\ufffd", "?"]]


@given(st.text(max_size=40) | st.from_regex(r"-?[a-zA-Z]{0,6}o? ?[a-z,=]{0,20}", fullmatch=True))
def test_no_argument_is_our_fault(arguments: str) -> None:
    with contextlib.suppress(BadRequest):
        table(parse_ps_args(arguments), [PROCESS])
