"""Errors as gRPC statuses: the code for the transport, ``mooring-reason`` for whoever acts on it."""

from __future__ import annotations

import errno
from dataclasses import dataclass

import grpc

from portlayer.errors import PortLayerError
from portlayer.execution.events import SlowSubscriber
from portlayer.hypervisor.base import HypervisorError, NoSuchVm, NotSupported
from portlayer.portlayer_pb2 import Reason

__all__ = ["EXIT_CODE_KEY", "REASON_KEY", "Failure", "failure"]

REASON_KEY = "mooring-reason"
EXIT_CODE_KEY = "mooring-exit-code"
_LONGEST_DETAILS = 2500  # bytes; percent-encoded they must fit gRPC's 8 KiB of metadata

_CODES = {
    Reason.UNSPECIFIED: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.NO_SUCH_CONTAINER: grpc.StatusCode.NOT_FOUND,
    Reason.NO_SUCH_EXEC: grpc.StatusCode.NOT_FOUND,
    Reason.NO_SUCH_LAYER: grpc.StatusCode.NOT_FOUND,
    Reason.NO_SUCH_VOLUME: grpc.StatusCode.NOT_FOUND,
    Reason.NO_SUCH_NETWORK: grpc.StatusCode.NOT_FOUND,
    Reason.NO_SUCH_PATH: grpc.StatusCode.NOT_FOUND,
    Reason.NO_SUCH_KEY: grpc.StatusCode.NOT_FOUND,
    Reason.NO_SUCH_CHECKPOINT: grpc.StatusCode.NOT_FOUND,
    Reason.NAME_IN_USE: grpc.StatusCode.ALREADY_EXISTS,
    Reason.VERSION_CONFLICT: grpc.StatusCode.ABORTED,
    Reason.NO_SPACE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.LIMIT_EXCEEDED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.BAD_LAYER: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.NOT_SUPPORTED: grpc.StatusCode.UNIMPLEMENTED,
}


@dataclass(frozen=True, kw_only=True)
class Failure:
    code: grpc.StatusCode
    details: str
    metadata: tuple[tuple[str, str], ...] = ()
    expected: bool = True  # false: a bug or a broken host, logged with its traceback


def failure(error: Exception, operation: str) -> Failure:
    if isinstance(error, PortLayerError):
        metadata = [(REASON_KEY, Reason.Name(error.reason))]
        if error.exit_code is not None:
            metadata.append((EXIT_CODE_KEY, str(error.exit_code)))
        code = _CODES.get(error.reason, grpc.StatusCode.FAILED_PRECONDITION)
        return Failure(code=code, details=_cut(str(error)), metadata=tuple(metadata))
    if isinstance(error, SlowSubscriber):
        return Failure(code=grpc.StatusCode.RESOURCE_EXHAUSTED, details=str(error))
    if isinstance(error, NoSuchVm):  # removed between two steps of a call
        return failure(PortLayerError(Reason.NO_SUCH_CONTAINER, str(error)), operation)
    if isinstance(error, NotSupported):
        return failure(PortLayerError(Reason.NOT_SUPPORTED, str(error)), operation)
    if _out_of_space(error):
        return failure(PortLayerError(Reason.NO_SPACE, str(error)), operation)
    if isinstance(error, HypervisorError):
        details = f"hypervisor: {error} (operation {operation})"
        return Failure(code=grpc.StatusCode.INTERNAL, details=_cut(details), expected=False)
    details = f"internal error (operation {operation}): {type(error).__name__}: {error}"
    return Failure(code=grpc.StatusCode.INTERNAL, details=_cut(details), expected=False)


def _out_of_space(error: BaseException | None) -> bool:
    """Whether a full disk is behind it, however often it was wrapped on its way."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__
    return False


def _cut(details: str) -> str:
    return details.encode()[:_LONGEST_DETAILS].decode(errors="ignore")
