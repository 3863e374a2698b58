"""The discovery services: which gRPC methods there are, and what each of them does."""

from __future__ import annotations

from collections.abc import Mapping

import grpc
from grpc.aio import ServicerContext

from xds_server.snapshot.snapshot import CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET
from xds_server.stream.load_reporting.streams import LRS, LoadStreams
from xds_server.stream.protocol.messages import ProtocolError
from xds_server.stream.server.loop import DELTA, SOTW, StreamLoop, status_of, typed
from xds_server.stream.server.owner import Owner
from xds_server.stream.server.wire import pack_sotw, parse_sotw

ADS = "envoy.service.discovery.v3.AggregatedDiscoveryService"

# Service and the plural its methods are named with.
PER_TYPE: Mapping[str, tuple[str, str]] = {
    CLUSTER: ("envoy.service.cluster.v3.ClusterDiscoveryService", "Clusters"),
    ENDPOINT: ("envoy.service.endpoint.v3.EndpointDiscoveryService", "Endpoints"),
    LISTENER: ("envoy.service.listener.v3.ListenerDiscoveryService", "Listeners"),
    ROUTE: ("envoy.service.route.v3.RouteDiscoveryService", "Routes"),
    SECRET: ("envoy.service.secret.v3.SecretDiscoveryService", "Secrets"),
}

NAMES = (ADS, *(service for service, _ in PER_TYPE.values()), LRS)


def handlers(owner: Owner, loads: LoadStreams, identifier: str) -> tuple[grpc.GenericRpcHandler, ...]:
    """Return the handlers of all discovery services, and of load reporting. They take and give bytes."""
    aggregated = {
        "StreamAggregatedResources": _stream(StreamLoop(owner, SOTW, identifier)),
        "DeltaAggregatedResources": _stream(StreamLoop(owner, DELTA, identifier)),
    }
    per_type = [
        grpc.method_handlers_generic_handler(
            service,
            {
                f"Stream{plural}": _stream(StreamLoop(owner, SOTW, identifier, type_url)),
                f"Delta{plural}": _stream(StreamLoop(owner, DELTA, identifier, type_url)),
                f"Fetch{plural}": _fetch(owner, identifier, type_url),
            },
        )
        for type_url, (service, plural) in PER_TYPE.items()
    ]
    reporting = {"StreamLoadStats": grpc.stream_stream_rpc_method_handler(loads.serve)}
    return (
        grpc.method_handlers_generic_handler(ADS, aggregated),
        grpc.method_handlers_generic_handler(LRS, reporting),
        *per_type,
    )


def _stream(loop: StreamLoop) -> grpc.RpcMethodHandler:
    return grpc.stream_stream_rpc_method_handler(loop.serve)


def _fetch(owner: Owner, identifier: str, type_url: str) -> grpc.RpcMethodHandler:
    async def fetch(raw: bytes, context: ServicerContext) -> bytes:
        try:
            node, request = parse_sotw(raw)
            response = owner.fetch(node, typed(request, type_url))
        except ProtocolError as error:
            await context.abort(status_of(error), str(error))
        return pack_sotw(response, identifier)

    return grpc.unary_unary_rpc_method_handler(fetch)
