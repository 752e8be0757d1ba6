"""Forked children and what they say, in a process of its own (the tests' is multi-threaded)."""

from __future__ import annotations

import subprocess
import sys

import pytest

CASES = {
    "a child that execs reports nothing": (
        "os.execv('/bin/echo', ['echo', 'hi'])",
        "None b'hi\\n' 0",
    ),
    "a failure comes with its code": (
        "raise Failure('no such thing', 127)",
        "127 no such thing b'' 128",
    ),
    "any exception is a failure to start": (
        "raise OSError(13, 'Permission denied')",
        "128 [Errno 13] Permission denied b'' 128",
    ),
    "other descriptors are closed": (
        "seen = set(map(int, os.listdir('/proc/self/fd'))) - {0, 1, 2, channels.report, keep, bundle};"
        " print(len(seen) == 1, flush=True); os._exit(0)",  # one is the listing's own
        "None b'True\\n' 0",
    ),
    "late imports find their bundle": (
        "print(os.fstat(sys.meta_path[0].file) == os.fstat(bundle), flush=True); os._exit(0)",
        "None b'True\\n' 0",
    ),
    "ignored signals are not inherited": (
        "print(signal.getsignal(signal.SIGPIPE) == signal.SIG_DFL, flush=True); os._exit(0)",
        "None b'True\\n' 0",
    ),
}
PROGRAM = """
import os, signal, sys
from tether.become import Failure
from tether.spawn import OWN_NAMESPACE, fork_child, open_channels, read_report
keep = os.open("/dev/null", os.O_RDONLY)
bundle = os.open("/dev/full", os.O_RDONLY)
sys.meta_path.insert(0, type("Bundle", (), dict(file=bundle, find_spec=lambda *words: None))())
other = os.open("/dev/zero", os.O_RDONLY)
def body(channels):
    {body}
spawned = fork_child(body, *open_channels(tty=False, stdin=False), pid_namespace=OWN_NAMESPACE, keep=(keep,))
failure = read_report(spawned.report)
out = b""
while piece := os.read(spawned.stdout, 4096):
    out += piece
_, status = os.waitpid(spawned.pid, 0)
print(*([None] if failure is None else [failure.code, failure]), out, os.waitstatus_to_exitcode(status))
"""


@pytest.mark.parametrize("name", CASES)
def test_forked_children(name: str) -> None:
    body, expected = CASES[name]
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.stdout.strip() == expected, result.stderr
