"""How a gateway ends: what it says meanwhile, when it goes before its requests, and when its Envoy ends by itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from controller.gateway.admin import SOCKET, EnvoyAdmin, EnvoyAdminError
from controller.gateway.memory import memory_limit
from controller.gateway.process import ENVOY_FLAGS, envoy_binary
from tests.support.beamlit import Start, executed
from tests.support.data_plane.backends import Backends
from tests.support.data_plane.gateway import Gateway
from tests.support.data_plane.gateways import Site
from tests.support.envoy import heap_for, heap_in
from tests.support.forked import Forked
from tests.support.load.answer import Answer, AnswerError
from tests.support.load.connection import Connection
from tests.support.processes import Child
from tests.support.waiting import until


@pytest_asyncio.fixture
async def site(backends: Backends, tmp_path: Path) -> AsyncIterator[Site]:
    async with Site(backends, tmp_path) as site:
        yield site


async def test_it_says_that_it_goes_and_serves_who_has_not_noticed(site: Site) -> None:
    """A readiness probe fails at once; a new connection is served until the delay is over, and refused then."""
    # The delay of one is not over however long this machine takes, that of the other soon is.
    serving = await site.add("--drain-delay-seconds", 600, "--drain-seconds", 900)
    gateway = await site.add("--drain-delay-seconds", 1, "--drain-seconds", 90)
    waiting = asyncio.create_task(asked(site.address(1), "/held"))
    await site.replica.holds(1)
    for one in (serving, gateway):
        one.process.send(signal.SIGTERM)
        await until(partial(says, one, (503, "draining")), "it is not ready", within=30)

    served: list[Answer] = []

    async def asks_for_another_connection() -> bool:
        # Envoy is told a moment after the probe fails.
        served.append(await asked(site.address(0), "/"))
        return not served[-1].reusable

    await until(asks_for_another_connection, "its answers ask for another connection", within=30)
    assert {answer.status for answer in served} == {200}
    await until(lambda: is_refused(site.address(1)), "new connections are refused", within=30)
    assert await gateway.readiness() == (503, "draining")
    site.replica.released.set()

    answers = (served[-1], await waiting)
    # It asks for another connection with every answer.
    assert [(answer.status, answer.reusable) for answer in answers] == [(200, False), (200, False)]
    assert await gateway.ended(within=60) == 0
    # An ordinary end leaves nothing of ours that anybody would look into. Envoy warns of each SIGTERM.
    ours = [line for line in gateway.process.log.read_text().splitlines() if not line.startswith("[")]
    assert ours
    assert [line for line in ours if line.split()[1:2] != ["info"]] == []


async def says(gateway: Gateway, wanted: tuple[int, str]) -> bool:
    return await gateway.readiness() == wanted


async def is_refused(address: tuple[str, int]) -> bool:
    try:
        await asked(address, "/")
    except ConnectionRefusedError:
        return True
    except (AnswerError, OSError):
        return False  # it was still in the queue of the listener when that was closed
    return False


async def asked(address: tuple[str, int], target: str) -> Answer:
    """Send one request on a connection of its own. Raises AnswerError and OSError."""
    _, connection = await asyncio.get_running_loop().create_connection(Connection, *address)
    try:
        return await connection.exchange(f"GET {target} HTTP/1.1\r\nhost: model\r\n\r\n".encode())
    finally:
        connection.close()


@pytest.mark.parametrize("again", [True, False], ids=["a-second-signal", "the-time-is-up"])
async def test_it_ends_before_its_requests_do(site: Site, again: bool) -> None:
    gateway = await site.add("--drain-delay-seconds", 0, "--drain-seconds", 600 if again else 1)
    waiting = asyncio.create_task(asked(site.address(0), "/held"))
    await site.replica.holds(1)
    gateway.process.send(signal.SIGTERM)
    if again:
        await until(lambda: says(gateway, (503, "draining")), "it drains", within=30)
        gateway.process.send(signal.SIGTERM)

    assert await gateway.ended(within=60) == 0
    with pytest.raises(AnswerError):
        await waiting
    told = (
        "a second signal ends the drain" if again else "envoy ends with requests in flight: the time is up in_flight=1"
    )
    assert told in gateway.process.log.read_text()


async def test_an_answer_that_a_slow_client_still_reads_is_in_flight(site: Site) -> None:
    """Its end is in the buffer of Envoy, where the request counts as answered."""
    gateway = await site.add("--drain-delay-seconds", 0, "--drain-seconds", 60)
    loop, size, body = asyncio.get_running_loop(), 7_000_000, b""
    with socket.socket() as client:
        client.setblocking(False)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        await loop.sock_connect(client, site.address(0))
        await loop.sock_sendall(client, f"GET /?size={size} HTTP/1.1\r\nhost: model\r\n\r\n".encode())
        body += await loop.sock_recv(client, 65536)  # Envoy has accepted it
        gateway.process.send(signal.SIGTERM)
        slow_until = loop.time() + 1.5  # longer than it takes to find nothing in flight
        while more := await loop.sock_recv(client, 65536):
            body += more
            if len(body.partition(b"\r\n\r\n")[2]) == size:
                break
            if loop.time() < slow_until:
                await asyncio.sleep(0.05)
    assert len(body.partition(b"\r\n\r\n")[2]) == size
    assert await gateway.ended(within=60) == 0


# One of them as a user starts it.
@pytest.mark.parametrize(("number", "start"), [(signal.SIGKILL, executed), (signal.SIGABRT, Forked)])
async def test_an_envoy_that_dies_ends_the_command_with_its_code(
    site: Site, tmp_path: Path, number: signal.Signals, start: Start
) -> None:
    gateway = await site.add(start=start)
    assert heap_in(tmp_path) == heap_for(memory_limit())
    gateway.signal_envoy(number)
    assert await gateway.ended() == 128 + number
    assert "envoy ended by itself" in gateway.process.log.read_text()


async def test_the_envoy_of_a_killed_command_ends(site: Site, tmp_path: Path) -> None:
    """Or the container would go on without anybody to drain it."""
    gateway = await site.add("--memory-limit", 300)
    pid = gateway.envoy_pid
    assert heap_in(tmp_path) == heap_for(300 * 2**20)
    gateway.process.send(signal.SIGKILL)

    async def is_gone() -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False

    await until(is_gone, "Envoy ends", within=30)


async def test_an_envoy_that_was_told_nothing_is_not_ready(tmp_path: Path) -> None:
    """One that waits for its control plane in vain calls itself live after half a minute."""
    config = tmp_path / "bootstrap.yaml"
    config.write_text(f"admin: {{address: {{pipe: {{path: {tmp_path / SOCKET}}}}}}}")
    envoy = Child((envoy_binary(), "--config-path", config, *ENVOY_FLAGS), tmp_path / "envoy.log")
    try:
        async with EnvoyAdmin.connect(tmp_path) as admin:

            async def is_live() -> bool:
                with contextlib.suppress(EnvoyAdminError):
                    return await admin.not_ready() == "Envoy has not been told its clusters and listeners yet"
                return False

            await until(is_live, f"Envoy is live:\n{envoy.last_words()}")
    finally:
        envoy.kill()
