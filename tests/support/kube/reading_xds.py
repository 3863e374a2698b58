"""Everything that one replica of the xDS server has for an Envoy, read as an Envoy would."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

import grpc
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2

from controller.gateway.bootstrap import HostPort
from tests.support.waiting import PATIENCE, eventually
from xds_server.snapshot.snapshot import MAKE_BEFORE_BREAK

METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"

Served = Mapping[tuple[str, str], tuple[str, bytes]]
"""By type and name: version and bytes."""


async def served_by(replica: HostPort, token: str) -> Served:
    """Read every resource of every type. A debug client: it does not count as an Envoy that serves."""
    node = base_pb2.Node(id="debug/reader", cluster="test")
    node.metadata["beamlit_token"] = token
    served: dict[tuple[str, str], tuple[str, bytes]] = {}
    async with grpc.aio.insecure_channel(str(replica)) as channel, asyncio.timeout(PATIENCE):
        call = channel.stream_stream(
            METHOD, lambda request: request.SerializeToString(), discovery_pb2.DeltaDiscoveryResponse.FromString
        )()
        for type_url in MAKE_BEFORE_BREAK:
            await call.write(
                discovery_pb2.DeltaDiscoveryRequest(node=node, type_url=type_url, resource_names_subscribe=["*"])
            )
        missing = set(MAKE_BEFORE_BREAK)
        while missing:
            answer = await call.read()
            assert answer is not grpc.aio.EOF, await call.details()
            missing.discard(answer.type_url)
            for one in answer.resources:
                served[answer.type_url, one.name] = (one.version, one.resource.SerializeToString())
            await call.write(discovery_pb2.DeltaDiscoveryRequest(type_url=answer.type_url, response_nonce=answer.nonce))
        call.cancel()
    return served


async def served_by_all(replicas: Iterable[HostPort], token: str) -> Served:
    """Wait until all replicas serve equal bytes at equal versions, which is what they stay at; return that."""

    async def all_of_them() -> list[Served]:
        return [await served_by(replica, token) for replica in replicas]

    first, *_ = await eventually(all_of_them, lambda seen: all(one == seen[0] for one in seen))
    return first
