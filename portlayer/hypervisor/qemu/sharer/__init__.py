"""The program that shows one host path to virtiofsd: run ``SCRIPT`` by path, it imports nothing of ours."""

from __future__ import annotations

from pathlib import Path

__all__ = ["SCRIPT"]

SCRIPT = Path(__file__).with_name("__main__.py")
