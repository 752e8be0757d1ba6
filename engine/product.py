"""Who we say we are."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

__all__ = ["NAME", "VERSION"]

NAME = "Mooring"

try:
    VERSION = version("mooring")
except PackageNotFoundError:  # run from a source tree that was never installed
    VERSION = "0.0.0"
