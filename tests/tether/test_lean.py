"""The stand-ins of the frozen program, in interpreters of their own."""

from __future__ import annotations

import subprocess
import sys

RECORDS = """
class Plain(NamedTuple):
    a: int
    b: str

class Defaults(NamedTuple):
    a: int
    b: int = 2
    c: int = 3

p = Plain(1, "x")
assert p == (1, "x") and p.a == 1 and p.b == "x" and repr(p) == "Plain(a=1, b='x')", p
assert Plain(b="y", a=2) == (2, "y") and isinstance(p, tuple) and hash(p) == hash((1, "x"))
assert p._replace(b="z") == Plain(1, "z") and p._fields == ("a", "b")
first, second = p
d = Defaults(1)
assert d == (1, 2, 3) and Defaults(1, c=9) == (1, 2, 9) and Defaults(b=5, a=4)._replace(c=0) == (4, 5, 0)
for wrong in (lambda: Plain(1), lambda: Plain(1, "x", 3), lambda: Plain(1, a=1, b="x"), lambda: Plain(1, z=3)):
    try:
        wrong()
    except TypeError:
        pass
    else:
        raise AssertionError("taken")
try:
    p.a = 3
except AttributeError:
    pass
else:
    raise AssertionError("changed")
"""


def run(program: str) -> str:
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_our_records_are_like_the_librarys() -> None:
    run("from typing import NamedTuple\n" + RECORDS)
    run("from tether.lean import Record as NamedTuple\n" + RECORDS)


def test_the_tether_imports_and_speaks_protobuf_on_the_stand_ins() -> None:
    program = """
import sys
before = set(sys.modules)
for name in ("typing", "re"):
    sys.modules.pop(name, None)  # a site module may have had them
from tether.lean import install
install()
import tether.init
from tether.tether_pb2 import BootConfig, Event, MainState
from google.protobuf.message import DecodeError
config = BootConfig(version=1, sysctls={"a": "b"})
config.process.argv.append("ls")
again = BootConfig.FromString(config.SerializeToString())
assert again == config and again.sysctls["a"] == "b" and not again.HasField("resources")
other = BootConfig()
other.CopyFrom(config)
assert other.process.argv == ["ls"]
assert MainState.State.Name(MainState.RUNNING) == "RUNNING"
try:
    Event.FromString(b"\\xff\\xff")
except DecodeError:
    pass
else:
    raise AssertionError("damage was taken")
real = [name for name in ("typing", "google.protobuf.text_format", "datetime") if
        getattr(sys.modules.get(name), "__spec__", None) is not None and name not in before]
print(real)
"""
    assert run(program) == "[]\n"
