"""Words of an instruction: split at spaces outside quotes, and expanded with variables.

`split` keeps quotes and escapes (they are `expand`'s business), `expand` takes them away and puts
variables in: ``$name``, ``${name}``, and the modifiers ``:-  -  :+  +  :?  ?  #  ##  %  %%  /  //``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from engine.dockerfile.errors import DockerfileError

__all__ = ["Expander", "split"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]|[@*#?$!-]")
_NESTING = 20
_RESULT_LIMIT = 1 << 20


def split(text: str, escape: str) -> list[str]:
    words: list[str] = []
    start = -1
    quote = ""
    position = 0
    while position < len(text):
        char = text[position]
        if start < 0:
            if char.isspace():
                position += 1
                continue
            start = position
        if char == escape and quote != "'" and position + 1 < len(text):
            position += 2
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char.isspace():
            words.append(text[start:position])
            start = -1
        position += 1
    if start >= 0:
        words.append(text[start:])
    return words


class Expander:
    """Expansion with one set of variables."""

    def __init__(self, variables: Mapping[str, str], escape: str) -> None:
        self._variables = variables
        self._escape = escape
        self.used: set[str] = set()

    def word(self, text: str) -> str:
        """One word, whatever spaces a variable's value has. Raises DockerfileError."""
        return "".join(text for text, _ in self._scan(text))

    def words(self, text: str) -> list[str]:
        """Several words when an unquoted variable's value has spaces."""
        words: list[str] = []
        current: list[str] | None = None
        for piece, splits in self._scan(text):
            if not splits:
                current = [*(current or []), piece]
                continue
            parts = re.split(r"\s+", piece)
            for number, part in enumerate(parts):
                if number:
                    if current is not None:
                        words.append("".join(current))
                    current = None
                if part:
                    current = [*(current or []), part]
        if current is not None:
            words.append("".join(current))
        return words

    def _scan(self, text: str) -> list[tuple[str, bool]]:
        try:
            pieces, _ = _Scan(text, self._variables, self._escape, self.used).run("")
        except DockerfileError as error:
            raise DockerfileError(f'failed to process "{text[:200]}": {error}') from error
        if sum(len(piece) for piece, _ in pieces) > _RESULT_LIMIT:
            raise DockerfileError(f'failed to process "{text[:200]}": the result is too long')
        return pieces


class _Scan:
    """One pass over a text; a nested word (behind a modifier) is a pass of its own kind."""

    def __init__(
        self, text: str, variables: Mapping[str, str], escape: str, used: set[str], depth: int = 0
    ) -> None:
        self._text = text
        self._variables = variables
        self._escape = escape
        self._used = used
        self._depth = depth
        self._at = 0

    def run(self, stop: str) -> tuple[list[tuple[str, bool]], int]:
        """(text, came from an unquoted variable) up to ``stop``; the position behind it."""
        if self._depth > _NESTING:
            raise DockerfileError("variables nest too deeply")
        pieces: list[tuple[str, bool]] = []
        while self._at < len(self._text):
            char = self._text[self._at]
            if stop and char in stop:
                return pieces, self._at
            if char == "'":
                pieces.append((self._single(), False))
            elif char == '"':
                pieces.append((self._double(), False))
            elif char == "$":
                pieces.append((self._dollar(), True))
            elif char == self._escape:
                self._at += 1
                if self._at < len(self._text):
                    pieces.append((self._text[self._at], False))
                    self._at += 1
            else:
                pieces.append((char, not stop and char.isspace()))
                self._at += 1
        if stop:
            raise DockerfileError("syntax error: missing '}'")
        return pieces, self._at

    def _single(self) -> str:
        end = self._text.find("'", self._at + 1)
        if end < 0:
            raise DockerfileError("unexpected end of statement while looking for matching single-quote")
        found = self._text[self._at + 1 : end]
        self._at = end + 1
        return found

    def _double(self) -> str:
        found: list[str] = []
        self._at += 1
        while self._at < len(self._text):
            char = self._text[self._at]
            if char == '"':
                self._at += 1
                return "".join(found)
            if char == "$":
                found.append(self._dollar())
                continue
            following = self._text[self._at + 1 : self._at + 2]
            if char == self._escape and following in ('"', "$", self._escape) and following:
                char = following
                self._at += 1
            found.append(char)
            self._at += 1
        raise DockerfileError("unexpected end of statement while looking for matching double-quote")

    def _dollar(self) -> str:
        self._at += 1
        if self._text[self._at : self._at + 1] != "{":
            match = _NAME.match(self._text, self._at)
            if match is None:
                return "$"
            self._at = match.end()
            return self._value(match[0]) or ""
        self._at += 1
        if self._text[self._at : self._at + 1] == "}":
            raise DockerfileError("syntax error: bad substitution")
        match = _NAME.match(self._text, self._at)
        if match is None:
            raise DockerfileError("syntax error: bad substitution")
        self._at = match.end()
        return self._braced(match[0])

    def _value(self, name: str) -> str | None:
        self._used.add(name)
        return self._variables.get(name)

    def _braced(self, name: str) -> str:
        value = self._value(name)
        operator = self._text[self._at : self._at + 1]
        if operator == "}":
            self._at += 1
            return value or ""
        if not operator:
            raise DockerfileError("syntax error: missing '}'")
        self._at += 1
        if operator in "#%":
            greedy = self._text[self._at : self._at + 1] == operator
            self._at += greedy
            pattern = self._nested("}", patterns=True)
            return _trimmed(value or "", pattern, operator, greedy=greedy)
        if operator == "/":
            everywhere = self._text[self._at : self._at + 1] == "/"
            self._at += everywhere
            pattern = self._nested("/}", patterns=True)
            replacement = self._nested("}") if self._text[self._at - 1] == "/" else ""
            return re.sub(_pattern(pattern), lambda _: replacement, value or "", count=0 if everywhere else 1)
        null_counts = operator == ":"
        if null_counts:
            operator = self._text[self._at : self._at + 1]
            self._at += 1
        if operator not in ("-", "+", "?"):
            shown = f":{operator}" if null_counts else operator
            raise DockerfileError(f"unsupported modifier ({shown}) in substitution")
        word = self._nested("}")
        is_set = value is not None and not (null_counts and not value)
        if operator == "+":
            return word if is_set else ""
        if is_set:
            return value or ""
        if operator == "-":
            return word
        raise DockerfileError(f"{name}: {word or 'is not allowed to be unset'}")

    def _nested(self, stop: str, *, patterns: bool = False) -> str:
        """The word behind a modifier, expanded. In patterns, a literal * or ? stays escaped."""
        inner = _Scan(self._text, self._variables, self._escape, self._used, self._depth + 1)
        inner._at = self._at
        start = self._at
        pieces, end = inner.run(stop)
        self._at = end + 1
        if patterns and self._escape in self._text[start:end]:
            return self._text[start:end]
        return "".join(piece for piece, _ in pieces)


def _pattern(pattern: str) -> str:
    out: list[str] = []
    characters = iter(pattern)
    for char in characters:
        if char == "*":
            if not out or out[-1] != ".*":
                out.append(".*")
        elif char == "?":
            out.append(".")
        elif char == "\\":
            out.append(re.escape(next(characters, "\\")))
        else:
            out.append(re.escape(char))
    return "(?s:" + "".join(out) + ")"


def _trimmed(value: str, pattern: str, operator: str, *, greedy: bool) -> str:
    matches: Callable[[str], object] = re.compile(_pattern(pattern)).fullmatch
    lengths = range(len(value), -1, -1) if greedy else range(len(value) + 1)
    for length in lengths:
        part = value[:length] if operator == "#" else value[len(value) - length :]
        if matches(part):
            return value[length:] if operator == "#" else value[: len(value) - length]
    return value
