"""The server and a real Envoy."""

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry

from controller.api.timing import StreamTiming
from tests.support.network import unused_port
from tests.support.objects import a_model, a_slice
from tests.support.protocol.envoy_resources import answers, endpoints, listener, model, running_envoy, upstream
from tests.support.protocol.xds_client import TOKEN, Served
from tests.support.routes import A, B, a_route
from tests.support.store import MemoryStore
from tests.support.waiting import until
from xds_server.control_plane import ControlPlane, ControlPlaneOptions
from xds_server.snapshot.snapshot import LISTENER


@pytest.fixture
async def backend():
    async with upstream() as port:
        yield port


@pytest.fixture
async def served():
    # However long this machine takes to let Envoy acknowledge, nothing goes out before.
    server = await Served.start(f"127.0.0.1:{unused_port()}", StreamTiming(make_before_break=600.0))
    yield server
    await server.stop()


async def test_envoy_starts_changes_and_loses_models(served, backend, tmp_path):
    ports = {"ns/m": unused_port(), "ns/n": unused_port()}
    served.publish(*model("ns/m", ports["ns/m"], backend))
    async with running_envoy(tmp_path, served.port, TOKEN):
        await until(lambda: answers(ports["ns/m"]), "ns/m answers")
        served.publish(*model("ns/n", ports["ns/n"], backend))
        await until(lambda: answers(ports["ns/n"]), "ns/n answers")
        (state,) = served.server.clients()
        assert (state.node_id, state.user_agent, state.authorised) == ("envoy-under-test", "envoy", True)
        assert state.overdue == ()
        # Its last acknowledgement may be on its way while it answers.
        await until(lambda: served.server.clients()[0].initialised, "it has acknowledged something of each type")

        served.publish(removed=[r.key for r in model("ns/n", 1, 1)])

        async def gone():
            return not await answers(ports["ns/n"])

        await until(gone, "ns/n is gone")
        assert await answers(ports["ns/m"])
        assert served.server.clients()[0].overdue == ()


async def test_a_listener_on_a_taken_port_is_quarantined_and_the_others_work(served, backend, tmp_path):
    port = unused_port()
    with socket.create_server(("127.0.0.1", unused_port())) as holder:
        taken = holder.getsockname()[1]
        served.publish(*model("ns/good", port, backend), *model("ns/bad", taken, backend))
        async with running_envoy(tmp_path, served.port, TOKEN):
            await until(lambda: answers(port), "the model answers")

            await until(lambda: served.server.clients()[0].rejections, "the listener is rejected")
            (rejection,) = served.server.clients()[0].rejections
            assert (rejection.key.type_url, rejection.key.name) == (LISTENER, "ns/bad")
            assert "ddress already in use" in rejection.message

            other = unused_port()
            served.publish(listener("ns/bad", other))
            await until(lambda: answers(other), "the model answers on its new port")
            await until(lambda: served.server.clients()[0].rejections == (), "nothing is rejected any more")


async def test_an_envoy_that_refuses_the_first_listener_it_is_sent_is_reported_also_by_the_next_server(
    backend, tmp_path
):
    """All that the next server has to send it is what it refuses again."""
    port, at = unused_port(), f"127.0.0.1:{unused_port()}"
    with socket.create_server(("127.0.0.1", unused_port())) as holder:
        taken = holder.getsockname()[1]
        store = MemoryStore([served_on("b", taken), a_slice().port(backend).ready("127.0.0.1").stored()])

        def is_refused(reports):
            found = reports.report(B)
            is_named = [words for words in found.refusals if "ddress already in use" in words]
            return found.connected == 1 and found.programmed == 0 and is_named

        def is_programmed(reports):
            found = reports.report(A)
            return found.connected == found.programmed == 1 and not found.refusals

        async with running_envoy(tmp_path, int(at.rpartition(":")[2]), TOKEN):
            async with control_plane(store, at) as reports:
                await until(lambda: is_refused(reports), "the only listener is refused, and that is reported")
                store.put(served_on("a", port))
                await until(lambda: is_programmed(reports), "another model is served")
            async with control_plane(store, at) as reports:
                await until(lambda: is_refused(reports), "it is refused once more, and that is reported")
                await until(lambda: is_programmed(reports), "the other model is served as before")


def served_on(name, port):
    raw = a_route(port=port).model_dump(mode="json", by_alias=True, exclude_none=True)
    return a_model(name).stored(status={"observedGeneration": 1, "route": raw})


@asynccontextmanager
async def control_plane(store, address):
    """The whole xDS server over a store, and what it reports."""
    options = ControlPlaneOptions(node_token=TOKEN, health_checks=False)
    control_plane = ControlPlane(store, options, CollectorRegistry())
    await control_plane.start(address)
    running = asyncio.create_task(control_plane.run())
    try:
        yield control_plane.reports
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await control_plane.stop(0.5)


async def test_a_restarted_server_resends_nothing_and_then_goes_on(served, backend, tmp_path):
    port = unused_port()
    served.publish(*model("ns/m", port, backend), *model("ns/n", unused_port(), backend))
    async with running_envoy(tmp_path, served.port, TOKEN) as envoy:
        await until(lambda: answers(port), "the model answers")
        await served.server.stop(0.5)
        assert await answers(port)
        again = await Served.start(f"127.0.0.1:{served.port}")
        try:
            assert await answers(port)
            again.publish(*served.snapshot_resources())
            wanted = [(r.key, r.version) for r in served.snapshot_resources()]

            def holds_all():
                return [holding.complete for holding in again.server.holds(wanted)] == [True]

            await until(holds_all, "Envoy holds all")
            resent = {key for event in again.events if event.kind == "acknowledged" for key in event.keys}
            assert resent == set()
            assert await answers(port)

            async with upstream() as elsewhere:
                again.publish(endpoints("ns/m", elsewhere))
                moved = endpoints("ns/m", elsewhere)

                def has_moved():
                    return again.server.holds([(moved.key, moved.version)])[0].complete

                await until(has_moved, "Envoy holds the new endpoint")
                assert await answers(port)
            assert set((await envoy.stats("update_rejected")).values()) == {0}
        finally:
            await again.stop()
