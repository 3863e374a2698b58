"""A server that closes a connection which nothing was asked on, at the moment in which a request comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import pytest_asyncio
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.route.v3.route_components_pb2 import Route
from envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import HttpProtocolOptions

from controller.api.kubernetes.endpoints import Replica
from tests.support.connections import accepting
from tests.support.data_plane.backends import Backends
from tests.support.data_plane.model import Model, Wanted
from tests.support.data_plane.mutation import clusters, routes
from tests.support.data_plane.plane import Plane
from tests.support.data_plane.trap import serve_both
from tests.support.network import Network, unused_port
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
# RFC 9110, section 15.5.9.
WAITED = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Closing:
    """A replica that answers everything, but on connections from before `gives_up_all`: there it says its last words.

    That is what comes of a request which meets the end of its connection, whenever it does.
    """

    def __init__(self) -> None:
        self._last_words: dict[asyncio.StreamWriter, bytes | None] = {}

    @asynccontextmanager
    async def running(self, host: str) -> AsyncIterator[Replica]:
        async with accepting(self._serve, host, unused_port()) as (port, _):
            yield Replica(host, port, ready=True)

    def gives_up_all(self, last_words: bytes = b"") -> None:
        """End each connection at its next request, with these words."""
        self._last_words = dict.fromkeys(self._last_words, last_words)

    def ends_all(self, last_words: bytes) -> None:
        """End each connection now."""
        for writer in self._last_words:
            writer.write(last_words)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._last_words[writer] = None
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                if (last_words := self._last_words[writer]) is not None:
                    writer.write(last_words)
                    break
                writer.write(OK)
        del self._last_words[writer]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plane(network: Network, backends: Backends, folder: Path) -> AsyncIterator[Plane]:
    """With one worker, whose connections all requests have."""
    async with Plane(network, backends, folder).running() as plane:
        await plane.join(workers=1)
        yield plane


@pytest_asyncio.fixture(loop_scope="module")
async def closing() -> Closing:
    return Closing()


@pytest_asyncio.fixture(loop_scope="module")
async def replica(network: Network, closing: Closing) -> AsyncIterator[Replica]:
    async with closing.running(network.host(60)) as replica:
        yield replica


async def answer(plane: Plane, model: Model) -> tuple[int, str]:
    reply = await plane.ask(model)
    return reply.status, reply.route


async def connections(plane: Plane, model: Model) -> int:
    return await plane.envoy.stat(f"cluster.{model.local_cluster}.upstream_cx_active")


async def has_no_connection(plane: Plane, model: Model) -> None:
    async def has_none() -> bool:
        return await connections(plane, model) == 0

    await until(has_none, f"{model.key} has no connection to its replica")


def kept_for_an_hour(cluster: Cluster) -> None:
    for packed in cluster.typed_extension_protocol_options.values():
        options = HttpProtocolOptions()
        packed.Unpack(options)
        options.ClearField("common_http_protocol_options")
        packed.Pack(options)


def taken_for_an_answer(route: Route) -> None:
    if 408 in route.route.retry_policy.retriable_status_codes:
        route.route.retry_policy.retriable_status_codes.remove(408)


async def test_no_request_leaves_for_a_connection_that_nothing_was_asked_on(
    plane: Plane, closing: Closing, replica: Replica
) -> None:
    models = await serve_both(plane, Wanted(replicas=(replica,)), clusters(kept_for_an_hour))
    assert await models.at_once(lambda model: answer(plane, model)) == models.each(lambda _: (200, "local"))
    await has_no_connection(plane, models.held)
    assert await connections(plane, models.removed) == 1

    closing.gives_up_all()
    answers = await models.at_once(lambda model: answer(plane, model))

    assert (answers.held, answers.removed) == ((200, "local"), (200, "remote"))


async def test_a_408_that_meets_a_request_on_its_way_does_not_answer_it(
    plane: Plane, closing: Closing, replica: Replica
) -> None:
    kept = Wanted(replicas=(replica,), change=clusters(kept_for_an_hour))
    models = await serve_both(plane, kept, routes(taken_for_an_answer))
    assert await models.at_once(lambda model: answer(plane, model)) == models.each(lambda _: (200, "local"))

    closing.gives_up_all(WAITED)
    answers = await models.at_once(lambda model: answer(plane, model))

    assert (answers.held, answers.removed) == ((200, "remote"), (408, "local"))


async def test_it_is_asked_again_on_another_connection_if_nothing_may_leave(
    plane: Plane, closing: Closing, replica: Replica
) -> None:
    model = await plane.serve(Wanted(remote=False, replicas=(replica,)))
    assert await answer(plane, model) == (200, "local")
    closing.gives_up_all(WAITED)
    assert await answer(plane, model) == (200, "local")


async def test_a_408_that_nobody_waits_for_is_no_answer(plane: Plane, closing: Closing, replica: Replica) -> None:
    model = await plane.serve(Wanted(replicas=(replica,), change=clusters(kept_for_an_hour)))
    assert await answer(plane, model) == (200, "local")
    closing.ends_all(WAITED)
    await has_no_connection(plane, model)
    assert await answer(plane, model) == (200, "local")
