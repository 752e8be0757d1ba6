"""The container's file systems in the tether's own view: root and volumes, mounted and taken apart.

Runs in the forked child that becomes the container, before it has namespaces of
its own: mounts appear for the tether too, which unmounts them at the end, and
a slow disk or a long copy-up keeps nobody waiting but this container.
"""

from __future__ import annotations

import errno
import os

from tether import linux
from tether.disks import DiskError, find_disk, mount_disk
from tether.tether_pb2 import BootConfig, Mount
from tether.uevents import Uevents

__all__ = ["ROOT", "mount_all", "mount_points", "volume_paths"]

_BASE = "/run/mooring"
ROOT = f"{_BASE}/root"


def volume_paths(config: BootConfig) -> list[str]:
    """Where the content of each of ``config.mounts`` is once `mount_all` has run."""
    return [f"{_BASE}/content/{number}" for number in range(len(config.mounts))]


def mount_points(config: BootConfig) -> list[str]:
    """Everything that `mount_all` mounts, to be unmounted in this order."""
    volumes = [f"{_BASE}/volume/{number}" for number in range(len(config.mounts))]
    return [*volume_paths(config), *volumes, ROOT]


def mount_all(config: BootConfig) -> None:
    """Mount the root disk and every volume, and fill new volumes from the image.

    Raises:
        DiskError: names the disk or the path.
        OSError: copying failed.
    """
    uevents = Uevents()
    try:
        mount_disk(find_disk(config.root, uevents), ROOT, uevents, read_only=False)
        for number, mount in enumerate(config.mounts):
            if mount.nfs:
                _mount_nfs(number, mount)
            elif mount.share and not mount.volume:
                _mount_share(number, mount)
            else:
                _mount_volume(number, mount, uevents)
    finally:
        uevents.close()


def _mount_share(number: int, mount: Mount) -> None:
    """A path of the host. A file is shared in a directory of its own; its name there is the subpath."""
    target, place = f"{_BASE}/volume/{number}", f"{_BASE}/content/{number}"
    os.makedirs(target, mode=0o700, exist_ok=True)
    linux.mount(mount.share, target, "virtiofs", linux.MS_RDONLY if mount.read_only else 0)
    source = target
    if mount.subpath:
        source = f"{target}/{mount.subpath}"
        os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
        os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    else:
        os.makedirs(place, mode=0o700, exist_ok=True)
    tree = linux.open_tree(source)
    try:
        linux.move_mount(tree, place)
    finally:
        os.close(tree)


def _mount_nfs(number: int, mount: Mount) -> None:
    target, place = f"{_BASE}/volume/{number}", f"{_BASE}/content/{number}"
    for directory in (target, place):
        os.makedirs(directory, mode=0o700, exist_ok=True)
    flags = linux.MS_RDONLY if mount.read_only else 0
    try:
        linux.mount(mount.source, target, mount.nfs, flags, mount.options)
        root = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        content = root
        if mount.subpath:
            content = linux.openat2(
                root, mount.subpath, os.O_PATH | os.O_DIRECTORY, resolve=linux.RESOLVE_IN_ROOT
            )
    except OSError as error:
        words = os.strerror(error.errno or errno.EIO).lower()
        raise DiskError(f"{mount.source} ({mount.options}) cannot be mounted: {words}") from error
    tree = linux.open_tree_at(content, place)
    try:
        linux.move_mount(tree, place)
    finally:
        for fd in {tree, content, root}:
            os.close(fd)


def _mount_volume(number: int, mount: Mount, uevents: Uevents) -> None:
    target = f"{_BASE}/volume/{number}"
    if mount.share:
        os.makedirs(target, mode=0o700, exist_ok=True)
        linux.mount(mount.share, target, "virtiofs", linux.MS_RDONLY if mount.read_only else 0)
    else:
        mount_disk(find_disk(mount.disk, uevents), target, uevents, read_only=mount.read_only)
    volume = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if mount.copy_up and not mount.read_only and not mount.subpath:
            _copy_from_image(mount.destination, volume)
        content = _content(volume, mount.subpath)
    finally:
        os.close(volume)
    try:
        # A bind of its own, so that neither "data" nor a subpath is resolved a second time.
        place = volume_path = f"{_BASE}/content/{number}"
        os.makedirs(place, mode=0o700, exist_ok=True)
        tree = linux.open_tree_at(content, volume_path)
        try:
            linux.move_mount(tree, place)
        finally:
            os.close(tree)
    finally:
        os.close(content)


def _content(volume: int, subpath: str) -> int:
    data = linux.openat2(
        volume, "data", os.O_PATH | os.O_DIRECTORY, resolve=linux.RESOLVE_BENEATH | linux.RESOLVE_NO_SYMLINKS
    )
    if not subpath:
        return data
    try:
        return linux.openat2(
            data,
            subpath.strip("/"),
            os.O_PATH | os.O_DIRECTORY,
            resolve=linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_MAGICLINKS,
        )
    except OSError as error:
        words = os.strerror(error.errno or errno.EIO).lower()
        raise DiskError(f"cannot access path {subpath} in the volume: {words}") from error
    finally:
        os.close(data)


def _copy_from_image(destination: str, volume: int) -> None:
    root = os.open(ROOT, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        source = linux.openat2(
            root,
            destination,
            os.O_RDONLY | os.O_DIRECTORY,
            resolve=linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_MAGICLINKS,
        )
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return  # the image has no directory there
        raise
    finally:
        os.close(root)
    try:
        from tether.copyup import copy_up  # most starts do not copy

        copy_up(source, volume)
    finally:
        os.close(source)
