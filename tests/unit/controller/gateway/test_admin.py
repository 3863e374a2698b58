"""What Envoy's admin interface says, read."""

from __future__ import annotations

import httpx
import pytest

from controller.api.contract.route import RouteKey
from controller.gateway.admin import DownstreamLoad, EnvoyAdmin, EnvoyAdminError
from xds_server.resources.names import entrance_statistics, local_listener, remote_listener

CHAT, OTHER = RouteKey.of_model("default", "chat"), RouteKey.of_model("models", "llama.v1")
IDLE = DownstreamLoad(in_flight=0, unsent=0, requests=0)


def envoy(*, code: int = 200, **pages: str) -> EnvoyAdmin:
    """An Envoy that has these pages."""

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(code, text=pages[request.url.path.strip("/")])

    return EnvoyAdmin(httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://envoy"))


def stats(listener: str, active: int, total: int, unsent: int = 0) -> str:
    return (
        f"http.{listener}.downstream_rq_active: {active}\n"
        f"http.{listener}.downstream_rq_total: {total}\n"
        f"http.{listener}.downstream_cx_tx_bytes_buffered: {unsent}\n"
    )


async def test_the_load_is_that_of_the_listeners_for_clients():
    text = (
        stats(entrance_statistics(CHAT), 1, 10, 300)
        + stats(entrance_statistics(OTHER), 2, 20)
        + stats(remote_listener(CHAT), 100, 1000, 100)
        + stats(local_listener(CHAT), 100, 1000, 100)
        + stats("admin", 1, 7)
    )
    load = await envoy(stats=text).load()
    assert load == DownstreamLoad(in_flight=3, unsent=300, requests=30)
    assert not load.idle


async def test_the_listeners_of_an_older_xds_server_count():
    text = stats("default/chat", 1, 10) + stats("remote/default/chat", 100, 1000)
    assert (await envoy(stats=text).load()).in_flight == 1


async def test_an_envoy_that_serves_nobody_is_idle():
    load = await envoy(stats=stats(entrance_statistics(CHAT), 0, 10)).load()
    assert load.idle
    assert (await envoy(stats="").load()) == IDLE
    assert not DownstreamLoad(in_flight=0, unsent=1, requests=1).idle


async def test_it_is_ready_once_it_has_clusters_and_listeners():
    clusters, listeners = (f"{name}.update_success: {{}}\n" for name in ("cluster_manager.cds", "listener_manager.lds"))
    assert await envoy(ready="LIVE\n", stats=clusters.format(1) + listeners.format(2)).not_ready() is None
    for text in ("", clusters.format(1) + listeners.format(0)):
        assert await envoy(ready="LIVE\n", stats=text).not_ready() == (
            "Envoy has not been told its clusters and listeners yet"
        )
    assert await envoy(ready="DRAINING\n", code=503).not_ready() == "Envoy says DRAINING"


async def test_one_that_was_told_is_asked_for_no_statistics_any_more():
    assert await envoy(ready="LIVE\n").not_live() is None
    assert await envoy(ready="DRAINING\n", code=503).not_live() == "Envoy says DRAINING"


async def test_a_page_that_it_does_not_have_is_an_error():
    with pytest.raises(EnvoyAdminError, match="/stats: status 404"):
        await envoy(stats="", code=404).load()
