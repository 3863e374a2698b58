"""An Envoy that reports its load, and a server that does not want to know, as one of before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from prometheus_client import CollectorRegistry

from controller.api.contract.route import LocalBackend, Route, RouteKey, Split
from controller.gateway.bootstrap import HostPort
from tests.support.data_plane.backends import Backends
from tests.support.data_plane.plane import TOKEN
from tests.support.envoy import Envoy
from tests.support.http import plain_http
from tests.support.network import Network
from tests.support.waiting import until
from xds_server.resources.translator import EnvoySettings, Translator
from xds_server.snapshot.snapshot import Snapshot
from xds_server.stream.admission import ClientAdmission
from xds_server.stream.load_reporting.streams import LoadStreams, Unobserved
from xds_server.stream.server import services
from xds_server.stream.server.sessions import Sessions
from xds_server.stream.server.telemetry import ClientTelemetry


@pytest.fixture
async def sessions() -> AsyncIterator[Sessions]:
    sessions = Sessions("before", ClientAdmission(TOKEN), ClientTelemetry(lambda event: None, CollectorRegistry()))
    task = asyncio.create_task(sessions.run())
    yield sessions
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def xds(sessions: Sessions) -> AsyncIterator[HostPort]:
    """The discovery services alone."""
    handlers = services.handlers(sessions, LoadStreams(Unobserved(), sessions.admission), "before")
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(tuple(one for one in handlers if one.service_name() != services.LRS))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield HostPort("127.0.0.1", port)
    await server.stop(0)


async def test_it_serves_all_the_same(
    sessions: Sessions, xds: HostPort, network: Network, backends: Backends, tmp_path: Path
) -> None:
    gateway = network.host(1)
    route = Route.between(port=9000, split=Split.away(0), local=LocalBackend(namespace="ns", service="m"))
    resources = Translator(EnvoySettings(gateway)).resources(RouteKey.of_model("ns", "m"), route, backends.replicas)
    sessions.publish(Snapshot.of(resources), [one.key for one in resources])
    envoy = Envoy.joining("envoy", TOKEN, xds, tmp_path)
    try:
        await envoy.started()

        async def refused() -> bool:
            return await envoy.stat("load_reporter.errors") >= 2

        await until(refused, "Envoy was refused, and tried again", within=60)
        async with plain_http() as client:
            assert (await client.get(f"http://{gateway}:9000/")).status_code == 200
        (state,) = sessions.streams.clients()
        assert state.initialised
        assert await envoy.stat("control_plane.connected_state") == 1
    finally:
        await envoy.stop()
