"""What the access log says of requests, and that it says nothing else: lines of JSON that tell the truth."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from controller.api.contract.credentials import RemoteTls
from controller.api.contract.route import HttpCheck, ReplicaCheck
from tests.support.data_plane.access_log import but, lines_of
from tests.support.data_plane.backends import Backends
from tests.support.data_plane.model import Model, Wanted
from tests.support.data_plane.plane import Plane
from tests.support.data_plane.protected import Pki
from xds_server.resources.access_log import AccessLog

pytestmark = pytest.mark.asyncio(loop_scope="module")

ALL = Wanted(access_log=AccessLog.ALL)
FIELDS = {
    *("kind", "namespace", "model", "start_time", "duration_ms", "first_byte_ms", "method", "protocol", "authority"),
    *("path", "request_id", "traceparent", "status", "details", "flags", "flags_long", "attempts", "route", "cluster"),
    *("host", "transport_failure", "bytes_received", "bytes_sent"),
}
OF_ATTEMPTS = FIELDS - {
    *("protocol", "authority", "path", "request_id", "details", "attempts", "bytes_received", "bytes_sent")
}


@pytest.mark.parametrize(("away", "side"), [(0, "local"), (100, "remote")])
async def test_an_answer_is_told_as_the_client_asked_for_it(
    plane: Plane, backends: Backends, away: int, side: str
) -> None:
    """Not as it was rewritten for the remote backend, and without what may be secret."""
    model = await plane.serve(Wanted(away=away, access_log=AccessLog.ALL))
    hush = [("authorization", "Bearer hush"), ("x-api-key", "hush"), ("cookie", "hush"), ("x-request-id", "r-1")]
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    asked = [*hush, ("traceparent", trace)]
    reply = await plane.ask(model, "POST", "v1/chat?key=hush&prompt=hush", headers=asked, content=b"hush!")
    (line,) = await lines_of(plane, model)

    assert reply.route == side
    assert set(line) == FIELDS
    assert "hush" not in json.dumps(line)
    assert but(line, "method", "path", "authority", "protocol", "request_id", "traceparent", "bytes_received") == {
        "method": "POST",
        "path": "/v1/chat",
        "authority": model.url.removeprefix("http://").strip("/"),
        "protocol": "HTTP/1.1",
        "request_id": "r-1",
        "traceparent": trace,
        "bytes_received": 5,
    }
    assert but(line, "kind", "namespace", "model", "status", "flags", "details", "attempts", "route", "bytes_sent") == {
        "kind": "request",
        "namespace": "ns",
        "model": model.key.name,
        "status": 200,
        "flags": "-",
        "details": "via_upstream",
        "attempts": 1,
        "route": side,
        "bytes_sent": len(reply.body),
    }
    assert 0 <= line["first_byte_ms"] <= line["duration_ms"]
    hosts = {f"{one.host}:{one.port}" for one in (backends.local if side == "local" else [backends.remote])}
    assert line["host"] in hosts
    assert line["cluster"] == f"{model.local_cluster}-first" or line["cluster"].startswith("backend/")


@pytest.mark.parametrize("wanted", [AccessLog.ALL, AccessLog.FAILURES])
@pytest.mark.parametrize(("away", "failing", "answering"), [(0, "local", "remote"), (100, "remote", "local")])
async def test_a_failover_is_one_line_of_two_attempts(
    plane: Plane, wanted: AccessLog, away: int, failing: str, answering: str
) -> None:
    model = await plane.serve(Wanted(away=away, access_log=wanted))
    await plane.ask(model, path="v1?x=y", headers=[(f"on-{failing}", "status=503")])
    (line,) = await lines_of(plane, model)
    assert but(line, "status", "flags", "attempts", "route", "path") == {
        **{"status": 200, "flags": "-"},
        **{"attempts": 2, "route": answering, "path": "/v1"},
    }
    (attempt,) = await lines_of(plane, model, kind="attempt")
    assert but(attempt, "status", "flags", "route") == {"status": 503, "flags": "-", "route": failing}


async def test_failures_alone_are_told_of_if_so_wanted(plane: Plane) -> None:
    model = await plane.serve(Wanted(access_log=AccessLog.FAILURES))
    await plane.ask(model)
    await plane.ask(model, headers=[("on-local", "status=404")])
    await plane.ask(model, headers=[("on-local", "status=500")])
    (line,) = await lines_of(plane, model)
    assert but(line, "status", "flags", "attempts") == {"status": 500, "flags": "-", "attempts": 1}


async def test_by_default_nothing_is_told(plane: Plane) -> None:
    model = await plane.serve(Wanted())
    await plane.ask(model, headers=[("on-local", "status=503"), ("on-remote", "status=503")])
    await lines_of(plane, model, 0)


@pytest.mark.parametrize(("away", "order"), [(0, ["local", "remote"]), (100, ["remote", "local"])])
async def test_when_both_sides_fail_the_attempts_say_why(
    plane: Plane, backends: Backends, away: int, order: list[str]
) -> None:
    """To the line of the request the last side is an internal listener that answered 503."""
    # Or the checks may find first that the one is dead, and the other is asked before it.
    rarely = timedelta(seconds=60)
    check, remote_check = ReplicaCheck(path="/healthz", interval=rarely), HttpCheck(path="/healthz", interval=rarely)
    model = await plane.serve(Wanted(away=away, check=check, remote_check=remote_check, access_log=AccessLog.FAILURES))
    with backends.killed(*backends.all):
        reply = await plane.ask(model)
        attempts = await lines_of(plane, model, 2, kind="attempt")
        (request,) = await lines_of(plane, model)
    assert reply.status == 503
    assert but(request, "status", "flags", "attempts") == {"status": 503, "flags": "URX", "attempts": 2}
    assert [line["route"] for line in attempts] == order
    for line in attempts:
        assert set(line) == OF_ATTEMPTS
        assert but(line, "flags", "flags_long") == {"flags": "UF", "flags_long": "UpstreamConnectionFailure"}
        assert "Connection_refused" in line["transport_failure"]
    await recovered(plane, model)


async def test_a_remote_backend_that_is_known_to_be_dead_is_told_by_the_address_that_refuses(
    plane: Plane, folder: Path
) -> None:
    """Its health checks failed: nobody is there."""
    wanted = Wanted(away=100, host=plane.network.host(99), tls=RemoteTls(server_name="remote.test"))
    authorities = Pki(folder).authority_file
    model = await plane.serve(replace(wanted, authorities=authorities, access_log=AccessLog.FAILURES))
    reply = await plane.ask(model)
    (attempt,) = await lines_of(plane, model, kind="attempt")
    assert (reply.status, reply.route) == (200, "local")
    assert but(attempt, "flags", "host") == {"flags": "UF", "host": "127.0.0.1:1"}


async def recovered(plane: Plane, model: Model) -> None:
    """Leave no replica ejected to the next test."""
    await plane.healthy(model, 3)


async def test_with_no_other_side_the_clients_line_says_why(plane: Plane, backends: Backends) -> None:
    model = await plane.serve(Wanted(remote=False, access_log=AccessLog.ALL))
    with backends.killed(*backends.local):
        await plane.ask(model)
        (line,) = await lines_of(plane, model)
    assert but(line, "status", "flags", "attempts", "route") == {
        **{"status": 503, "flags": "URX,UF", "attempts": 2, "route": "local"},
    }
    assert "Connection_refused" in line["transport_failure"]


async def test_with_no_replica_at_all(plane: Plane) -> None:
    model = await plane.serve(Wanted(remote=False, replicas=(), access_log=AccessLog.ALL))
    await plane.ask(model)
    (line,) = await lines_of(plane, model)
    assert but(line, "status", "flags", "attempts", "host", "details") == {
        **{"status": 503, "flags": "UH", "attempts": 1, "host": None, "details": "no_healthy_upstream"},
    }


async def test_an_answer_that_broke_off(plane: Plane) -> None:
    model = await plane.serve(ALL)
    with pytest.raises(httpx.RemoteProtocolError):
        await plane.ask(model, headers=[("on-local", "reset=after")])
    (line,) = await lines_of(plane, model)
    assert line["flags"] in ("UPE", "UR", "UC"), line
    assert line["details"].startswith("upstream_reset_after_response_started")
    assert but(line, "status", "attempts", "route", "bytes_sent") == {
        **{"status": 200, "attempts": 1, "route": "local", "bytes_sent": len("the first bytes")},
    }


async def test_a_client_that_gave_up(plane: Plane) -> None:
    model = await plane.serve(ALL)
    before = time.monotonic()
    asking = asyncio.create_task(plane.ask(model, headers=[("on-local", "silent=1")]))
    await plane.until_in_flight(model, 1)
    in_flight = time.monotonic()
    await asyncio.sleep(0.1)
    at_least = time.monotonic() - in_flight
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    (line,) = await lines_of(plane, model)
    assert but(line, "status", "flags", "flags_long", "details", "route") == {
        "status": 0,
        "flags": "DC",
        "flags_long": "DownstreamConnectionTermination",
        "details": "downstream_remote_disconnect",
        "route": None,
    }
    assert at_least <= (line["duration_ms"] + 1) / 1000 <= time.monotonic() - before


async def test_what_is_no_request_of_http(plane: Plane) -> None:
    model = await plane.serve(ALL)
    host, _, port = model.url.removeprefix("http://").strip("/").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"\x16\x03\x01 hello\r\n\r\n")
    assert b"400 Bad Request" in await reader.read()
    writer.close()
    (line,) = await lines_of(plane, model)
    assert but(line, "flags", "status", "path") == {"flags": "DPE", "status": 400, "path": None}


async def test_a_line_stays_short_whatever_the_client_sends(plane: Plane) -> None:
    model = await plane.serve(ALL)
    long = "x" * 10_000
    await plane.ask(model, path=f"{long}?{long}", headers=[("x-request-id", long), ("traceparent", long)])
    (line,) = await lines_of(plane, model)
    assert len(json.dumps(line)) < 2048
    assert line["path"] == "/" + "x" * 511
