"""Dockerfiles as logical lines: directives, comments, continuations, and text that is none of it."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.dockerfile.errors import DockerfileError
from engine.dockerfile.instructions import parse_dockerfile
from engine.dockerfile.source import parse_source


def lines(text: str) -> list[tuple[int, str]]:
    return [(line.number, line.text) for line in parse_source(text.encode()).lines]


def test_comments_and_continuations() -> None:
    assert lines("# comment\n\n  FROM a \nRUN x \\\n  # inside\n\n   y \\  \n z\n# end\n") == [
        (3, "FROM a"),
        (4, "RUN x    y  z"),
    ]
    assert lines("\ufeffFROM a\r\nRUN b \\\r\n c\r\n") == [(1, "FROM a"), (2, "RUN b  c")]
    assert lines("RUN a \\\\\nRUN b") == [
        (1, "RUN a \\\\"),
        (2, "RUN b"),
    ]  # an escaped backslash goes on nowhere
    assert lines("RUN a \\") == [(1, "RUN a")]


def test_an_empty_continuation_line_is_warned_of() -> None:
    source = parse_source(b"FROM a\nRUN x \\\n\n y")
    assert [warning.splitlines()[1] for warning in source.warnings] == ["    RUN x  y"]


def test_words_and_flags() -> None:
    line = parse_source(b"copy --from=a  --chown=b  x  --y z").lines[0]
    assert (line.word, line.flags, line.rest) == ("COPY", ("--from=a", "--chown=b"), "x  --y z")


def test_the_escape_directive() -> None:
    source = parse_source(b"# escape=`\nFROM a\nRUN x `\n y \\\nRUN z")
    assert source.escape == "`"
    assert [line.text for line in source.lines] == ["FROM a", "RUN x  y \\", "RUN z"]
    assert parse_source(b"FROM a\n# escape=`\n").escape == "\\"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be empty"),
        ("# nothing\n", "file with no instructions"),
        ("# escape=x\nFROM a", "line 1: invalid escape token 'x'"),
        ("# escape=\\\n# escape=\\\nFROM a", "line 2: only one escape parser directive can be used"),
        (
            "# syntax=other/frontend\nFROM a",
            "line 1: the syntax directive 'other/frontend' requires BuildKit",
        ),
        ("FROM a\nFOO b", "line 2: unknown instruction: FOO"),
        ("FROM a\n\nRUN", "line 3: RUN requires at least one argument"),
        ("RUN a", "no build stage in current context"),
        ("FROM", "line 1: FROM requires either one or three arguments"),
        ("FROM a b c", "line 1: FROM requires either one or three arguments"),
        ("FROM a AS 1x", "invalid name for build stage"),
        ("FROM a\nCOPY x", "Destination could not be determined"),
        ("FROM a\nCOPY --link x y", "the --link option requires BuildKit"),
        ("FROM a\nRUN --mount=type=cache x", "the --mount option requires BuildKit"),
        ("FROM a\nRUN cat <<EOF\nhello\nEOF", "here-document syntax"),
        ("FROM a\nCOPY --nope=1 x y", "unknown flag: --nope"),
        ("FROM a\nCOPY --from x y", "missing a value on flag: from"),
        ("FROM a\nCOPY --from=a --from=b x y", "duplicate flag specified: from"),
        ("FROM a\nSHELL x", "SHELL requires the arguments to be in JSON form"),
        ("FROM a\nHEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("FROM a\nHEALTHCHECK NONE x", "takes no arguments"),
        ("FROM a\nONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("FROM a\nONBUILD ONBUILD RUN x", "Chaining ONBUILD"),
        ("FROM a\nARG =x", "ARG names can not be blank"),
        ("FROM a\nENV =x", "ENV names can not be blank"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, words: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        parse_dockerfile(parse_source(text.encode()))
    assert words in str(caught.value)


def test_stages() -> None:
    text = '# syntax=docker/dockerfile:1\nARG V=1\nFROM a:$V AS One\nRUN x\nFROM --platform=linux/amd64 b\nCMD ["y"]'
    parsed = parse_dockerfile(parse_source(text.encode()))
    assert [argument.pairs for argument in parsed.arguments] == [(("V", "1"),)]
    assert [(s.base, s.name, s.platform, len(s.commands)) for s in parsed.stages] == [
        ("a:$V", "one", "", 1),
        ("b", "", "linux/amd64", 1),
    ]


@given(st.text(alphabet="FROM RUNCOPYENVaAg=\"'\\`$#{}[]<\n\t -:", max_size=80))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with contextlib.suppress(DockerfileError):
        parse_dockerfile(parse_source(text.encode()))


@given(st.lists(st.text(alphabet="abc \t", min_size=1, max_size=8).filter(str.strip), min_size=1, max_size=6))
def test_a_line_may_be_continued_anywhere(pieces: list[str]) -> None:
    joined = "RUN " + "".join(pieces)
    parted = "RUN " + "\\\n".join(pieces)
    assert [line.text for line in parse_source(parted.encode()).lines] == [joined.strip()]
