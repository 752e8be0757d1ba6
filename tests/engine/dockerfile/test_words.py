"""Words: quotes, escapes and variables with their modifiers."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.dockerfile.errors import DockerfileError
from engine.dockerfile.words import Expander, split

VARIABLES = {"A": "one", "B": "two words", "EMPTY": "", "PATH_": "/usr/local/bin", "F": "a.tar.gz"}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("plain", "plain"),
        ("$A-${A}x", "one-onex"),
        ("$Ax", ""),
        ("'$A'", "$A"),
        ('"$A $B"', "one two words"),
        ("\\$A", "$A"),
        ('"\\$A \\" \\n"', '$A " \\n'),
        ("'it\\'", "it\\"),
        ("$", "$"),
        ("a$ b", "a$ b"),
        ("${NONE}", ""),
        ("${NONE:-x}", "x"),
        ("${EMPTY:-x}${EMPTY-y}", "x"),
        ("${NONE-y}", "y"),
        ("${A:+x}${EMPTY:+y}${EMPTY+z}", "xz"),
        ("${NONE:-${A}/$B}", "one/two words"),
        ("${NONE:-'a}'}", "a}"),
        ("${A:?no}", "one"),
        ("${PATH_#*/}", "usr/local/bin"),
        ("${PATH_##*/}", "bin"),
        ("${PATH_%/*}", "/usr/local"),
        ("${PATH_%%/*}", ""),
        ("${F%.*}", "a.tar"),
        ("${F%%.*}", "a"),
        ("${F/./-}", "a-tar.gz"),
        ("${F//./-}", "a-tar-gz"),
        ("${F//./}", "atargz"),
        ("${F/.tar}", "a.gz"),
    ],
)
def test_expansion(text: str, expanded: str) -> None:
    assert Expander(VARIABLES, "\\").word(text) == expanded


def test_the_escape_character_is_the_files() -> None:
    assert Expander(VARIABLES, "`").word("`$A\\$A") == "$A\\one"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("${A", "missing '}'"),
        ("${A:-x", "missing '}'"),
        ("${}", "bad substitution"),
        ("${A:x}", "unsupported modifier (:x)"),
        ("${A!x}", "unsupported modifier (!)"),
        ("'a", "single-quote"),
        ('"a', "double-quote"),
        ("${NONE:?must be there}", "NONE: must be there"),
        ("${NONE?}", "NONE: is not allowed to be unset"),
    ],
)
def test_what_cannot_be_expanded(text: str, words: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        Expander(VARIABLES, "\\").word(text)
    assert words in str(caught.value)
    assert str(caught.value).startswith('failed to process "')


def test_words_of_a_variable() -> None:
    expander = Expander(VARIABLES, "\\")
    assert expander.words("$B x") == ["two", "words", "x"]
    assert expander.words('"$B" x') == ["two words", "x"]
    assert expander.words("$EMPTY") == []
    assert expander.words("''") == [""]


def test_splitting_keeps_quotes() -> None:
    assert split("a='b c' d\\ e  \"f g\"", "\\") == ["a='b c'", "d\\ e", '"f g"']
    assert split("  ", "\\") == []


@given(st.text(alphabet="ab$ {}:-+?#%/'\"\\_", max_size=30))
def test_any_word_is_expanded_or_refused(text: str) -> None:
    with contextlib.suppress(DockerfileError):
        Expander({"a": "b*", "b": "$a"}, "\\").word(text)


@given(st.text(max_size=30).filter(lambda text: "'" not in text))
def test_single_quotes_are_literal(text: str) -> None:
    assert Expander({"a": "b"}, "\\").word(f"'{text}'") == text


@given(st.text(alphabet="ab $'\"\\\n", max_size=20))
def test_splitting_loses_nothing_but_spaces(text: str) -> None:
    assert "".join("".join(split(text, "\\")).split()) == "".join(text.split())
