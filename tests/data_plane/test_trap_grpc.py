"""Traps 13, 16 and 17: gRPC ends in trailers, Envoy answers it itself with 200, and calls share connections."""

from __future__ import annotations

import asyncio
import contextlib

import grpc
import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.route.v3.route_components_pb2 import Route
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import HttpProtocolOptions

from controller.api.contract.credentials import CredentialSource, HeaderCredential, OAuth, RemoteAuth
from controller.api.kubernetes.endpoints import Replica
from tests.support.data_plane.model import Model
from tests.support.data_plane.mutation import both, clusters, managers, routes
from tests.support.data_plane.stage import SENT_ONCE, Stage
from tests.support.data_plane.trap import Variants, serve_both
from tests.support.network import BACKEND_PORT
from tests.support.waiting import at_rest

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
MISSING = CredentialSource.of_secret("missing", "x")
WITHOUT = {
    "key": RemoteAuth(api_key=HeaderCredential(header="x-key", value=MISSING)),
    "token": RemoteAuth(oauth=OAuth(client_id="me", client_secret=MISSING, token_url="http://127.0.0.1:1/token")),
}


async def side_of_a_call(stage: Stage, model: Model, method: str = "Echo") -> str:
    """Make one call; return the side that answered. Raises grpc.aio.AioRpcError."""
    async with stage.channel(model) as channel:
        call = channel.unary_unary(f"/any.Service/{method}")(b"x", metadata=(("probe", stage.probe()),), timeout=60)
        assert await call == b"x"
        metadata = await call.initial_metadata()
        return str(metadata["x-beamlit-route"])


def always_http1(cluster: Cluster) -> None:
    cluster.typed_extension_protocol_options.clear()


async def test_grpc_reaches_servers_that_speak_http2_alone(stage: Stage) -> None:
    """By `use_downstream_protocol_config`."""
    for away, side in ((0, "local"), (100, "remote")):
        models = await serve_both(stage.plane, stage.rpc.wanted(away=away), clusters(always_http1))

        assert await side_of_a_call(stage, models.held) == side
        with pytest.raises(grpc.aio.AioRpcError):
            await side_of_a_call(stage, models.removed)


def http_statuses_only(route: Route) -> None:
    route.route.retry_policy.retry_on = route.route.retry_policy.retry_on.replace(",unavailable", "")


async def test_a_call_to_a_server_that_says_unavailable_goes_to_the_other_side(stage: Stage) -> None:
    models = await serve_both(stage.plane, stage.rpc.wanted(), routes(http_statuses_only))

    async def called(model: Model) -> bytes:
        async with stage.channel(model) as channel:
            status = channel.unary_unary("/any.Service/Status")
            return bytes(await status(b"14 local", metadata=(("probe", stage.probe()),), timeout=60))

    assert await called(models.held) == b"remote"
    with pytest.raises(grpc.aio.AioRpcError):
        await called(models.removed)


async def test_a_call_that_the_remote_with_a_credential_did_not_answer_goes_to_a_replica(stage: Stage) -> None:
    wanted = stage.rpc.wanted("guarded-fallback")
    models = await serve_both(stage.plane, wanted, routes(http_statuses_only))

    await _answered_by_a_replica(stage, models)


@pytest.mark.parametrize("auth", WITHOUT.values(), ids=WITHOUT)
async def test_a_call_without_a_credential_goes_to_a_replica(stage: Stage, auth: RemoteAuth) -> None:
    wanted = stage.rpc.wanted("remote", auth=auth)
    models = await serve_both(stage.plane, wanted, routes(http_statuses_only))

    await _answered_by_a_replica(stage, models)


async def _answered_by_a_replica(stage: Stage, models: Variants[Model]) -> None:
    assert [await side_of_a_call(stage, models.held) for _ in range(10)] == ["local"] * 10
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await side_of_a_call(stage, models.removed)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_what_neither_side_answers_is_unavailable(stage: Stage) -> None:
    nobody = (Replica(stage.rpc.nobody, BACKEND_PORT, ready=True),)
    for away in (0, 100):
        model = await stage.plane.serve(stage.rpc.wanted("guarded-fallback", away=away, replicas=nobody))

        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await side_of_a_call(stage, model)

        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


def default_windows(resource: Cluster | HttpConnectionManager) -> None:
    """Take the windows out of a cluster or a connection manager."""
    if isinstance(resource, HttpConnectionManager):
        resource.ClearField("http2_protocol_options")
        return
    options = HttpProtocolOptions()
    packed = resource.typed_extension_protocol_options[OPTIONS]
    assert packed.Unpack(options)
    options.use_downstream_protocol_config.http2_protocol_options.Clear()
    packed.Pack(options)


async def test_calls_that_nobody_reads_stop_no_other(stage: Stage) -> None:
    """By the windows of clusters and connection managers. Every way at the same time.

    Those without are given three times as long as those with them took. And so many are asked that not all of them come
    to a worker of Envoy which nothing stops.
    """
    clock = asyncio.get_running_loop().time

    async def all_are_answered(way: str) -> tuple[bool, bool]:
        without = both(clusters(default_windows), managers(default_windows))
        models = await serve_both(stage.plane, stage.rpc.wanted(way, replicas=stage.rpc.replicas[:1]), without)
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(5):
                # Each on a connection of its own; of each model one of Envoy's two workers gets three or more.
                begin = clock()
                assert await _flooded(stage, models.held, stack, within=30)
                # Of the other those that come first may leave nothing for the rest.
                await _flooded(stage, models.removed, stack, within=max(2, 3 * (clock() - begin)))

            begin = clock()
            held = await asyncio.gather(*(_is_answered(stage, models.held, within=30) for _ in range(24)))
            patience = max(3, 3 * (clock() - begin))
            removed = await asyncio.gather(*(_is_answered(stage, models.removed, patience) for _ in range(24)))
        return all(held), all(removed)

    answered = await asyncio.gather(*map(all_are_answered, SENT_ONCE))

    assert dict(zip(SENT_ONCE, answered, strict=True)) == dict.fromkeys(SENT_ONCE, (True, False))


async def _flooded(stage: Stage, model: Model, stack: contextlib.AsyncExitStack, within: float) -> bool:
    """Make a call, and read no more than the beginning of what it is sent; tell whether even that came."""
    channel = await stack.enter_async_context(stage.channel(model))
    probe = stage.probe()
    call = channel.unary_stream("/any.Service/Flood")(b"%d" % (1 << 40), metadata=(("probe", probe),))
    stack.callback(call.cancel)
    begun = True
    try:
        await asyncio.wait_for(call.read(), within)
    except TimeoutError:
        begun = False
    visit = stage.visits[probe]
    await at_rest(lambda: visit.sent, 0.5)
    return begun


async def _is_answered(stage: Stage, model: Model, within: float) -> bool:
    async with stage.channel(model) as channel:
        call = channel.unary_unary("/any.Service/Echo")(b"x", metadata=(("probe", stage.probe()),), timeout=within)
        try:
            return bool(await call == b"x")
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            return False
