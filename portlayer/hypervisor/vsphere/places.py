"""Datastore paths: ``[name] folder/file`` on vSphere's side, a path below the mount on ours. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from portlayer.hypervisor.base import HypervisorError

__all__ = ["DatastoreMap"]

_PATH = re.compile(r"\[([^\]]+)\] ?(.*)")


@dataclass(frozen=True)
class DatastoreMap:
    """One datastore that this host sees as a directory."""

    name: str
    mount: Path

    def remote(self, path: Path) -> str:
        """
        Raises:
            HypervisorError: the path is outside, so no VM can have it.
        """
        try:
            inside = path.relative_to(self.mount)
        except ValueError as error:
            raise HypervisorError(f"{path} is not on datastore {self.name} ({self.mount})") from error
        if ".." in inside.parts:
            raise HypervisorError(f"{path} leads out of datastore {self.name}")
        return f"[{self.name}] {inside}"

    def local(self, path: str) -> Path:
        """
        Raises:
            HypervisorError: it is another datastore's, or leads out of ours.
        """
        match = _PATH.fullmatch(path)
        if match is None or match.group(1) != self.name:
            raise HypervisorError(f"{path!r} is not on datastore {self.name}")
        inside = PurePosixPath(match.group(2))
        if inside.is_absolute() or ".." in inside.parts:
            raise HypervisorError(f"{path!r} leads out of datastore {self.name}")
        return self.mount / inside
