"""Copies of disk files: sparse, and shared with the original where the file system can."""

from __future__ import annotations

import asyncio
import errno
import subprocess
from pathlib import Path

__all__ = ["copy_file"]


async def copy_file(source: Path, target: Path) -> None:
    """Raises OSError in the words of ``cp``; what is left of ``target`` is the caller's to remove."""
    process = await asyncio.create_subprocess_exec(
        *("cp", "--reflink=auto", "--sparse=always", "--", str(source), str(target)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        _, words = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        text = words.decode(errors="replace").strip()
        raise OSError(errno.ENOSPC if "No space left" in text else errno.EIO, text)
