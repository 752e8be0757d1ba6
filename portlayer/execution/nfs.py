"""Volumes that are exports of an NFS server: the guest mounts them, over its own network.

Options are Docker's ``local`` driver's, which are mount(2)'s. A server's name is
resolved here, as dockerd does: the kernel takes addresses only.
"""

from __future__ import annotations

import socket

from portlayer.errors import PortLayerError
from portlayer.execution.rooms import Volume
from portlayer.portlayer_pb2 import Reason, VolumeMount
from tether.tether_pb2 import Mount

__all__ = ["nfs_mount"]

_OURS = ("ro", "rw")  # said by flags


def nfs_mount(mount: VolumeMount, volume: Volume) -> Mount:
    """
    Raises:
        PortLayerError: the server's name is not known.
    """
    words = []
    server = ""
    for word in volume.nfs_options.split(","):
        name, _, value = word.partition("=")
        if name == "addr":
            server = _address(value)
            words.append(f"addr={server}")
        elif word not in _OURS:
            words.append(word)
    path = volume.device.partition(":")[2]
    return Mount(
        nfs=volume.nfs,
        source=f"{server if ':' not in server else f'[{server}]'}:{path}",
        options=",".join(words),
        destination=mount.destination,
        read_only=mount.read_only or volume.device_read_only,
        subpath=mount.subpath,
    )


def _address(name: str) -> str:
    try:
        return str(socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise PortLayerError(Reason.UNSPECIFIED, f"NFS server {name}: {error}") from error
