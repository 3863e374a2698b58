"""Whose names are looked up while name servers hang."""

import asyncio
import socket
import threading
from collections import Counter
from datetime import timedelta

import pytest

from controller.api.contract.route import RouteKey
from tests.health.test_checks import over, running
from tests.support.checked_servers import PATIENT, Talker, answer
from tests.support.waiting import PATIENCE, until
from xds_server.health.backend import Address
from xds_server.health.connection import Connector, SystemResolver
from xds_server.health.outcome import NothingNewError


class NameServers:
    """Those of `hangs-...` answer when they are told to, all others at once."""

    def __init__(self):
        self.asked, self._free = Counter(), threading.Event()

    def look_up(self, host):
        self.asked[host] += 1
        if host.startswith("hangs-"):
            self._free.wait(PATIENCE)
        return [(socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_INET6, ("::1", 0, 0, 0))]

    def answer(self):
        self._free.set()


@pytest.fixture
def servers():
    known = NameServers()
    yield known
    known.answer()


async def begin(resolver, names, *namespaces):
    """Have so many look-ups wait; how many could not begin."""
    tasks = [asyncio.create_task(resolver.addresses(Address(name, 80), namespaces)) for name in names]
    await asyncio.sleep(0)
    return tasks, sum(one.done() and isinstance(one.exception(), NothingNewError) for one in tasks)


async def test_a_name_is_looked_up_once_for_all_its_ports(servers):
    resolver = SystemResolver(servers.look_up)
    asked = (resolver.addresses(Address("hangs-a", port), ["a"]) for port in range(1, 65))
    looking = [asyncio.create_task(one) for one in asked]
    await asyncio.sleep(0)
    servers.answer()
    found = await asyncio.gather(*looking)
    assert servers.asked == {"hangs-a": 1}
    assert [four for _, four in (one[0] for one in found)] == [("127.0.0.1", port) for port in range(1, 65)]
    assert found[7][1] == (socket.AF_INET6, ("::1", 8, 0, 0))


async def test_a_namespace_has_a_few_look_ups_and_those_of_others_begin(servers):
    resolver = SystemResolver(servers.look_up)
    waiting, refused = await begin(resolver, [f"hangs-{number}" for number in range(20)], "a")
    assert refused == 12
    assert await resolver.addresses(Address("answers", 1), ["b"])
    with pytest.raises(NothingNewError):
        await resolver.addresses(Address("answers", 1), ["a"])
    # A backend that both use is looked up for the one that has room.
    assert await resolver.addresses(Address("answers", 1), ["a", "b"])
    servers.answer()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert await resolver.addresses(Address("answers", 1), ["a"])


async def test_all_together_have_a_bound(servers):
    resolver, refused = SystemResolver(servers.look_up), []
    for number in range(10):
        _, more = await begin(resolver, [f"hangs-{number}-{which}" for which in range(8)], f"n{number}")
        refused.append(more)
    assert refused == [0] * 8 + [8] * 2


async def test_a_namespace_whose_names_are_never_resolved_leaves_look_ups_to_others(servers):
    well = Talker(answer(200))
    connector = Connector(SystemResolver(servers.look_up), lambda host, address: None, PATIENT)
    async with well.listening() as port, running(connector) as one:
        for number in range(80):
            # Its turn ends, and the thread goes on.
            remote = over(port, host=f"hangs-{number}.example", connect_timeout=timedelta(milliseconds=100))
            one.serve(RouteKey.of_model("noisy", f"m{number}"), remote)
        await until(
            lambda: one.metric("beamlit_remote_checks_total", reason="NothingNew"), "no more of its look-ups begin"
        )
        quiet, remote = RouteKey.of_model("quiet", "m"), over(port)
        one.serve(quiet, remote)
        await one.found(quiet, remote, "Answering")
