"""The child that opens disks: ``python -I -S portlayer/offline/__main__.py WORK``.

Started without site-packages (that halves its start), so it finds its own
package by its place. It reads requests from standard input and ends when that
does: in order after "close", by dropping everything otherwise.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main(work: str) -> int:
    from archive import ArchiveError, DirectoryConflict
    from portlayer.offline.export import DaemonError
    from portlayer.offline.frames import ERROR, REPLY, Channel, PeerGone
    from portlayer.offline.programs import ProgramError
    from portlayer.offline.session import Session, UncleanError
    from portlayer.offline.skeleton import SkeletonError
    from portlayer.offline.superblock import SuperblockError
    from portlayer.offline.verbs import VERBS, Cancelled
    from portlayer.offline.vmdk import VmdkError

    faults = (DaemonError, UncleanError, SuperblockError, ProgramError, SkeletonError, VmdkError)

    def describe(error: Exception) -> dict[str, Any]:
        kind = "fault"
        if isinstance(error, DirectoryConflict):
            kind = "conflict"
        elif isinstance(error, ArchiveError):
            kind = "archive"
        elif isinstance(error, OSError):
            kind = "os"
        elif isinstance(error, Cancelled):
            kind = "cancelled"
        number = error.errno or 0 if isinstance(error, OSError) else 0
        return {"kind": kind, "message": str(error), "errno": number}

    channel = Channel(0, 1)
    try:
        session = Session(work)
    except OSError as error:
        channel.send_document(ERROR, describe(error))
        return 1
    try:
        while True:
            request = channel.receive_request()
            try:
                if request["verb"] == "close":
                    session.close()
                    reply: dict[str, Any] = {}
                else:
                    reply = VERBS[request["verb"]](session, channel, request)
            except BrokenPipeError:
                raise
            except (ArchiveError, OSError, Cancelled, *faults) as error:
                channel.send_document(ERROR, describe(error))
                if request["verb"] != "close":
                    continue
                session.abandon()
                return 1
            channel.send_document(REPLY, reply)
            if request["verb"] == "close":
                return 0
    except (PeerGone, BrokenPipeError):
        session.abandon()
        return 1


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    os.environ["PATH"] = os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin:/sbin:/bin"
    sys.exit(main(sys.argv[1]))
