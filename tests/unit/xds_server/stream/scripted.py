"""A client of one session, played by hand: it says what a test says, and keeps what it was given."""

from collections.abc import Iterable

from xds_server.snapshot.snapshot import (
    CLUSTER,
    ENDPOINT,
    LISTENER,
    ROUTE,
    SCOPED_ROUTE,
    SHORT,
    Resource,
    ResourceKey,
    Snapshot,
)
from xds_server.stream.protocol.dialects import DeltaSession, SotwSession
from xds_server.stream.protocol.messages import ClientTerms, DeltaRequest, Output, Response, SotwRequest
from xds_server.stream.protocol.parts import Parts, at_once


def cluster(name: str, content: str = "1") -> Resource:
    return Resource.of(CLUSTER, name, content.encode())


def endpoints(name: str, content: str = "1") -> Resource:
    return Resource.of(ENDPOINT, name, content.encode())


def listener(name: str, content: str = "1") -> Resource:
    return Resource.of(LISTENER, name, content.encode())


def route(name: str, *clusters: str, content: str = "1") -> Resource:
    requires = [ResourceKey(t, c) for c in clusters for t in (CLUSTER, ENDPOINT)]
    return Resource.of(ROUTE, name, f"{content} {clusters}".encode(), requires)


def host(name: str, model: str) -> Resource:
    """A scoped route: a host that leads to the route of a model."""
    return Resource.of(SCOPED_ROUTE, name, model.encode(), [ResourceKey(ROUTE, model), ResourceKey(ENDPOINT, model)])


def model(name: str, content: str = "1") -> tuple[Resource, ...]:
    """All resources of one model: a listener, its route, one cluster with its endpoints."""
    return (
        cluster(name, content),
        endpoints(name, content),
        listener(name, content),
        route(name, name, content=content),
    )


class Scripted:
    """What both dialects share: a server's snapshot that the test changes, the clock, and the last output."""

    def __init__(self, *resources: Resource, terms: ClientTerms | None = None) -> None:
        self.now = 0.0
        self.snapshot = Snapshot.of(resources)
        self.output = Output()
        self.session = self.kind(self.snapshot, terms or ClientTerms(), self.now)

    def publish(self, *upserts: Resource, removed: Iterable[Resource | ResourceKey] = ()) -> tuple[Response, ...]:
        gone = [item.key if isinstance(item, Resource) else item for item in removed]
        self.snapshot = self.snapshot.with_changes(upserts, gone)
        changed = frozenset([r.key for r in upserts] + gone)
        return self._step(self.session.publish(self.snapshot, changed, self.now))

    def publish_only(self, *resources: Resource) -> tuple[Response, ...]:
        old = {key for t in self.snapshot.by_type.values() for key in (r.key for r in t.values())}
        return self.publish(*resources, removed=old - {r.key for r in resources})

    def after(self, seconds: float) -> tuple[Response, ...]:
        self.now += seconds
        return self._step(self.session.tick(self.now))

    def _step(self, parts: Parts[Output]) -> tuple[Response, ...]:
        self.output = output = at_once(parts)
        return output.responses


class DeltaScript(Scripted):
    kind = DeltaSession

    def ask(self, type_url: str, *subscribe: str, **more: object) -> tuple[Response, ...]:
        return self.receive(DeltaRequest(type_url, subscribe, **more))

    def receive(self, request: DeltaRequest) -> tuple[Response, ...]:
        return self._step(self.session.receive(request, self.now))

    def ack(self, response: Response, *subscribe: str, **more: object) -> tuple[Response, ...]:
        return self.ask(response.type_url, *subscribe, nonce=response.nonce, **more)

    def nack(self, response: Response, message: str, *subscribe: str) -> tuple[Response, ...]:
        return self.ask(response.type_url, *subscribe, nonce=response.nonce, error=message)

    def settle(self, responses: Iterable[Response]) -> list[Response]:
        """ACK everything, and what follows from it, as Envoy would: endpoints are asked for once a cluster is there."""
        seen, queue = [], list(responses)
        while queue:
            response = queue.pop(0)
            seen.append(response)
            queue += self.ack(response)
        return seen


class SotwScript(Scripted):
    kind = SotwSession

    def ask(self, type_url: str, *names: str, **more: object) -> tuple[Response, ...]:
        return self._step(self.session.receive(SotwRequest(type_url, names, **more), self.now))

    def ack(self, response: Response, *names: str) -> tuple[Response, ...]:
        return self.ask(response.type_url, *names, version=response.version, nonce=response.nonce)

    def nack(self, response: Response, message: str, *names: str) -> tuple[Response, ...]:
        return self.ask(response.type_url, *names, nonce=response.nonce, error=message)


def names(responses: Iterable[Response]) -> list[tuple[str, list[str], list[str]]]:
    """Type (short), names sent and names removed, for comparison."""
    return [(SHORT.get(r.type_url, r.type_url), [s.key.name for s in r.resources], list(r.removed)) for r in responses]
