"""Health and reflection: what anybody may ask who does not say who it is.

The services of the gRPC packages take any number of streams, and questions of any length. Here each stream counts as
one of a stranger, and a question waits for those of the strangers before it: to say what a message means takes a
hundred descriptors, and milliseconds.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from grpc.aio import ServicerContext
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha._async import ReflectionServicer

from xds_server.stream.admission import ClientAdmission, TooManyStreamsError
from xds_server.stream.endings import end_call
from xds_server.stream.limits import LONGEST_WORD
from xds_server.stream.server.reflection import V1, V1ALPHA

LONGEST_QUESTION = 4096
"""In bytes: the name of a file or of a symbol, which the answer repeats."""


class BoundedHealth(health.aio.HealthServicer):  # type: ignore[misc]
    """The health service. A check costs nothing; who watches has a stream."""

    def __init__(self, admission: ClientAdmission) -> None:
        super().__init__()
        self._admission = admission

    async def Watch(self, request: Any, context: ServicerContext) -> None:  # noqa: N802
        """Say whether a service serves, each time that this changes."""
        if len(request.service) > LONGEST_WORD:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"service has more than {LONGEST_WORD} characters")
        try:
            with self._admission.visit(context.peer()):
                await super().Watch(request, context)
        except TooManyStreamsError as error:
            await end_call(context, error)


class BoundedReflection(ReflectionServicer):  # type: ignore[misc]
    """Reflection for a server of some `services`, by the messages of a pool."""

    def __init__(
        self, services: Iterable[str], pool: descriptor_pool.DescriptorPool, admission: ClientAdmission
    ) -> None:
        super().__init__((*services, V1, V1ALPHA), pool)
        self._admission = admission

    async def ServerReflectionInfo(  # noqa: N802
        self, request_iterator: AsyncIterable[reflection_pb2.ServerReflectionRequest], unused_context: ServicerContext
    ) -> AsyncIterator[reflection_pb2.ServerReflectionResponse]:
        """Answer each question in its turn."""
        context = unused_context
        try:
            with self._admission.visit(context.peer()):
                async for request in request_iterator:
                    if request.ByteSize() > LONGEST_QUESTION:
                        words = f"the question has more than {LONGEST_QUESTION} bytes"
                        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, words)
                    async with self._admission.turn_of_strangers():
                        answers = [one async for one in super().ServerReflectionInfo(_alone(request), context)]
                    for one in answers:
                        yield one
        except TooManyStreamsError as error:
            await end_call(context, error)


async def _alone(
    request: reflection_pb2.ServerReflectionRequest,
) -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
    yield request
