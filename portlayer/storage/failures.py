"""From what the child or the file system says to what a caller can act on."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from portlayer.errors import PortLayerError
from portlayer.offline.vmdk import VmdkError
from portlayer.portlayer_pb2 import Reason
from portlayer.storage.worker import WorkerError

__all__ = ["translated"]

_NO_SPACE = frozenset((errno.ENOSPC, errno.EDQUOT))
_LITTLE = 1 << 20  # less room than this explains an I/O error of a loop device


@contextlib.contextmanager
def translated(what: str, *, place: Path, body_is_foreign: bool = False) -> Iterator[None]:
    """Turn errors of the body into ``PortLayerError``; ``place`` is on the disk that may be full.

    A loop device cannot say "no space": it says I/O error. So the room that is left decides.
    ``body_is_foreign``: a caller's code runs in the body; its ``OSError`` is none of ours.
    """
    try:
        yield
    except WorkerError as error:
        reason = _reason(error, place)
        if reason == Reason.NO_SPACE and error.errno not in _NO_SPACE:
            raise PortLayerError(reason, f"{what}: no space left in {place}") from error
        raise PortLayerError(reason, f"{what}: {error}") from error
    except VmdkError as error:
        raise PortLayerError(Reason.UNSPECIFIED, f"{what}: {error}") from error
    except OSError as error:
        if body_is_foreign:
            raise
        if error.errno in _NO_SPACE:
            raise PortLayerError(Reason.NO_SPACE, f"{what}: no space left in {place}") from error
        raise PortLayerError(Reason.UNSPECIFIED, f"{what}: {error}") from error


def _reason(error: WorkerError, place: Path) -> Reason.ValueType:
    if error.kind == "archive":
        return Reason.BAD_LAYER
    if error.kind == "conflict":
        return Reason.IS_DIRECTORY_CONFLICT
    if error.errno in _NO_SPACE or _is_full(place):
        return Reason.NO_SPACE
    if error.errno == errno.ENOENT:
        return Reason.NO_SUCH_PATH
    if error.errno in (errno.ENOTDIR, errno.EISDIR):
        return Reason.IS_DIRECTORY_CONFLICT
    if error.errno == errno.EROFS:
        return Reason.NOT_SUPPORTED
    if "Failed to get" in str(error) and "lock" in str(error):
        return Reason.ALREADY_RUNNING
    return Reason.UNSPECIFIED


def _is_full(place: Path) -> bool:
    status = os.statvfs(place)
    return status.f_bfree * status.f_frsize < _LITTLE
