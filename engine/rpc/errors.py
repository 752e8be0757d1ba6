"""From the port layer's reasons to Docker's status codes."""

from __future__ import annotations

from typing import Any

import grpc

from engine.http import ApiError
from portlayer.portlayer_pb2 import Reason

__all__ = ["PortLayerError", "PortLayerUnavailable", "translate"]

_STATUS: dict[Reason.ValueType, int] = {
    Reason.NO_SUCH_CONTAINER: 404,
    Reason.NO_SUCH_EXEC: 404,
    Reason.NO_SUCH_LAYER: 404,
    Reason.NO_SUCH_VOLUME: 404,
    Reason.NO_SUCH_NETWORK: 404,
    Reason.NO_SUCH_PATH: 404,
    Reason.NO_SUCH_KEY: 404,
    Reason.NO_SUCH_CHECKPOINT: 404,
    Reason.NAME_IN_USE: 409,
    Reason.ADDRESS_IN_USE: 403,
    Reason.PORT_IN_USE: 500,
    Reason.VOLUME_IN_USE: 409,
    Reason.LAYER_IN_USE: 409,
    Reason.NETWORK_IN_USE: 403,
    Reason.POOL_OVERLAP: 403,
    Reason.VERSION_CONFLICT: 409,
    Reason.NOT_RUNNING: 409,
    Reason.ALREADY_RUNNING: 409,
    Reason.PAUSED: 409,
    Reason.LAUNCH_FAILED: 500,
    Reason.NO_SPACE: 500,
    Reason.BAD_LAYER: 500,
    Reason.GUEST_LOST: 500,
    Reason.LIMIT_EXCEEDED: 403,
    Reason.NOT_SUPPORTED: 501,
    Reason.IS_DIRECTORY_CONFLICT: 400,
    Reason.REMOVAL_IN_PROGRESS: 409,
}

_CODE_STATUS: dict[grpc.StatusCode, int] = {  # when there is no reason
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.FAILED_PRECONDITION: 409,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.UNIMPLEMENTED: 501,
}


class PortLayerError(ApiError):
    """The port layer's answer. ``exit_code`` is set with LAUNCH_FAILED."""

    def __init__(
        self, message: str, *, status: int, reason: Reason.ValueType = Reason.UNSPECIFIED, exit_code: int = 0
    ) -> None:
        super().__init__(message, status=status)
        self.reason = reason
        self.exit_code = exit_code


class PortLayerUnavailable(PortLayerError):
    """No answer: it is down, restarting, or too slow."""

    def __init__(self, detail: str) -> None:
        super().__init__(
            f"the port layer of this virtual container host does not answer: {detail}", status=503
        )


def translate(error: grpc.aio.AioRpcError) -> PortLayerError:
    code = error.code()
    detail = error.details() or code.name
    trailing: Any = error.trailing_metadata()  # pairs, whatever its stubs say
    metadata = dict(trailing or ())
    word = metadata.get("mooring-reason")
    if word is None:
        if code is grpc.StatusCode.UNAVAILABLE:
            return PortLayerUnavailable("it is not running or restarting; try again")
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return PortLayerUnavailable("the operation took too long")
        return PortLayerError(detail, status=_CODE_STATUS.get(code, 500))
    name = word.decode() if isinstance(word, bytes) else str(word)
    try:
        reason = Reason.Value(name)
    except ValueError:  # a newer port layer
        reason = Reason.UNSPECIFIED
    exit_code = str(metadata.get("mooring-exit-code", "0"))
    return PortLayerError(
        detail,
        status=_STATUS.get(reason, _CODE_STATUS.get(code, 500)),
        reason=reason,
        exit_code=int(exit_code) if exit_code.isdigit() else 0,
    )
