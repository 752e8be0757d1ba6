"""Around every call: its operation ID, and its errors as statuses."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from portlayer.operation import METADATA_KEY, current_operation, set_operation
from portlayer.service.status import Failure, failure

__all__ = ["OperationInterceptor"]

log = logging.getLogger(__name__)


class OperationInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        handler = await continuation(details)
        if handler is None:
            return None
        method = details.method.rpartition("/")[2]
        if handler.response_streaming:
            wrapped = _streaming(method, handler.stream_stream or handler.unary_stream)
            make = (
                grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_stream_rpc_method_handler
            )
        else:
            wrapped = _single(method, handler.stream_unary or handler.unary_unary)
            make = (
                grpc.stream_unary_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_unary_rpc_method_handler
            )
        return make(
            wrapped,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


def _single(method: str, behaviour: Any) -> Any:
    async def call(request: Any, context: Any) -> Any:
        _begin(method, context)
        try:
            return await behaviour(request, context)
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # the boundary: everything becomes a status
            await _refuse(method, context, error)

    return call


def _streaming(method: str, behaviour: Any) -> Any:
    async def call(request: Any, context: Any) -> Any:
        _begin(method, context)
        try:
            async for response in behaviour(request, context):
                yield response
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # the boundary: everything becomes a status
            await _refuse(method, context, error)

    return call


def _begin(method: str, context: Any) -> None:
    wanted = ""
    for key, value in context.invocation_metadata() or ():
        if key == METADATA_KEY and isinstance(value, str):
            wanted = value
    set_operation(wanted)
    log.debug("%s", method)


async def _refuse(method: str, context: Any, error: Exception) -> None:
    status: Failure = failure(error, current_operation())
    if status.expected:
        log.info("%s: %s: %s", method, status.code.name, status.details)
    else:
        log.error("%s: %s", method, status.details, exc_info=error)
    context.set_trailing_metadata(status.metadata)
    await context.abort(status.code, status.details)
