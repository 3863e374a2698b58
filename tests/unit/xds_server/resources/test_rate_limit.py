"""Rate limits are told to Envoy once for a route, whatever its split, and cost nothing where there are none."""

import pytest
from envoy.extensions.filters.http.local_ratelimit.v3.local_rate_limit_pb2 import LocalRateLimit

from controller.api.contract.rate_limit import RouteRateLimit
from controller.api.contract.route import Route
from tests.support.resources import by_key, message_of
from tests.support.routes import A, a_remote, a_route
from xds_server.resources import names
from xds_server.resources.translator import EnvoySettings, Translator
from xds_server.snapshot.snapshot import LISTENER, ROUTE, ResourceKey

PER_KEY = RouteRateLimit(requests=5, unit="Minute", per="Header", header="x-key")


def limit(requests: int, unit: str) -> RouteRateLimit:
    return RouteRateLimit(requests=requests, unit=unit)


def limited(*limits, away=0):
    return a_route(a_remote(), away=away).model_copy(update={"rate_limits": limits})


def resources(*limits, away=0):
    return by_key(Translator(EnvoySettings()).resources(A, limited(*limits, away=away), ()))


def told(*limits, away=0):
    """What the front's virtual host tells the filter, None for nothing."""
    host = message_of(resources(*limits, away=away)[ResourceKey(ROUTE, names.entrance_routes(A, 80))]).virtual_hosts[0]
    assert not any("beamlit.rate_limit" in route.typed_per_filter_config for route in host.routes)
    if "beamlit.rate_limit" not in host.typed_per_filter_config:
        return None
    config = LocalRateLimit()
    assert host.typed_per_filter_config["beamlit.rate_limit"].Unpack(config)
    return config


def test_nothing_is_told_without_limits():
    assert told() is None


@pytest.mark.parametrize("away", [0, 30, 100])
def test_a_limit_is_told_once_whatever_the_split(away):
    assert told(limit(5, "Minute"), away=away) == told(limit(5, "Minute"))


def test_an_edit_of_the_limits_leaves_the_listener_alone():
    """Connections to one that changes would have to end."""
    front = ResourceKey(LISTENER, "port/80")
    assert resources()[front] == resources(limit(5, "Minute"))[front] == resources(PER_KEY)[front]


@pytest.mark.parametrize(
    ("limits", "seconds"),
    [
        ([limit(10, "Second")], "1"),
        ([limit(60, "Minute")], "1"),
        ([limit(59, "Minute")], "2"),
        ([limit(1, "Hour")], "3600"),
        ([limit(10, "Second"), limit(4, "Minute"), limit(3600, "Hour")], "15"),
    ],
)
def test_a_client_is_told_when_the_slowest_limit_lets_one_more_in(limits, seconds):
    (header,) = told(*limits).response_headers_to_add
    assert (header.header.key, header.header.value) == ("retry-after", seconds)


def test_each_limit_has_a_bucket_of_its_own_though_two_count_by_the_same():
    found = told(PER_KEY, PER_KEY).descriptors
    assert [[(one.key, one.value) for one in each.entries] for each in found] == [
        [("limit", "0"), ("header", "")],
        [("limit", "1"), ("header", "")],
    ]


def test_a_route_without_limits_is_written_as_before_there_were_any():
    """So an Envoy that has it has it still, whichever version wrote the status."""
    assert "rateLimits" not in limited().model_dump(mode="json", by_alias=True)
    assert "rate_limits" not in limited().model_dump()
    written = limited(PER_KEY, limit(1, "Hour")).model_dump(mode="json", by_alias=True, exclude_none=True)
    assert written["rateLimits"][1] == {"requests": 1, "unit": "Hour", "per": "Model"}
    assert Route.model_validate(written) == limited(PER_KEY, limit(1, "Hour"))
