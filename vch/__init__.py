"""One VCH's configuration and the paths derived from it. A leaf: imports nothing of ours."""

from vch.config import (
    Defaults,
    Guest,
    Registry,
    Tls,
    TlsMode,
    VchConfig,
    VchConfigError,
    VchPaths,
    Vsphere,
)

__all__ = [
    "Defaults",
    "Guest",
    "Registry",
    "Tls",
    "TlsMode",
    "VchConfig",
    "VchConfigError",
    "VchPaths",
    "Vsphere",
]
