"""How a call ends that somebody else is to blame for, and the work for it; whichever method it is of."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from grpc.aio import ServicerContext

from xds_server.stream.protocol.messages import ProtocolError, without_frames


async def end_call(context: ServicerContext, error: ProtocolError) -> None:
    """End a call with the status and the words of an error; its method has nothing more to do than to return.

    gRPC keeps what it ends a call by with the call, and raises it once more when the method returns. Raised in the
    method, it would name that in its traceback, and with it the call: a circle, with all that the client has in it.
    """
    try:
        await context.abort(grpc.StatusCode[error.code], str(without_frames(error)))
    except grpc.aio.AbortError as aborted:
        without_frames(aborted)


async def cancelled(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait for their end; what they had in hand, such as a long answer, is free then."""
    for task in tasks:
        task.cancel()
    for one in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(one, BaseException):
            without_frames(one)
