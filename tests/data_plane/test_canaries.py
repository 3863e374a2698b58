"""Three thousand requests each way, each with canaries: nothing of anybody's is seen where it does not belong.

Six models share one remote host, two and two of them even its cluster in Envoy. They differ in credential, path prefix
and headers, and each has a replica of its own.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import reduce

import pytest
import pytest_asyncio
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.route.v3.route_components_pb2 import Route
from envoy.extensions.filters.http.credential_injector.v3.credential_injector_pb2 import CredentialInjector
from envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import HttpProtocolOptions

from controller.api.contract.credentials import RemoteAuth
from controller.api.kubernetes.endpoints import Replica
from tests.support.data_plane.canaries import Canary, Outcome, Site, sent
from tests.support.data_plane.model import Model, Wanted
from tests.support.data_plane.mutation import Change, both, clusters, nothing, routes
from tests.support.data_plane.plane import Plane
from tests.support.data_plane.protected import Tokens
from tests.support.data_plane.sealed import api_key, bring, token
from tests.support.data_plane.witness import Witness
from tests.support.network import BACKEND_PORT, Network
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
Concerns = Callable[[RemoteAuth | None], bool]

KEY, OTHER_KEY = api_key("key", "x-key"), api_key("other", "authorization")
KEY_VALUE, OTHER_VALUE, CLIENT_SECRET = "outside key", "Bearer outside-other-key", "outside-client-secret"


class Neighbours:
    """The models and their servers."""

    def __init__(self, plane: Plane, network: Network, tokens: Tokens) -> None:
        self._plane = plane
        self._tokens = tokens
        self.remote = Witness("remote", network.host(50))
        self.replicas = [Witness("local", network.host(60 + number)) for number in range(6)]

    async def serve(self, change: Change = nothing, concerns: Concerns = lambda auth: False) -> list[Site]:
        """Publish all six anew; `change` edits those that it concerns, by their credential."""
        token_auth = token("client", self._tokens.url)
        bring(self._plane, {KEY: KEY_VALUE, OTHER_KEY: OTHER_VALUE, token_auth: CLIENT_SECRET})
        replicas = iter(self.replicas)

        async def site(prefix: str, auth: RemoteAuth | None = None, **headers: str) -> tuple[Model, Witness]:
            replica = next(replicas)
            edits = [change] if concerns(auth) else []
            # Half of the replicas are asked again and again though they fail, the others are avoided.
            edits += [clusters(never_avoided)] if prefix in ("/outside-a", "/outside-c", "/outside-f") else []
            added = tuple((name.replace("_", "-"), value) for name, value in headers.items())
            wanted = Wanted(
                away=50,
                replicas=(Replica(replica.host, BACKEND_PORT, True),),
                host=self.remote.host,
                authority="shared.remote.test",
                path_prefix=prefix,
                headers_to_add=added,
                auth=auth,
                change=reduce(both, edits, nothing),
            )
            return await self._plane.serve(wanted), replica

        key, other = ("x-key", KEY_VALUE.__eq__), ("authorization", OTHER_VALUE.__eq__)
        return [
            Site(*await site("/outside-a", x_tenant="outside a", x_key="outside key of a")),
            Site(*await site("/outside-b", x_tenant="outside b")),
            Site(*await site("/outside-c", KEY, x_tenant="outside c"), key),
            Site(*await site("/outside-d", KEY), key),
            Site(*await site("/outside-e", OTHER_KEY, x_tenant="outside e"), other),
            Site(*await site("/outside-f", token_auth, x_tenant="outside f"), ("authorization", self._is_token)),
        ]

    def _is_token(self, value: str) -> bool:
        return value.removeprefix("Bearer ") in self._tokens.issued

    async def all_leave(self, sites: list[Site]) -> None:
        """Wait until each has its credential, so that its requests reach the remote backend."""

        async def is_so() -> bool:
            outcome = await self.send(sites, 60, "")
            left = {int(seen.values("canary")[0]) % len(sites) for seen in self.remote.seen}
            return len(left) == len(sites) and not outcome.failed

        await until(is_so, "every model's requests leave")

    async def send(self, sites: list[Site], requests: int, failing: str) -> Outcome:
        """Send so many, to the models in turn; on the side `failing` half of them fail, unless it is empty."""
        chance = random.Random(failing)
        for witness in (self.remote, *self.replicas):
            witness.seen.clear()
        failures = [(f"on-{failing}", "503"), (f"on-{failing}", "reset"), None, None] if failing else [None]
        canaries = [Canary(number, sites[number % len(sites)], chance.choice(failures)) for number in range(requests)]
        return await sent(canaries, self.remote)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def neighbours(plane: Plane, network: Network) -> AsyncIterator[Neighbours]:
    async with AsyncExitStack() as stack:
        # A token lives for two seconds, so that there are several in the course of a test.
        tokens = await stack.enter_async_context(Tokens(network.host(30), CLIENT_SECRET, lifetime=2).running())
        neighbours = Neighbours(plane, network, tokens)
        for witness in (neighbours.remote, *neighbours.replicas):
            await stack.enter_async_context(witness.running())
        yield neighbours


@pytest.mark.parametrize("failing", ["local", "remote"])
async def test_three_thousand_requests_each_way_leak_nothing(neighbours: Neighbours, failing: str) -> None:
    sites = await neighbours.serve()
    await neighbours.all_leave(sites)

    outcome = await neighbours.send(sites, 3_000, failing)

    assert outcome.failed == []
    assert outcome.leaks == []
    # By every way: to the other side and back, and to one side alone.
    assert min(outcome.both, outcome.direct, outcome.local) > 300, outcome
    assert outcome.both + outcome.direct + outcome.local == 3_000


def never_avoided(cluster: Cluster) -> None:
    cluster.ClearField("outlier_detection")


def client_kept(route: Route) -> None:
    del route.request_headers_to_remove[:]


def same_path(route: Route) -> None:
    route.route.ClearField("prefix_rewrite")


def nothing_given_back(cluster: Cluster) -> None:
    if cluster.name.endswith("/fallback"):
        _edit(cluster, lambda options: options.http_filters.__delitem__(0))


def key_of_client(cluster: Cluster) -> None:
    if cluster.name.startswith("backend/"):
        _edit(cluster, _keep_what_there_is)


def _keep_what_there_is(options: HttpProtocolOptions) -> None:
    injector = CredentialInjector()
    assert options.http_filters[0].typed_config.Unpack(injector)
    injector.overwrite = False
    options.http_filters[0].typed_config.Pack(injector)


def _edit(cluster: Cluster, edit: Callable[[HttpProtocolOptions], object]) -> None:
    options = HttpProtocolOptions()
    assert cluster.typed_extension_protocol_options[OPTIONS].Unpack(options)
    edit(options)
    cluster.typed_extension_protocol_options[OPTIONS].Pack(options)


@pytest.mark.parametrize(
    ("change", "concerns", "failing", "leak"),
    [
        (routes(client_kept), lambda auth: True, "local", "something of the client's left"),
        (routes(same_path), lambda auth: True, "local", "target"),
        (clusters(nothing_given_back), lambda auth: auth is None, "remote", "remote backend's came in"),
        (clusters(key_of_client), lambda auth: auth == KEY, "remote", "x-key is ['of client"),
    ],
    ids=["request_headers_to_remove", "prefix_rewrite", "restored", "overwrite"],
)
async def test_each_leak_would_be_found(
    neighbours: Neighbours, change: Change, concerns: Concerns, failing: str, leak: str
) -> None:
    """What the test above is worth: without one of the settings it fails."""
    sites = await neighbours.serve(change, concerns)
    await neighbours.all_leave(sites)

    outcome = await neighbours.send(sites, 600, failing)

    assert [one for one in outcome.leaks if leak in one] != []


async def test_a_request_of_another_model_would_be_found(neighbours: Neighbours) -> None:
    sites = await neighbours.serve()
    await neighbours.all_leave(sites)
    # Each is sent to the model of the one before.
    crossed = [replace(site, model=other.model) for site, other in zip(sites, [sites[-1], *sites[:-1]], strict=True)]

    outcome = await neighbours.send(crossed, 600, "local")

    assert [one for one in outcome.leaks if "got a request of another model" in one] != []
