"""Where requests never go, whoever writes what: the endpoint guard. The programs run on through all tests."""

from __future__ import annotations

import pytest

from tests.support.beamlit import eventually
from tests.support.data_plane.backends import Backend
from tests.support.kube.site import Site, deployment, endpoints, model
from tests.support.objects import ASlice, a_service, a_slice

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def site(running_site: Site) -> Site:
    """One for all tests here."""
    return running_site


async def servers(site: Site, port: int, requests: int = 60) -> set[str]:
    """Who answers that many requests."""
    replies = [await site.ask(port) for _ in range(requests)]
    assert [one.error for one in replies if one.error] == []
    return {one.server for one in replies}


async def until_servers(site: Site, port: int, *expected: str) -> None:
    """Wait until these answer, and nobody else: each thread of the Envoy hears of a change by itself."""
    await eventually(lambda: servers(site, port), lambda seen: seen == {*expected})


def by_hand(service: str, replica: Backend) -> ASlice:
    """An EndpointSlice as anybody writes it who may."""
    return a_slice(service, replica.name).port(replica.port).ready(replica.host)


async def test_a_slice_that_the_services_controllers_did_not_write_gets_no_request(site: Site) -> None:
    replica, intruder = site.backend("local-1"), site.backend("local-2")
    site.write(
        deployment("guarded"), site.served("guarded", [replica], site.backend("remote")), by_hand("guarded", intruder)
    )
    await site.until_condition("guarded", "Ready", "True")
    # The model may be seen before its slices, or before that of the intruder.
    await eventually(
        lambda: site.condition("guarded", "Accepted"),
        lambda seen: (
            seen[:2] == ("True", "AcceptedWithWarnings")
            and f"EndpointSlice {site.namespace}/guarded-local-2" in seen[2]
        ),
    )
    await site.until_split("guarded", "100/0 Steady")
    port = await site.port("guarded")
    await until_servers(site, port, "local-1")
    assert (await site.status("guarded"))["local"]["summary"] == "1/1"
    # The last replica goes: the intruder is none.
    await site.change(endpoints("guarded", replica, ready=False))
    await site.until_split("guarded", "0/100 LocalDown")
    await until_servers(site, port, "remote")
    assert intruder.count() == 0
    # It is the label that counts, and it counts at once.
    await site.change(endpoints("guarded", intruder))
    await site.until_answered(port, "local-2")
    await site.until_condition("guarded", "Accepted", "True", "Accepted")


async def test_the_owner_of_a_service_without_a_selector_writes_its_slices_by_hand(site: Site) -> None:
    replica = site.backend("local-1")
    site.write(a_service("by-hand").port(80), by_hand("by-hand", replica), model("by-hand", site.backend("remote")))
    # The model may be seen before its slices: then the first requests leave.
    await site.until_split("by-hand", "100/0 Steady")
    await site.until_condition("by-hand", "Ready", "True")
    # The status says it before the Envoy has it.
    await until_servers(site, await site.port("by-hand"), "local-1")
    assert (await site.condition("by-hand", "Accepted"))[:2] == ("True", "Accepted")
    # With a selector it is the Service's controllers that write them.
    await site.change(a_service("by-hand").port(80).selecting(run="by-hand"))
    await site.until_split("by-hand", "0/100 LocalDown")
    assert f"{site.namespace}/by-hand-local-1" in (await site.condition("by-hand", "Accepted"))[2]


async def test_a_remote_backend_that_only_the_gateway_can_reach_is_refused(site: Site) -> None:
    hosts = ["169.254.169.254", "127.0.0.1:9901", "[::1]:9901", "localhost", "metadata.google.internal"]
    replica, hidden = site.backend("local-1"), site.backend("hidden", host="127.0.0.1")
    for number, host in enumerate((*hosts, f"127.0.0.1:{hidden.port}")):
        name = f"m{number}"
        site.write(site.served(name, [replica]).with_remote(host).overridden("remote=100"))
    for number, host in enumerate(hosts):
        name = f"m{number}"
        message = await site.until_condition(name, "ResolvedRefs", "False", "RemoteNotUsable")
        assert "remoteBackend.host" in message, host
        await site.until_condition(name, "Programmed", "True")
        assert "remote" not in (await site.status(name))["route"]
        assert await servers(site, await site.port(name), requests=10) == {"local-1"}
    assert hidden.count() == 0
