"""Where the guest's kernel comes from.

`Just a kernel`: each source gives a :class:`Kernel`, and nothing behind it
knows which. Sources: Debian's cloud kernel package (the default), a package or
image file given by path (``.deb``, ``.rpm``, ``bzImage``), and our own small
build (``make kernel``).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Kernel", "KernelError"]


class KernelError(Exception):
    """A source gave no usable kernel; the message says what was looked for and where."""


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """A bootable kernel.

    ``modules`` is the directory that holds ``modules.dep`` (None: everything is
    built in). ``direct`` is an uncompressed ELF image for direct boot where the
    source has one: it skips decompression.
    """

    release: str
    image: Path  # bzImage
    modules: Path | None
    origin: str  # "Debian linux-image-… 6.1.192-1": goes into the SBOM
    direct: Path | None = None
