"""A server under test and a client that is played by hand, over a real socket.

`await client.subscribe(CLUSTER)` sends a request, `await client.expect(CLUSTER, "a")` awaits a response with exactly
these resources, `await client.ack()` answers the last response.
"""

import asyncio
from collections.abc import Iterable

import grpc
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.rpc import status_pb2

from controller.api.timing import REAL, StreamTiming
from tests.support.waiting import in_time
from xds_server.snapshot.snapshot import CLUSTER, ENDPOINT, LISTENER, ROUTE, Resource, ResourceKey, Snapshot
from xds_server.stream.callers import Callers
from xds_server.stream.server.server import XdsServer
from xds_server.stream.server.telemetry import ClientEvent
from xds_server.stream.tls import ServerTls

TOKEN = "a-token-of-the-bootstrap"
ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"
SILENCE_SECONDS = 0.15


class Served:
    """An XdsServer on a free port, what it was told and what it told."""

    def __init__(self, timing: StreamTiming = REAL.streams) -> None:
        self.events: list[ClientEvent] = []
        self.server = XdsServer(TOKEN, self.events.append, timing=timing)
        self.port = 0
        self.callers: Callers | None = None
        self.snapshot = Snapshot.of(())
        self._clients: list[Client] = []

    @classmethod
    async def start(
        cls,
        address: str = "127.0.0.1:0",
        timing: StreamTiming = REAL.streams,
        connections: int | None = None,
        tls: ServerTls | None = None,
    ) -> "Served":
        served = cls(timing)
        served.callers = tls.callers if tls else None
        served.port = await served.server.start(address, connections, tls)
        return served

    def publish(self, *upserts: Resource, removed: Iterable[ResourceKey] = ()) -> None:
        gone = tuple(removed)
        self.snapshot = self.snapshot.with_changes(upserts, gone)
        self.server.publish(self.snapshot, frozenset([*(r.key for r in upserts), *gone]))

    def snapshot_resources(self) -> tuple[Resource, ...]:
        return tuple(r for resources in self.snapshot.by_type.values() for r in resources.values())

    def delta(self, node_id: str = "envoy-1", token: str = TOKEN) -> "DeltaClient":
        return self._opened(DeltaClient(self.port, node_id, token))

    def sotw(self, node_id: str = "envoy-1", token: str = TOKEN, method: str = "") -> "SotwClient":
        return self._opened(SotwClient(self.port, node_id, token, method))

    def _opened(self, client):
        self._clients.append(client)
        return client

    async def stop(self) -> None:
        for client in self._clients:
            await client.close()
        await self.server.stop(0.2)


class Client:
    """One stream; the first request carries the node (X01)."""

    method = ""

    def __init__(self, port: int, node_id: str, token: str, method: str = "") -> None:
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        self.call = self.channel.stream_stream(
            method or self.method, lambda m: m.SerializeToString(), self.response_type.FromString
        )()
        self._node = base_pb2.Node(id=node_id, cluster="test", user_agent_name="scripted")
        self._node.metadata["beamlit_token"] = token
        self._introduced = False
        self.last = None
        self._pending: asyncio.Task | None = None

    def saying(self, **metadata: str):
        """Have the node's metadata say this as well."""
        self._node.metadata.update(metadata)
        return self

    async def send(self, request) -> None:
        if not self._introduced:
            request.node.CopyFrom(self._node)
            self._introduced = True
        await self.call.write(request)

    async def receive(self):
        """The next response. A read given up by `silence` goes on here."""
        task, self._pending = self._pending or asyncio.ensure_future(self.call.read()), None
        self.last = await in_time(task, "a response")
        assert self.last is not grpc.aio.EOF, await self.call.details()
        return self.last

    async def silence(self) -> None:
        """Nothing arrives for a moment."""
        self._pending = self._pending or asyncio.ensure_future(self.call.read())
        done, _ = await asyncio.wait({self._pending}, timeout=SILENCE_SECONDS)
        assert not done, f"not silent: {self._pending.result()}"

    async def end(self) -> grpc.StatusCode:
        """Say no more, read what is left, and return how the stream ended."""
        await self.call.done_writing()
        return await self.call.code()

    async def close(self) -> None:
        self.call.cancel()
        if self._pending is not None:
            self._pending.cancel()
            await asyncio.gather(self._pending, return_exceptions=True)
        await self.channel.close()


class DeltaClient(Client):
    method = ADS + "DeltaAggregatedResources"
    response_type = discovery_pb2.DeltaDiscoveryResponse

    async def subscribe(self, type_url: str, *names: str, claims: dict[str, str] | None = None) -> "DeltaClient":
        await self.send(
            discovery_pb2.DeltaDiscoveryRequest(
                type_url=type_url, resource_names_subscribe=names, initial_resource_versions=claims or {}
            )
        )
        return self

    async def expect(self, type_url: str, *names: str, removed: tuple[str, ...] = ()) -> "DeltaClient":
        response = await self.receive()
        assert response.type_url == type_url
        assert [r.name for r in response.resources] == list(names)
        assert list(response.removed_resources) == list(removed)
        assert all(r.resource.type_url == type_url for r in response.resources)
        return self

    async def ack(self) -> "DeltaClient":
        await self.send(
            discovery_pb2.DeltaDiscoveryRequest(type_url=self.last.type_url, response_nonce=self.last.nonce)
        )
        return self

    async def nack(self, message: str) -> "DeltaClient":
        await self.send(
            discovery_pb2.DeltaDiscoveryRequest(
                type_url=self.last.type_url,
                response_nonce=self.last.nonce,
                error_detail=status_pb2.Status(code=13, message=message),
            )
        )
        return self


class SotwClient(Client):
    method = ADS + "StreamAggregatedResources"
    response_type = discovery_pb2.DiscoveryResponse

    async def subscribe(self, type_url: str, *names: str, version: str = "") -> "SotwClient":
        await self.send(discovery_pb2.DiscoveryRequest(type_url=type_url, resource_names=names, version_info=version))
        return self

    async def expect(self, type_url: str, *bodies: bytes) -> "SotwClient":
        response = await self.receive()
        assert response.type_url == type_url
        assert [r.value for r in response.resources] == list(bodies)
        return self

    async def ack(self, *names: str) -> "SotwClient":
        last = self.last
        await self.send(
            discovery_pb2.DiscoveryRequest(
                type_url=last.type_url, resource_names=names, version_info=last.version_info, response_nonce=last.nonce
            )
        )
        return self


def resource(type_url: str, name: str, content: str = "1", requires: Iterable[ResourceKey] = ()) -> Resource:
    return Resource.of(type_url, name, content.encode(), requires)


def model(name: str, content: str = "1") -> tuple[Resource, ...]:
    needs = [ResourceKey(CLUSTER, name), ResourceKey(ENDPOINT, name)]
    return (
        resource(CLUSTER, name, content),
        resource(ENDPOINT, name, content),
        resource(LISTENER, name, content),
        resource(ROUTE, name, content, needs),
    )
