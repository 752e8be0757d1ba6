"""/etc/hosts, /etc/hostname and /etc/resolv.conf of the container.

They live in the tether's memory and are bind-mounted into the container, as
Docker does; a change while it runs is written into the same file, because a
bind mount shows the file, not the name.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from tether.tether_pb2 import HostEntry, Resolver

__all__ = ["DIRECTORY", "hosts_text", "resolver_text", "update_names", "write_hostname"]

DIRECTORY = "/run/mooring/etc"
_LOCAL_HOSTS = (
    "127.0.0.1\tlocalhost\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::\tip6-localnet\n"
    "ff00::\tip6-mcastprefix\n"
    "ff02::1\tip6-allnodes\n"
    "ff02::2\tip6-allrouters\n"
)


def hosts_text(entries: Iterable[HostEntry]) -> str:
    lines = [
        f"{_word(entry.address)}\t{' '.join(_word(name) for name in entry.names)}\n" for entry in entries
    ]
    return _LOCAL_HOSTS + "".join(lines)


def resolver_text(resolver: Resolver) -> str:
    lines = [f"nameserver {_word(server)}\n" for server in resolver.servers]
    if resolver.search:
        lines.append(f"search {' '.join(_word(domain) for domain in resolver.search)}\n")
    if resolver.options:
        lines.append(f"options {' '.join(_word(option) for option in resolver.options)}\n")
    return "".join(lines)


def write_hostname(hostname: str) -> None:
    _write("hostname", f"{hostname}\n")


def update_names(resolver: Resolver, hosts: Iterable[HostEntry]) -> None:
    _write("hosts", hosts_text(hosts))
    _write("resolv.conf", resolver_text(resolver))


def _word(text: str) -> str:
    """One word of a line: what would begin another one is left out."""
    return "".join(text.split())


def _write(name: str, text: str) -> None:
    os.makedirs(DIRECTORY, mode=0o755, exist_ok=True)
    fd = os.open(f"{DIRECTORY}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
