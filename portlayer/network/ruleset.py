"""What the packet rules of one VCH depend on. Pure data."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Bridge", "Guest", "Published", "Ruleset"]


@dataclass(frozen=True, kw_only=True)
class Bridge:
    interface: str
    subnet4: str = ""  # CIDR; "" = no IPv4
    gateway4: str = ""
    subnet6: str = ""
    gateway6: str = ""
    internal: bool = False
    icc: bool = True  # may its containers talk to each other?
    dns_port: int = 53  # where our server listens
    masquerade: bool = True


@dataclass(frozen=True, kw_only=True)
class Guest:
    tap: str
    mac: str
    ipv4: str = ""
    ipv6: str = ""


@dataclass(frozen=True, kw_only=True)
class Published:
    """One published port. ``address`` "" means every address of the host."""

    protocol: str
    address: str
    port: int
    container_port: int
    ipv4: str = ""  # target; "" = not reachable by this family
    ipv6: str = ""


@dataclass(frozen=True, kw_only=True)
class Ruleset:
    vch: str
    bridges: tuple[Bridge, ...] = ()
    guests: tuple[Guest, ...] = ()
    published: tuple[Published, ...] = ()
    host_access: bool = False  # may containers use the host's services, by their gateway's address?
