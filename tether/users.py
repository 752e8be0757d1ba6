"""Who a process runs as: Docker's "user:group" words against the image's own passwd and group files.

Pure: the caller reads the files (inside the container's root) and hands over
their text. Rules and error texts are Docker's: a number is always an ID, never
a name; a missing file matters only when a name must be looked up in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

__all__ = ["Identity", "UserError", "resolve_user", "user_names"]

_MAX_ID = (1 << 31) - 1
_MAX_GROUPS = 65536  # NGROUPS_MAX of the kernel


class UserError(Exception):
    """No such user or group; the text is Docker's."""


class Identity(NamedTuple):
    uid: int
    gid: int
    groups: tuple[int, ...]  # supplementary
    home: str


class _Entry(NamedTuple):
    name: str
    uid: int
    gid: int
    home: str


class _Group(NamedTuple):
    name: str
    gid: int
    members: list[str]


def resolve_user(user: str, additional: Iterable[str], *, passwd: bytes, group: bytes) -> Identity:
    """The identity for Docker's user word and ``--group-add`` words.

    Raises:
        UserError: "unable to find user x: no matching entries in passwd file" and the like.
    """
    name, _, group_word = user.partition(":")
    uid, gid, home, matched = 0, 0, "/", ""
    number = _number(name)
    entry = next((entry for entry in _users(passwd) if _is_user(entry, name, number)), None)
    if entry is not None:
        uid, gid = _in_range(entry.uid), _in_range(entry.gid)
        home, matched = entry.home or "/", entry.name
    elif name:
        if number is None:
            raise UserError(f"unable to find user {name}: no matching entries in passwd file")
        uid = _in_range(number)
    groups: tuple[int, ...] = ()
    if group_word:
        gid = _group_id(group_word, group)
    elif matched:
        groups = tuple(_in_range(item.gid) for item in _groups(group) if matched in item.members)
    extra = tuple(_group_id(word, group) for word in additional)
    # The primary group is among them, as in Docker since CVE-2022-36109: else dropping it would gain access.
    return Identity(uid, gid, tuple(dict.fromkeys((gid, *groups, *extra)))[:_MAX_GROUPS], home)


def user_names(passwd: bytes) -> dict[int, str]:
    """Names by user ID, the first entry of each, for process listings."""
    names: dict[int, str] = {}
    for entry in _users(passwd):
        names.setdefault(entry.uid, entry.name)
    return names


def _is_user(entry: _Entry, name: str, number: int | None) -> bool:
    if not name:
        return entry.uid == 0
    if number is not None:
        return entry.uid == number
    return entry.name == name


def _group_id(word: str, group: bytes) -> int:
    number = _number(word)
    for item in _groups(group):
        if item.gid == number if number is not None else item.name == word:
            return _in_range(item.gid)
    if number is None:
        raise UserError(f"unable to find group {word}: no matching entries in group file")
    return _in_range(number)


def _number(word: str) -> int | None:
    digits = word[1:] if word[:1] in ("-", "+") else word
    return int(word) if digits.isascii() and digits.isdigit() and len(digits) < 20 else None


def _in_range(number: int) -> int:
    if not 0 <= number <= _MAX_ID:
        raise UserError(f"uids and gids must be in range 0-{_MAX_ID}")
    return number


def _lines(text: bytes) -> Iterator[list[str]]:
    for line in text.decode(errors="surrogateescape").split("\n"):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            yield stripped.split(":")


def _users(passwd: bytes) -> Iterator[_Entry]:
    for fields in _lines(passwd):
        uid, gid = (_number(field) for field in (*fields[2:4], "", "")[:2])
        if uid is not None and gid is not None:
            home = fields[5] if len(fields) > 5 else ""
            yield _Entry(fields[0], uid, gid, home)


def _groups(group: bytes) -> Iterator[_Group]:
    for fields in _lines(group):
        gid = _number(fields[2]) if len(fields) > 2 else None
        if gid is not None:
            members = fields[3].split(",") if len(fields) > 3 else []
            yield _Group(fields[0], gid, members)
