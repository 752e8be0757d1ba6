"""Paths of the host in containers: which may be, and how they reach the guest.

Links are resolved here, and what they lead to must lie below a path that the
host's administrator shares; whoever opens it later follows no link. The words
are dockerd's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from portlayer.errors import PortLayerError
from portlayer.hypervisor.base import Share
from portlayer.portlayer_pb2 import HostMount, Reason
from tether.tether_pb2 import Mount

__all__ = ["FILE", "HostPaths"]

FILE = "file"  # what the guest sees a shared file as, in a directory of its own


class HostPaths:
    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = roots

    def check(self, mounts: Iterable[HostMount]) -> None:
        """
        Raises:
            PortLayerError: a path is not shared, or not there and not to be made.
        """
        for mount in mounts:
            self._resolve(mount)

    def of(self, wanted: Iterable[HostMount]) -> tuple[list[Share], list[Mount]]:
        """For a start: what the VM shares (each path once), and the guest's mounts. Makes directories."""
        shares: dict[str, Share] = {}
        mounts = []
        for mount in wanted:
            path = self._resolve(mount)
            if mount.create and not path.exists():
                path.mkdir(mode=0o755, parents=True)
            tag = f"host-{hashlib.sha256(f'{mount.read_only}:{path}'.encode()).hexdigest()[:16]}"
            shares[tag] = Share(tag=tag, path=path, read_only=mount.read_only)
            mounts.append(
                Mount(
                    share=tag,
                    destination=mount.destination,
                    read_only=mount.read_only,
                    subpath="" if path.is_dir() else FILE,
                )
            )
        return list(shares.values()), mounts

    def _resolve(self, mount: HostMount) -> Path:
        if not mount.path.startswith("/") or "\0" in mount.path:
            raise PortLayerError(Reason.UNSPECIFIED, f"{mount.path[:200]!r} is not an absolute path")
        if not self._roots:
            raise PortLayerError(
                Reason.NOT_SUPPORTED,
                f"bind mount of host path {mount.path} is not allowed: this virtual container host shares no "
                "path of its host (vic-machine create --share-path); use a volume",
            )
        try:
            path = Path(mount.path).resolve()
            there = path.exists()
        except (OSError, RuntimeError) as error:  # a loop of links
            raise PortLayerError(Reason.UNSPECIFIED, f"bind source path {mount.path}: {error}") from error
        if not any(path.is_relative_to(root.resolve()) for root in self._roots):
            shared = ", ".join(map(str, self._roots))
            raise PortLayerError(
                Reason.NOT_SUPPORTED,
                f"bind mount of host path {mount.path} is not allowed: "
                f"this virtual container host shares {shared}",
            )
        if not there and not mount.create:
            raise PortLayerError(
                Reason.UNSPECIFIED,
                f'invalid mount config for type "bind": bind source path does not exist: {mount.path}',
            )
        return path
