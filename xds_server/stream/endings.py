"""How a call ends that somebody else is to blame for, and the work for it; whichever method it is of."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

import grpc
from grpc.aio import ServicerContext

from xds_server.stream.protocol.messages import ProtocolError, without_frames


async def end_call(context: ServicerContext, error: ProtocolError) -> NoReturn:
    """End a call with the status and the words of an error; raises what gRPC ends it by."""
    await context.abort(grpc.StatusCode[error.code], str(without_frames(error)))
    raise AssertionError("gRPC raises when a call is aborted")


async def cancelled(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait for their end; what they had in hand, such as a long answer, is free then."""
    for task in tasks:
        task.cancel()
    for one in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(one, BaseException):
            without_frames(one)
