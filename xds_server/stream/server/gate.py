"""The gate before every method of the server, whoever added it: no client without a grant gets behind it."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from grpc.aio import ServicerContext

from xds_server.stream.admission import ClientAdmission
from xds_server.stream.callers import CallerError
from xds_server.stream.endings import end_call


class MethodGate(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Asks `admission` before each call, and ends it when the client may be here no more; the status says why."""

    def __init__(self, admission: ClientAdmission) -> None:
        self._admission = admission

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        """Return the method with the gate before it; None if there is no such method, which says nothing to anybody."""
        method = await continuation(handler_call_details)
        if method is None:
            return None
        build, behaviour = _parts(method)
        return build(
            self._guarded(behaviour),
            request_deserializer=method.request_deserializer,
            response_serializer=method.response_serializer,
        )

    def _guarded(self, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        """Put a function before another one that does the same for those that may come."""

        async def answers(request: object, context: ServicerContext) -> Any:
            try:
                async with self._admission.call(context):
                    if not inspect.isasyncgenfunction(behaviour):
                        return await behaviour(request, context)
                    # One that yields could not be ended while gRPC has the turn.
                    async for response in behaviour(request, context):
                        await context.write(response)
            except CallerError as error:
                await end_call(context, error)

        return answers


def _parts(method: grpc.RpcMethodHandler) -> tuple[Callable[..., grpc.RpcMethodHandler], Callable[..., Any]]:
    """Return what builds a method of this kind, and what it does."""
    match method.request_streaming, method.response_streaming:
        case False, False:
            return grpc.unary_unary_rpc_method_handler, method.unary_unary
        case False, True:
            return grpc.unary_stream_rpc_method_handler, method.unary_stream
        case True, False:
            return grpc.stream_unary_rpc_method_handler, method.stream_unary
        case _:
            return grpc.stream_stream_rpc_method_handler, method.stream_stream
