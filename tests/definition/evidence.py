"""What the tests that passed have shown of the API: for each endpoint and option one test.

Filled by the observer (requests) and by the system tests' docker CLI (flags); written by the plug-in in
``tests/conftest.py`` when pytest ran with ``--evidence FILE``. The file is sorted, names of each thing the
test that shows it best (a real VM before a fake one, then the first by name), and keeps what this run did
not touch: so it comes out the same whatever the order.
"""

from __future__ import annotations

import ast
import functools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.definition.document import OLDEST, definition
from tests.definition.flags import flagged
from tests.definition.options import asked_fields

__all__ = ["COLLECTED", "Evidence", "test_exists"]

ROOT = Path(__file__).resolve().parent.parent.parent
REFUSED = (501, 503)
_CONTAINERS = (
    "HostConfig",
    "NetworkingConfig",
    "EndpointsConfig",
    "EndpointConfig",
    "Name",
    "Type",
    "Target",
    "Image",
)
NOTHING = ("", "0", "false", "none", "null", "{}", "[]")


@dataclass
class Call:
    """One request and what became of it."""

    method: str
    path: str
    version: tuple[int, int]
    query: Mapping[str, list[str]]
    body: bytes = b""
    status: int = 0
    refusal: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)  # query parameters the handler has looked at


@dataclass
class Evidence:
    """``shown`` and ``refused`` by key ("GET /info", "GET /events ?since", "POST /containers/create HostConfig.Init")."""

    shown: dict[str, set[str]] = field(default_factory=dict)
    refused: dict[str, dict[str, str]] = field(default_factory=dict)  # key -> test -> text

    def request(self, call: Call) -> None:
        operation = definition().find(call.method, call.path)
        test = _running()
        if operation is None or not test or call.version < OLDEST:
            return
        asked = [
            f"?{name}"
            for name, values in call.query.items()
            if name in operation.query and any(value.lower() not in NOTHING for value in values)
        ]
        asked += [f"?filters.{name}" for text in call.query.get("filters", ()) for name in _filters(text)]
        asked += [f"{name}:" for name in operation.headers if name.lower() in call.headers]
        if operation.body is not None and call.body:
            asked += asked_fields(operation.body, _parsed(call.body))
        if call.status < 400:
            for name in {operation.name, *(f"{operation.name} {option}" for option in asked)}:
                self.shown.setdefault(name, set()).add(test)
        elif call.status in REFUSED or (
            call.status == 404 and call.path.startswith("/plugins/")
        ):  # there are none
            self.refused.setdefault(operation.name, {})[test] = call.refusal
            for option in asked:
                if _names(call.refusal, option):
                    self.refused.setdefault(f"{operation.name} {option}", {})[test] = call.refusal

    def command(self, words: Sequence[str]) -> None:
        """A docker command that succeeded."""
        test = _running()
        if test and words and words[0] in ("run", "create"):
            for name in flagged(words[1:]):
                self.shown.setdefault(f"POST /containers/create {name}", set()).add(test)

    def as_json(self) -> dict[str, Any]:
        return {"shown": {key: sorted(value) for key, value in self.shown.items()}, "refused": self.refused}

    def merge(self, other: Mapping[str, Any], passed: set[str]) -> None:
        for key, tests in other.get("shown", {}).items():
            self.shown.setdefault(key, set()).update(test for test in tests if test in passed)
        for key, texts in other.get("refused", {}).items():
            known = self.refused.setdefault(key, {})
            known.update({test: text for test, text in texts.items() if test in passed})

    def write(self, path: Path) -> None:
        """The best test of each, together with those that ``path`` has and that are still there."""
        before: dict[str, dict[str, Any]] = {"shown": {}, "refused": {}}
        if path.exists():
            before = json.loads(path.read_text())
        shown = {key: set(tests) for key, tests in self.shown.items() if tests}
        refused = {key: dict(texts) for key, texts in self.refused.items() if texts}
        for key, test in before["shown"].items():
            if test_exists(test):
                shown.setdefault(key, set()).add(test)
        for key, (test, text) in before["refused"].items():
            if test_exists(test) and key not in shown:
                refused.setdefault(key, {}).setdefault(test, text)
        result = {
            "shown": {key: min(tests, key=_rank) for key, tests in sorted(shown.items())},
            "refused": {
                key: [min(texts, key=_rank), texts[min(texts, key=_rank)]]
                for key, texts in sorted(refused.items())
            },
        }
        path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


def _rank(test: str) -> tuple[bool, int, str]:
    return not test.startswith(("tests/system", "tests/clients")), len(test), test


def _names(refusal: str, option: str) -> bool:
    """Whether the text is about the option: it has the word, or that of what the option belongs to."""
    said = refusal.lower().replace("-", "").replace(" ", "")
    return any(
        part.lower().replace("-", "").removesuffix("options") in said
        for part in option.strip("?:").split(".")
        if part not in _CONTAINERS
    )


def _running() -> str:
    """The test that runs, without its parameters."""
    return os.environ.get("PYTEST_CURRENT_TEST", "").partition(" (")[0].partition("[")[0]


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _filters(text: str) -> list[str]:
    found = _parsed(text.encode())
    return [str(name) for name in found] if isinstance(found, dict) else []


@functools.cache
def _functions(path: Path) -> frozenset[str]:
    if not path.exists():
        return frozenset()
    tree = ast.parse(path.read_text())
    return frozenset(
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def test_exists(test: str) -> bool:
    path, _, name = test.partition("::")
    return name.rpartition("::")[2] in _functions(ROOT / path)


test_exists.__test__ = False  # type: ignore[attr-defined]  # pytest: not a test

COLLECTED = Evidence()
