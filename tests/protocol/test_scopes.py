"""What a node sees: the routes and secrets of what it serves, and nothing else, whichever way it asks (X57).

Three namespaces, and everybody who has a certificate, walked over each type of resource and each method there is.
Everything of a namespace has its name in it, so what is seen of one is found in the bytes of any answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import httpx
import pytest
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2
from prometheus_client import CollectorRegistry

from controller.api.contract.route import LocalBackend, Route, Split
from controller.api.timing import StreamTiming, Timing
from controller.gateway.bootstrap import HostPort
from controller.programs.reports import report_routes, reports_over_tls
from tests.support.network import unused_port
from tests.support.objects import a_model, a_secret, a_slice
from tests.support.routes import a_remote, with_key
from tests.support.store import MemoryStore
from tests.support.tls import Certificates
from tests.support.waiting import PATIENCE, time_limit, until
from xds_server.control_plane import ControlPlane, ControlPlaneOptions
from xds_server.routes.translation import ServingOptions
from xds_server.snapshot.scope import Role
from xds_server.snapshot.snapshot import MAKE_BEFORE_BREAK, SECRET, SHORT
from xds_server.stream.server.services import ADS, PER_TYPE

NAMESPACES = ("team-one", "team-two", "team-three")
HOST = "localhost"

WHO = {
    "gateway": NAMESPACES,
    "sidecar/team-one": ("team-one",),
    "sidecar/team-two": ("team-two",),
    "sidecar/team-three/proxy": ("team-three",),
    "reader": NAMESPACES,
}
"""Who has a certificate, and of which namespaces it sees the routes; a reader sees no secret."""


class WithSidecars(ControlPlaneOptions):
    """A server that serves every role there is."""

    @property
    def serving(self) -> ServingOptions:
        serving = super().serving
        return replace(serving, envoys=dict.fromkeys(Role, serving.gateway))


def of_namespace(number: int, namespace: str):
    """A model that is called by host and by port, whose remote backend is sent a key."""
    remote = a_remote(f"remote.{namespace}.example", auth=with_key(f"key-of-{namespace}"))
    local = LocalBackend(namespace=namespace, service="chat")
    route = Route.between(port=10_000 + number, split=Split.away(30), local=local, remote=remote)
    route = route.model_copy(update={"hosts": (f"chat.{namespace}",)})
    raw = route.model_dump(mode="json", by_alias=True, exclude_none=True)
    yield a_model("chat").in_namespace(namespace).stored(status={"observedGeneration": 1, "route": raw})
    yield a_secret(f"key-of-{namespace}").holding(apiKey=f"hush-{namespace}").in_namespace(namespace).stored()
    yield a_slice("chat").ready(f"10.0.{number}.1").in_namespace(namespace).stored()


@dataclass
class Running:
    port: int
    reports: int
    certificates: Certificates
    names: dict[str, list[str]]
    """The names of all resources of the gateway, by type."""

    def channel(self, who: str) -> grpc.aio.Channel:
        credentials = self.certificates.channel_credentials(who)
        return grpc.aio.secure_channel(f"{HOST}:{self.port}", credentials, [("grpc.use_local_subchannel_pool", 1)])


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    certificates = Certificates.make(tmp_path / "tls", *WHO)
    objects = [one for number, namespace in enumerate(NAMESPACES) for one in of_namespace(number, namespace)]
    # Who gets no secrets waits as long for what requires one.
    timing = Timing(streams=StreamTiming(make_before_break=0.5))
    options = WithSidecars(health_checks=False, gateway_port=8080, version_key=b"key", timing=timing)
    control_plane = ControlPlane(MemoryStore(objects), options, CollectorRegistry())
    tls = certificates.server()
    port = await control_plane.start("127.0.0.1:0", tls)
    task = asyncio.create_task(control_plane.run())
    address = HostPort("127.0.0.1", unused_port())
    try:
        async with reports_over_tls(address, tls, report_routes(control_plane.reports), 0) as reports:
            await until(lambda: control_plane.published, "it publishes")
            names: dict[str, list[str]] = {type_url: [] for type_url in MAKE_BEFORE_BREAK}
            for key in control_plane.publisher.routes():
                for (type_url, name), _ in control_plane.publisher.versions(key):
                    names[type_url].append(name)
            assert all(names.values()), "there is something of each type"
            yield Running(port, reports, certificates, names)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await control_plane.stop(0)


def node_of(who: str) -> base_pb2.Node:
    role, _, rest = who.partition("/")
    namespace, _, name = rest.partition("/")
    node = base_pb2.Node(id=name or "any", cluster="test")
    if role == "sidecar":
        node.metadata.update({"role": role, "namespace": namespace})
    return node


def seen_in(answers: list[bytes]) -> set[str]:
    return {namespace for namespace in NAMESPACES if any(namespace.encode() in one for one in answers)}


def expected(who: str, type_url: str) -> set[str]:
    return set() if who == "reader" and type_url == SECRET else set(WHO[who])


def is_complete(who: str, found: dict[str, list[bytes]]) -> bool:
    """Whether all that is to be seen was seen: some comes later, after what it requires."""
    return all(seen_in(found.get(type_url, [])) >= expected(who, type_url) for type_url in MAKE_BEFORE_BREAK)


FENCE = "not-there"


async def aggregated_delta(this: Running, who: str, named: bool) -> dict[str, list[bytes]]:
    """Ask for everything on one stream, by names or for all; return the resources by type."""
    found: dict[str, list[bytes]] = {}
    async with this.channel(who) as channel, time_limit(PATIENCE):
        call = channel.stream_stream(
            f"/{ADS}/DeltaAggregatedResources",
            lambda one: one.SerializeToString(),
            discovery_pb2.DeltaDiscoveryResponse.FromString,
        )()
        for type_url in MAKE_BEFORE_BREAK:
            names = this.names[type_url] if named else ["*"]
            await call.write(
                discovery_pb2.DeltaDiscoveryRequest(
                    node=node_of(who), type_url=type_url, resource_names_subscribe=names
                )
            )
        answered: set[str] = set()
        is_asked, is_over = False, False
        while not is_over:
            answer = await call.read()
            assert answer is not grpc.aio.EOF, await call.details()
            answered.add(answer.type_url)
            # What was asked for and is not there is said in the client's own words.
            found.setdefault(answer.type_url, []).extend(one.SerializeToString() for one in answer.resources)
            await call.write(discovery_pb2.DeltaDiscoveryRequest(type_url=answer.type_url, response_nonce=answer.nonce))
            is_over = FENCE in answer.removed_resources
            if not is_asked and answered == set(MAKE_BEFORE_BREAK) and is_complete(who, found):
                # All that was on its way comes before the answer to this.
                is_asked = True
                await call.write(
                    discovery_pb2.DeltaDiscoveryRequest(type_url=MAKE_BEFORE_BREAK[0], resource_names_subscribe=[FENCE])
                )
        call.cancel()
    return found


async def aggregated_sotw(this: Running, who: str) -> dict[str, list[bytes]]:
    """The same by state of the world, by names."""
    found: dict[str, list[bytes]] = {}
    async with this.channel(who) as channel, time_limit(PATIENCE):
        call = channel.stream_stream(
            f"/{ADS}/StreamAggregatedResources",
            lambda one: one.SerializeToString(),
            discovery_pb2.DiscoveryResponse.FromString,
        )()
        for type_url in MAKE_BEFORE_BREAK:
            await call.write(
                discovery_pb2.DiscoveryRequest(
                    node=node_of(who), type_url=type_url, resource_names=this.names[type_url]
                )
            )
        while not is_complete(who, found):
            answer = await call.read()
            assert answer is not grpc.aio.EOF, await call.details()
            found.setdefault(answer.type_url, []).extend(one.SerializeToString() for one in answer.resources)
            await call.write(
                discovery_pb2.DiscoveryRequest(
                    type_url=answer.type_url,
                    resource_names=this.names[answer.type_url],
                    version_info=answer.version_info,
                    response_nonce=answer.nonce,
                )
            )
        call.cancel()
    return found


async def of_one_type(this: Running, who: str, type_url: str) -> dict[str, list[bytes]]:
    """Ask the service of one type in each of its ways; return what each answers, by the method."""
    service, plural = PER_TYPE[type_url]
    found: dict[str, list[bytes]] = {}
    node, names = node_of(who), this.names[type_url]
    sotw = discovery_pb2.DiscoveryRequest(node=node, resource_names=names)
    delta = discovery_pb2.DeltaDiscoveryRequest(node=node, resource_names_subscribe=[*names, "*"])
    async with this.channel(who) as channel, time_limit(PATIENCE):
        fetch = channel.unary_unary(f"/{service}/Fetch{plural}", response_deserializer=SOTW.FromString)
        answer = await fetch(sotw.SerializeToString())
        found["Fetch"] = [one.SerializeToString() for one in answer.resources]
        for way, said, kind in (("Stream", sotw, SOTW), ("Delta", delta, DELTA)):
            if way == "Stream" and not expected(who, type_url):
                continue  # A stream of state of the world waits for the first of what it named.
            call = channel.stream_stream(f"/{service}/{way}{plural}", response_deserializer=kind.FromString)()
            await call.write(said.SerializeToString())
            answer = await call.read()
            assert answer is not grpc.aio.EOF, await call.details()
            found[way] = [one.SerializeToString() for one in answer.resources]
            call.cancel()
    return found


SOTW, DELTA = discovery_pb2.DiscoveryResponse, discovery_pb2.DeltaDiscoveryResponse


@pytest.mark.parametrize("who", WHO)
async def test_everything_on_one_stream(running: Running, who: str) -> None:
    for how, found in (
        ("for all", await aggregated_delta(running, who, named=False)),
        ("by names", await aggregated_delta(running, who, named=True)),
        ("state of the world", await aggregated_sotw(running, who)),
    ):
        for type_url in MAKE_BEFORE_BREAK:
            seen = seen_in(found.get(type_url, []))
            assert seen == expected(who, type_url), (how, SHORT[type_url])


@pytest.mark.parametrize("who", WHO)
async def test_each_type_by_its_own_service(running: Running, who: str) -> None:
    assert set(PER_TYPE) == set(MAKE_BEFORE_BREAK)
    for type_url in MAKE_BEFORE_BREAK:
        for way, answers in (await of_one_type(running, who, type_url)).items():
            assert seen_in(answers) == expected(who, type_url), (way, SHORT[type_url])


@pytest.mark.parametrize("who", [one for one in WHO if one != "gateway"])
async def test_a_secret_is_in_no_other_resource(running: Running, who: str) -> None:
    for type_url, answers in (await aggregated_delta(running, who, named=False)).items():
        hushed = {one for one in NAMESPACES if any(f"hush-{one}".encode() in answer for answer in answers)}
        assert hushed == (expected(who, SECRET) if type_url == SECRET else set())


@pytest.mark.parametrize("who", [*WHO, "controller"])
async def test_the_state_of_other_clients_is_told_to_nobody(running: Running, who: str) -> None:
    """CSDS would say what every Envoy has: this server has no such service, and whoever adds it has to scope it."""
    for method in ("StreamClientStatus", "FetchClientStatus"):
        async with running.channel(who) as channel, time_limit(PATIENCE):
            call = channel.unary_unary(f"/envoy.service.status.v3.ClientStatusDiscoveryService/{method}")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(b"")
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("who", [*WHO, "controller"])
async def test_reports_are_for_controllers(running: Running, who: str) -> None:
    context = running.certificates.client(who).context()
    async with (
        httpx.AsyncClient(trust_env=False, verify=context, timeout=4 * PATIENCE) as client,
        client.stream("GET", f"https://{HOST}:{running.reports}/reports") as answer,
    ):
        if who != "controller":
            assert answer.status_code == 403
            assert seen_in([await answer.aread()]) == set()
            return
        lines: list[bytes] = []
        async for line in answer.aiter_lines():
            lines.append(line.encode())
            if seen_in(lines) == set(NAMESPACES):
                return
