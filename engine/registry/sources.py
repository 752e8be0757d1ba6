"""Which URLs stand for a registry: mirrors, the registry itself, https and http. Pure decisions.

TLS is never given up silently: plain HTTP and unverified certificates are for loopback and for what
`registry.insecure` names, as in Docker, and for mirrors that an administrator wrote as http://.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from engine.registry.errors import RegistryForbidden
from engine.registry.reference import DEFAULT_DOMAIN
from vch.config import Registry

__all__ = ["Source", "host_of", "is_loopback", "sources"]

_HUB_HOST = "registry-1.docker.io"


@dataclass(frozen=True, kw_only=True)
class Source:
    """One place to pull from. ``bases`` are tried in order until one answers at all."""

    domain: str  # whose credentials may be used here
    bases: tuple[str, ...]
    insecure: bool = False
    loopback: bool = False
    mirror: bool = False


def host_of(domain: str) -> str:
    """Without port and brackets; as in "[::1]:5000"."""
    if domain.startswith("["):
        return domain[1:].partition("]")[0]
    return domain.partition(":")[0]


def sources(domain: str, config: Registry, addresses: Sequence[str] = ()) -> list[Source]:
    """Where to look for images of ``domain``, best first.

    ``addresses`` are what the domain's host resolves to, for insecure ranges; an address in the
    domain itself needs none. RegistryForbidden when nothing is left.
    """
    found: list[Source] = []
    if domain == DEFAULT_DOMAIN:
        found.extend(_mirror(url, config) for url in config.mirrors)
    if not config.allowed or domain in config.allowed or host_of(domain) in config.allowed:
        found.append(_registry(domain, config, addresses))
    if not found:
        raise RegistryForbidden(
            f"Access denied to unauthorized registry ({domain}): this virtual container host allows only "
            + ", ".join(config.allowed)
        )
    return found


def _registry(domain: str, config: Registry, addresses: Sequence[str]) -> Source:
    if domain == DEFAULT_DOMAIN:
        return Source(domain=domain, bases=(f"https://{_HUB_HOST}",))
    insecure = is_insecure(domain, config, addresses)
    bases = (f"https://{domain}", f"http://{domain}") if insecure else (f"https://{domain}",)
    return Source(domain=domain, bases=bases, insecure=insecure, loopback=is_loopback(host_of(domain)))


def _mirror(url: str, config: Registry) -> Source:
    base = (url if "://" in url else f"https://{url}").rstrip("/")
    domain = urlsplit(base).netloc
    plain = base.startswith("http://")
    return Source(
        domain=domain,
        bases=(base,),
        insecure=plain or is_insecure(domain, config, ()),
        loopback=is_loopback(host_of(domain)),
        mirror=True,
    )


def is_insecure(domain: str, config: Registry, addresses: Sequence[str]) -> bool:
    host = host_of(domain)
    if is_loopback(host) or domain in config.insecure or host in config.insecure:
        return True
    candidates = [address for text in (host, *addresses) if (address := _address(text)) is not None]
    return any(
        address in network
        for entry in config.insecure
        if (network := _network(entry)) is not None
        for address in candidates
    )


def is_loopback(host: str) -> bool:
    address = _address(host)
    return host.lower() == "localhost" or (address is not None and address.is_loopback)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
