"""``docker top``'s ps arguments, over the guest's process list. No I/O.

There is no ps in between: the columns users ask for are computed here, and an
argument that is not understood is refused by name.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from engine.http import BadRequest
from tether import tether_pb2

__all__ = ["Column", "parse_ps_args", "table"]

Cell = Callable[[tether_pb2.ProcessInfo], str]

_SECOND = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class Column:
    title: str
    cell: Cell


def _clock(process: tether_pb2.ProcessInfo) -> str:
    seconds = process.cpu_ns // _SECOND
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def _short_clock(process: tether_pb2.ProcessInfo) -> str:
    seconds = process.cpu_ns // _SECOND
    return f"{seconds // 60}:{seconds % 60:02d}"


def _started(process: tether_pb2.ProcessInfo) -> str:
    moment = time.gmtime(process.start_time // _SECOND)
    today = time.gmtime()
    same_day = moment[:3] == today[:3]
    return time.strftime("%H:%M" if same_day else "%b%d", moment)


def _elapsed(process: tether_pb2.ProcessInfo) -> str:
    seconds = max(0, time.time_ns() - process.start_time) // _SECOND
    days, rest = divmod(seconds, 86400)
    clock = f"{rest // 60 % 60:02d}:{rest % 60:02d}"
    if seconds >= 3600:
        clock = f"{rest // 3600:02d}:{clock}"
    return f"{days}-{clock}" if days else clock


def _command(process: tether_pb2.ProcessInfo) -> str:
    if process.argv:
        return " ".join(word.decode("utf-8", "replace") for word in process.argv)
    return f"[{process.comm}]"


def _user(process: tether_pb2.ProcessInfo) -> str:
    return process.user or str(process.uid)


_COLUMNS: dict[str, tuple[str, Cell]] = {
    "pid": ("PID", lambda p: str(p.pid)),
    "ppid": ("PPID", lambda p: str(p.ppid)),
    "uid": ("UID", lambda p: str(p.uid)),
    "user": ("USER", _user),
    "c": ("C", lambda p: str(p.cpu_percent)),
    "pcpu": ("%CPU", lambda p: f"{p.cpu_percent:.1f}"),
    "vsz": ("VSZ", lambda p: str(p.vsz // 1024)),
    "rss": ("RSS", lambda p: str(p.rss // 1024)),
    "tty": ("TTY", lambda p: p.tty or "?"),
    "stat": ("STAT", lambda p: p.stat),
    "s": ("S", lambda p: p.stat[:1]),
    "stime": ("STIME", _started),
    "start": ("START", _started),
    "etime": ("ELAPSED", _elapsed),
    "time": ("TIME", _clock),
    "comm": ("COMMAND", lambda p: p.comm),
    "cmd": ("CMD", _command),
    "args": ("COMMAND", _command),
}
_SAME = {
    "command": "args",
    "ucmd": "comm",
    "ucomm": "comm",
    "euser": "user",
    "uname": "user",
    "euid": "uid",
    "tt": "tty",
    "tname": "tty",
    "state": "s",
    "%cpu": "pcpu",
    "cputime": "time",
    "bsdstart": "start",
    "start_time": "stime",
    "vsize": "vsz",
    "rssize": "rss",
    "rsz": "rss",
}

_FULL = ("UID", "pid", "ppid", "c", "stime", "tty", "time", "cmd")
_USERS = ("user", "pid", "pcpu", "vsz", "rss", "TTY", "stat", "start", "TIME", "args")
_SHORT = ("pid", "tty", "time", "comm")
_OTHER: dict[str, tuple[str, Cell]] = {
    "UID": ("UID", _user),  # ps -f shows names in this column
    "TTY": ("TTY", lambda p: p.tty or "?"),
    "TIME": ("TIME", _short_clock),
}


def parse_ps_args(text: str) -> list[Column]:
    """``-ef``, ``aux``, ``-o pid,comm``, ``-eo …``, ``axo …`` and their like."""
    wanted: list[Column] = []
    layout: Sequence[str] = _SHORT
    words = text.split()
    if len(words) > 64:
        raise BadRequest("ps: too many arguments")
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if word in ("--no-headers", "--forest"):
            raise BadRequest(f"ps: {word} is not supported by docker top here")
        if word.startswith("--format=") or word == "--format":
            value = word.partition("=")[2]
            if not value and position < len(words):
                value, position = words[position], position + 1
            wanted += _formats(value)
            continue
        letters = word.removeprefix("-")
        flags, marker, value = letters.partition("o")
        dashed = word.startswith("-")
        for flag in flags:
            if flag in "eAaxwdTHg" or (flag == "w" and not dashed):
                continue
            if flag == "f":
                layout = _FULL if dashed else _USERS
            elif flag in "ul" and not dashed:
                layout = _USERS
            else:
                raise BadRequest(f"ps: argument {word!r} is not supported by docker top here")
        if marker:
            if not value and position < len(words):
                value, position = words[position], position + 1
            wanted += _formats(value)
    return wanted or [Column(title=_shown(name)[0], cell=_shown(name)[1]) for name in layout]


def _shown(name: str) -> tuple[str, Cell]:
    return _OTHER.get(name) or _COLUMNS[name]


def _formats(text: str) -> list[Column]:
    result: list[Column] = []
    for item in text.split(","):
        name, separator, title = item.strip().partition("=")
        key = _SAME.get(name.lower(), name.lower())
        if key not in _COLUMNS:
            raise BadRequest(f"ps: column {name!r} is not supported by docker top here")
        default, cell = _COLUMNS[key]
        result.append(Column(title=title if separator and title else default, cell=cell))
    return result


def table(columns: Sequence[Column], processes: Iterable[tether_pb2.ProcessInfo]) -> list[list[str]]:
    ordered = sorted(processes, key=lambda process: process.pid)
    return [[column.cell(process) for column in columns] for process in ordered]
