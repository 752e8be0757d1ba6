"""The host's own resolver configuration, re-read when it changes."""

from __future__ import annotations

import ipaddress
import logging
from dataclasses import dataclass
from pathlib import Path

__all__ = ["HostResolver", "ResolvConf", "parse_resolv_conf"]

_log = logging.getLogger(__name__)

_SERVERS, _SEARCH, _OPTIONS = 3, 6, 16


@dataclass(frozen=True, kw_only=True)
class ResolvConf:
    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def parse_resolv_conf(text: str) -> ResolvConf:
    servers: list[str] = []
    search: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        words = line.split("#", 1)[0].split(";", 1)[0].split()
        if len(words) < 2:
            continue
        match words[0]:
            case "nameserver":
                try:
                    ipaddress.ip_address(words[1])
                except ValueError:
                    continue  # as the C library does
                servers.append(words[1])
            case "search" | "domain":
                search = tuple(words[1:])
            case "options":
                options += words[1:]
    return ResolvConf(
        servers=tuple(servers[:_SERVERS]), search=search[:_SEARCH], options=tuple(options[:_OPTIONS])
    )


class HostResolver:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._known = ResolvConf()

    def read(self) -> ResolvConf:
        """A host without the file has no upstream servers, which is no error of ours."""
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp != self._stamp:
                self._known = parse_resolv_conf(self._path.read_text(errors="replace"))
                self._stamp = stamp
        except OSError as error:
            if self._stamp is not None or self._known != ResolvConf():
                _log.warning("%s: %s", self._path, error)
            self._stamp, self._known = None, ResolvConf()
        return self._known
