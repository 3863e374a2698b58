"""Everything that one replica of the xDS server has for an Envoy, read as an Envoy would."""

from __future__ import annotations

from collections.abc import Mapping

import grpc
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2

from controller.gateway.bootstrap import HostPort
from tests.support.waiting import PATIENCE, time_limit
from xds_server.snapshot.snapshot import MAKE_BEFORE_BREAK

METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"

Served = Mapping[tuple[str, str], tuple[str, bytes]]
"""By type and name: version and bytes."""


async def served_by(replica: HostPort, credentials: grpc.ChannelCredentials) -> Served:
    """Read every resource of every type. A debug client: it does not count as an Envoy that serves."""
    node = base_pb2.Node(id="debug/reader", cluster="test")
    served: dict[tuple[str, str], tuple[str, bytes]] = {}
    named = [("grpc.ssl_target_name_override", "localhost")]
    async with grpc.aio.secure_channel(str(replica), credentials, named) as channel, time_limit(PATIENCE):
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
