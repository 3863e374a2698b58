"""The server and a real Envoy."""

import socket

import httpx
import pytest
from envoy_resources import answers, endpoints, free_port, listener, model, running_envoy, until, upstream
from xds_client import TOKEN, Served

from xds_server.snapshot.types import LISTENER


@pytest.fixture
async def backend():
    async with upstream() as port:
        yield port


@pytest.fixture
async def served():
    server = await Served.start(f"127.0.0.1:{free_port()}")
    yield server
    await server.stop()


async def test_envoy_starts_changes_and_loses_models(served, backend, tmp_path):
    ports = {"ns/m": free_port(), "ns/n": free_port()}
    served.publish(*model("ns/m", ports["ns/m"], backend))
    async with running_envoy(tmp_path, served.port, TOKEN):
        await until(lambda: answers(ports["ns/m"]))
        served.publish(*model("ns/n", ports["ns/n"], backend))
        await until(lambda: answers(ports["ns/n"]))
        (state,) = served.server.clients()
        assert (state.node_id, state.user_agent, state.authorised) == ("envoy-under-test", "envoy", True)
        assert state.initialised
        assert state.overdue == ()

        served.publish(removed=[r.key for r in model("ns/n", 1, 1)])

        async def gone():
            return not await answers(ports["ns/n"])

        await until(gone)
        assert await answers(ports["ns/m"])
        assert served.server.clients()[0].overdue == ()


async def test_a_listener_on_a_taken_port_is_quarantined_and_the_others_work(served, backend, tmp_path):
    port = free_port()
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = holder.getsockname()[1]
        served.publish(*model("ns/good", port, backend), *model("ns/bad", taken, backend))
        async with running_envoy(tmp_path, served.port, TOKEN):
            await until(lambda: answers(port))

            async def rejected():
                return bool(served.server.clients()[0].rejections)

            await until(rejected)
            (rejection,) = served.server.clients()[0].rejections
            assert (rejection.key.type_url, rejection.key.name) == (LISTENER, "ns/bad")
            assert "ddress already in use" in rejection.message

            other = free_port()
            served.publish(listener("ns/bad", other))
            await until(lambda: answers(other))
            assert served.server.clients()[0].rejections == ()


async def test_a_restarted_server_resends_nothing_and_then_goes_on(served, backend, tmp_path):
    port = free_port()
    served.publish(*model("ns/m", port, backend), *model("ns/n", free_port(), backend))
    async with running_envoy(tmp_path, served.port, TOKEN) as admin:
        await until(lambda: answers(port))
        await served.server.stop(0.5)
        assert await answers(port)
        again = await Served.start(f"127.0.0.1:{served.port}")
        try:
            assert await answers(port)
            again.publish(*served.snapshot_resources())
            wanted = [(r.key, r.version) for r in served.snapshot_resources()]

            async def holds_all():
                return [holding.complete for holding in again.server.holds(wanted)] == [True]

            await until(holds_all)
            resent = {key for event in again.events if event.kind == "acknowledged" for key in event.keys}
            assert resent == set()
            assert await answers(port)

            async with upstream() as elsewhere:
                again.publish(endpoints("ns/m", elsewhere))
                moved = endpoints("ns/m", elsewhere)

                async def has_moved():
                    return again.server.holds([(moved.key, moved.version)])[0].complete

                await until(has_moved)
                assert await answers(port)
            async with httpx.AsyncClient(trust_env=False) as client:
                stats = (await client.get(f"http://127.0.0.1:{admin}/stats?filter=update_rejected")).text
            assert all(line.endswith(": 0") for line in stats.splitlines())
        finally:
            await again.stop()
