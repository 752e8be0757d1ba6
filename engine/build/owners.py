"""``--chown`` and ``--chmod``: names into numbers, by the image's own files. No I/O."""

from __future__ import annotations

import re

from engine.http import BadRequest

__all__ = ["parse_mode", "parse_owner"]

_ID = re.compile(r"[0-9]{1,10}")
_MODE = re.compile(r"[0-7]{1,4}")


def parse_owner(text: str, passwd: str, group: str) -> tuple[int, int]:
    """``user[:group]``; without a group it is that of the user's number, as Docker has it."""
    user, colon, group_name = text.partition(":")
    if not user or (colon and not group_name) or ":" in group_name:
        raise BadRequest(f"invalid chown string format: {text[:100]}")
    uid = _number(user, passwd, "user")
    gid = _number(group_name or user, group, "group")
    return uid, gid


def _number(name: str, database: str, what: str) -> int:
    if _ID.fullmatch(name):
        value = int(name)
        if value > 0xFFFFFFFE:
            raise BadRequest(f"invalid {what} ID {name}")
        return value
    for line in database.splitlines():
        fields = line.split(":")
        if len(fields) >= 3 and fields[0] == name and _ID.fullmatch(fields[2]):
            return int(fields[2])
    letter = "uid" if what == "user" else "gid"
    raise BadRequest(
        f"unable to convert uid/gid chown string to host mapping: can't find {letter} for {what} "
        f"{name[:100]}: no such {what}: {name[:100]}"
    )


def parse_mode(text: str) -> int:
    if not _MODE.fullmatch(text):
        raise BadRequest(f"invalid chmod parameter: '{text[:100]}'. it should be octal string")
    return int(text, 8)
