"""Trap 8: of all timeouts that Envoy has taken in, none ends a long stream.

On an Envoy of its own, where no other test has brought any.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.data_plane.stage import WAYS, Stage

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_nothing_that_envoy_has_taken_in_ends_a_long_stream(stage: Stage) -> None:
    for way in WAYS:
        await stage.plane.serve(stage.http.wanted(way, away=50))

    dump = json.loads(await stage.plane.envoy.dump())

    routes = list(_all_of("route", dump, having="upgrade_configs"))
    assert len(routes) > 3 * len(WAYS)  # the two of the split, and those of the internal listeners
    assert {one.get("timeout") for one in routes} == {"0s"}
    of_unused = [
        one.pop("idle_timeout") for one in _values("common_http_protocol_options", dump) if "idle_timeout" in one
    ]
    assert len(of_unused) >= len(WAYS)  # Trap 19: of connections to a replica or a backend that carry no request.
    found = {(name, str(value)) for name in ENDS_STREAMS for value in _values(name, dump)}
    assert found == {("stream_idle_timeout", "3600s")}


ENDS_STREAMS = (
    "stream_idle_timeout",
    "idle_timeout",
    "max_stream_duration",
    "max_connection_duration",
    "max_downstream_connection_duration",
    "per_try_timeout",
    "per_try_idle_timeout",
    "request_timeout",
    "stream_flush_timeout",
    "grpc_timeout_header_max",
    "close_connections_on_host_health_failure",
)


def _values(name: str, where: Any) -> Iterator[Any]:
    """Find all values of a field, however deep."""
    if isinstance(where, dict):
        for key, value in where.items():
            if key == name:
                yield value
            else:
                yield from _values(name, value)
    elif isinstance(where, list):
        for one in where:
            yield from _values(name, one)


def _all_of(name: str, where: Any, having: str) -> Iterator[dict[str, Any]]:
    return (one for one in _values(name, where) if isinstance(one, dict) and having in one)
