"""One host path, offered to one VM by one virtiofsd.

virtiofsd over QEMU's own 9p because Debian's cloud kernel has virtio-fs and no
9p, and because QEMU, which is unprivileged, would have to open the host's files
itself: virtiofsd does that in a process of its own, confined to the one path
(:mod:`sharer`), and the guest's users are the host's by number, as in Docker.

It outlives us like its QEMU and ends with it: the connection is its only one.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from portlayer.hypervisor.base import HypervisorError, Share
from portlayer.hypervisor.qemu.process import ENVIRONMENT
from portlayer.hypervisor.qemu.runtime import RunDirectory
from portlayer.hypervisor.qemu.sharer import SCRIPT

__all__ = ["VIRTIOFSD", "offer"]

VIRTIOFSD = Path("/usr/lib/qemu/virtiofsd")
TIMEOUT = 20.0


def offer(share: Share, run: RunDirectory) -> int:
    """The descriptor of a connection to a virtiofsd for ``share``.

    Raises:
        HypervisorError: there is no virtiofsd here, or the path cannot be shown; with its own words.
    """
    if not VIRTIOFSD.exists():
        raise HypervisorError(f"{share.path} cannot be shared: {VIRTIOFSD} is not installed")
    place = run.path / f"share-{share.tag}"
    place.mkdir(mode=0o700)
    with (
        run.listen(run.path / f"{share.tag}.sock") as listener,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client,
    ):
        client.connect(listener.getsockname())  # it waits in the queue: when we die here, virtiofsd ends
        number = listener.fileno()
        command = [
            *(sys.executable, "-I", "-S", str(SCRIPT)),
            *(str(share.path), str(place), "ro" if share.read_only else "rw"),
            *(str(VIRTIOFSD), f"--fd={number}", "-o", f"source={place}"),
            *("-o", "xattr", "-o", "cache=auto", "-o", "announce_submounts"),
            "--daemonize",
        ]
        started = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            pass_fds=[number],
            start_new_session=True,
            cwd="/",
            env=ENVIRONMENT,
            timeout=TIMEOUT,
            check=False,
        )
        if started.returncode != 0:
            words = started.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            raise HypervisorError(f"{share.path} cannot be shared: {words}")
        return client.detach()
