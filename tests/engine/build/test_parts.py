"""The builder's pure parts: options, arguments, ignore patterns, owners, cache keys."""

import json
from urllib.parse import urlencode

import pytest

from engine.build.arguments import BuildArguments
from engine.build.cache import step_key
from engine.build.ignore import excluded
from engine.build.options import parse_options
from engine.build.owners import parse_mode, parse_owner
from engine.http import ApiError, BadRequest, Query, Unsupported

PASSWD = "root:x:0:0::/:\nweb:x:33:44::/:\nbroken\n"
GROUP = "root:x:0:\nweb:x:55:\nstaff:x:50:\n"


def options(**fields: object):
    return parse_options(Query(urlencode(fields, doseq=True)))


def test_options() -> None:
    found = options(
        t=["a:1", "b"],
        buildargs=json.dumps({"A": "1", "B": None}),
        labels=json.dumps({"k": "v"}),
        memory=1 << 30,
        networkmode="none",
        extrahosts="h:1.2.3.4",
        ulimits=json.dumps([{"Name": "nofile", "Soft": 1, "Hard": 2}]),
        rm=0,
        nocache=1,
        platform="linux/amd64",
    )
    assert [name.familiar for name in found.names] == ["a:1", "b:latest"]
    assert found.arguments == {"A": "1", "B": None}
    assert (found.labels, found.remove, found.use_cache) == ({"k": "v"}, False, False)
    assert (found.host.Memory, found.host.NetworkMode, found.host.ExtraHosts) == (
        1 << 30,
        "none",
        ["h:1.2.3.4"],
    )
    assert found.host.Ulimits[0].Hard == 2
    assert options().remove
    assert options().dockerfile == "Dockerfile"


@pytest.mark.parametrize(
    ("fields", "kind", "words"),
    [
        ({"version": "2"}, Unsupported, "DOCKER_BUILDKIT=0"),
        ({"session": "x"}, Unsupported, "need BuildKit"),
        ({"outputs": "[]"}, Unsupported, "outputs need BuildKit"),
        ({"squash": "1"}, BadRequest, "experimental"),
        ({"buildargs": "x"}, BadRequest, "error reading buildargs"),
        ({"buildargs": "[1]"}, BadRequest, "error reading buildargs"),
        ({"labels": '{"a":null}'}, BadRequest, "error reading labels"),
        ({"cachefrom": '"x"'}, BadRequest, "error reading cachefrom"),
        ({"t": "A"}, BadRequest, "must be lowercase"),
        ({"ulimits": '[{"Nope":1}]'}, BadRequest, "Nope"),
        ({"memory": "x"}, BadRequest, "memory"),
        ({"isolation": "hyperv"}, BadRequest, "isolation"),
    ],
)
def test_options_that_are_refused(fields: dict, kind: type[ApiError], words: str) -> None:
    with pytest.raises(kind, match=words):
        options(**fields)


def test_arguments() -> None:
    arguments = BuildArguments({"A": "given", "HTTP_PROXY": "p", "UNUSED": "x", "NONE": None})
    arguments.declare_meta("M", "meta")
    arguments.declare_meta("A", "default")
    assert arguments.meta() == {"M": "meta", "A": "given"}
    arguments.begin_stage()
    assert arguments.allowed({}) == {"HTTP_PROXY": "p"}
    for name, default in (("A", "x"), ("M", None), ("D", "d"), ("NONE", None)):
        arguments.declare(name, default)
    assert arguments.allowed({"D": "environment wins"}) == {"A": "given", "M": "meta", "HTTP_PROXY": "p"}
    assert arguments.counted(arguments.allowed({})) == ["A=given", "D=d", "M=meta"]
    arguments.begin_stage()
    assert arguments.allowed({}) == {"HTTP_PROXY": "p"}
    assert arguments.unused() == ["UNUSED"]


@pytest.mark.parametrize(
    ("path", "text", "left_out"),
    [
        ("a", "a", True),
        ("a/b", "a", True),
        ("a", "/a", True),
        ("b/a", "a", False),
        ("b/a", "**/a", True),
        ("a", "**/a", True),
        ("x/y/z.txt", "x/**/*.txt", True),
        ("x/z.txt", "*.txt", False),
        ("z.txt", "*.txt\n!z.txt", False),
        ("z.txt", "!z.txt\n*.txt", True),
        ("ab", "a?", True),
        ("ac", "a[b-d]", True),
        ("a", "# a\n\n", False),
        ("Dockerfile", "*\n!src", True),
    ],
)
def test_ignore_patterns(path: str, text: str, left_out: bool) -> None:
    assert excluded(path, text) is left_out


def test_owners() -> None:
    assert parse_owner("web", PASSWD, GROUP) == (33, 55)
    assert parse_owner("web:staff", PASSWD, GROUP) == (33, 50)
    assert parse_owner("7:8", "", "") == (7, 8)
    assert parse_owner("7", "", "") == (7, 7)
    for text, words in (
        ("nobody", "can't find uid for user nobody"),
        ("0:x", "can't find gid"),
        (":", "invalid chown"),
        ("a:b:c", "invalid chown"),
    ):
        with pytest.raises(BadRequest, match=words):
            parse_owner(text, PASSWD, GROUP)
    assert parse_mode("0755") == 0o755
    with pytest.raises(BadRequest, match="should be octal"):
        parse_mode("u+x")


def test_a_key_is_of_everything_that_makes_a_difference() -> None:
    base = step_key("p", {"A": 1, "B": 2}, ["x"], "linux/amd64")
    assert base == step_key("p", {"B": 2, "A": 1}, ["x"], "linux/amd64")
    others = [
        step_key("q", {"A": 1, "B": 2}, ["x"], "linux/amd64"),
        step_key("p", {"A": 1}, ["x"], "linux/amd64"),
        step_key("p", {"A": 1, "B": 2}, ["x", "y"], "linux/amd64"),
        step_key("p", {"A": 1, "B": 2}, ["x"], "linux/arm64"),
    ]
    assert len({base, *others}) == 5
