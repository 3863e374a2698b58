"""A call to an xDS server, for what becomes of it: who is let in, and what others are told."""

from __future__ import annotations

import asyncio

import grpc

from tests.support.tls import Certificates
from tests.support.waiting import PATIENCE, time_limit

DISCOVERY = "envoy.service"
ADS = f"{DISCOVERY}.discovery.v3.AggregatedDiscoveryService"
OK = (grpc.StatusCode.OK, "")


def bearer(certificates: Certificates, token: str) -> grpc.ChannelCredentials:
    """What a client of gRPC joins with that shows a token instead of a certificate."""
    return grpc.composite_channel_credentials(
        certificates.channel_credentials(None), grpc.access_token_call_credentials(token)
    )


async def outcome(port: int, credentials: grpc.ChannelCredentials | None, method: str, said: object) -> tuple:
    """The code with which a call ends, and why; OK once the server answered, or listens and does not object.

    gRPC's client for asyncio says INTERNAL, in words of its own, if a call was refused before it had sent all. Such a
    call says nothing of the server.
    """
    while (ended := await one_call(port, credentials, method, said))[0] is grpc.StatusCode.INTERNAL:
        assert ended[1].startswith(("Internal error from Core", 'Failed "execute_batch"')), ended
    return ended


async def one_call(port: int, credentials: grpc.ChannelCredentials | None, method: str, said: object) -> tuple:
    target = f"localhost:{port}"
    # Connections are shared by channels of equal options: each call has its own.
    options = [("grpc.use_local_subchannel_pool", 1)]
    opened = (
        grpc.aio.insecure_channel(target, options)
        if credentials is None
        else grpc.aio.secure_channel(target, credentials, options)
    )
    async with opened as channel:
        call = channel.stream_stream(method)(iter([said.SerializeToString()]))
        try:
            async with time_limit(PATIENCE):
                await call.read()
                call.cancel()
        except grpc.aio.AioRpcError as error:
            return error.code(), error.details()
        except asyncio.CancelledError:
            pass
        return grpc.StatusCode.OK, ""
