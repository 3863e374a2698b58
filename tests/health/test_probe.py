"""One check against real servers: what it finds, in which words, and what it never tells."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import replace
from datetime import timedelta

import pytest

from controller.api.destinations import OUTSIDE
from controller.api.timing import CheckTiming
from tests.health.checked import LOOPBACK, NAME, backend, found, trusting
from tests.support.checked_servers import Authority, Names, Talker, answer, connector_by, refusing
from tests.support.network import unused_port
from tests.support.waiting import time_limit
from xds_server.health.backend import Address, Trust, refusal
from xds_server.health.connection import Connector, SystemResolver
from xds_server.health.outcome import CheckOutcome

# Names and connections.


async def test_a_name_that_is_gone():
    assert await found(backend(1), connector_by(Names())) == CheckOutcome(
        False, "NameNotResolved", "models.test cannot be resolved: Name or service not known"
    )


async def test_the_systems_resolver_knows_this_host_and_not_what_cannot_be():
    connector = Connector(SystemResolver(), lambda host, address: None)
    async with Talker().listening() as port:
        assert (await found(replace(backend(port), address=Address("localhost", port)), connector)).healthy
        assert (await found(replace(backend(port), address=Address("127.0.0.1", port)), connector)).healthy
    missing = await found(replace(backend(port), address=Address("models.invalid", port)), connector)
    assert missing.reason == "NameNotResolved"
    assert missing.message.startswith("models.invalid cannot be resolved: ")
    assert (await found(replace(backend(1), address=Address("x" * 70, 1)), connector)).reason == "NameNotResolved"


async def test_nobody_listens():
    port = unused_port()
    assert await found(backend(port)) == CheckOutcome(
        False, "NotConnected", f"models.test:{port} cannot be connected to: connection refused"
    )


@contextlib.contextmanager
def accepting_nobody(port):
    """A listener on loopback whose queue is full: who connects to it is not answered."""
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", port))
        full.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        yield


async def test_nobody_accepts():
    port = unused_port()
    with accepting_nobody(port):
        outcome = await found(backend(port), connector_by(LOOPBACK, CheckTiming(connect=0.1, longest=600)))
    assert outcome.message == f"models.test:{port} cannot be connected to: timed out"


@pytest.mark.parametrize(
    ("addresses", "answers"),
    [("127.0.0.2 127.0.0.3", "127.0.0.3"), ("127.0.0.2 ::1", "::1"), ("::1 127.0.0.3", "127.0.0.3")],
)
async def test_one_address_of_several_is_enough(addresses, answers):
    async with Talker().listening(answers) as port:
        outcome = await found(backend(port), connector_by(Names(models__test=addresses)))
    assert outcome == CheckOutcome(True, "Answering", f"models.test:{port} accepts connections")


async def test_an_address_that_says_nothing_is_not_waited_for():
    async with Talker().listening("::1") as port:
        with accepting_nobody(port):
            by = connector_by(Names(models__test="127.0.0.1 ::1"), CheckTiming(connect=600, longest=600))
            outcome = await found(backend(port), by)
    assert outcome.healthy


async def test_of_many_addresses_of_one_family_the_other_one_has_its_turn():
    many = " ".join(f"127.0.0.{number}" for number in range(2, 30))
    async with Talker().listening("::1") as port:
        assert (await found(backend(port), connector_by(Names(models__test=f"{many} ::1")))).healthy


async def test_a_name_is_told_without_the_dot_that_it_is_resolved_with():
    port = unused_port()
    names = Names(**{"models__test.": "127.0.0.1"})
    outcome = await found(replace(backend(port), address=Address("models.test.", port)), connector_by(names))
    assert outcome.message == f"models.test:{port} cannot be connected to: connection refused"


async def test_where_the_gateway_may_not_be_sent_nobody_connects():
    """The guard of hosts sees a name; what it leads to is seen here."""
    connector = Connector(LOOPBACK, refusal(OUTSIDE))
    talker = Talker()
    async with talker.listening() as port:
        outcome = await found(backend(port, "/healthz"), connector)
    assert outcome == CheckOutcome(False, "HostRefused", "models.test leads to an address that is refused")
    assert talker.connections == 0


async def test_one_address_that_is_refused_refuses_the_name():
    names, talker = Names(models__test="127.0.0.2 127.0.0.3"), Talker()
    async with talker.listening("127.0.0.2") as port:
        outcome = await found(backend(port), connector_by(names, **{"127_0_0_3": "forbidden"}))
    assert (outcome.reason, talker.connections) == ("HostRefused", 0)


# Certificates.


async def test_a_certificate_that_is_as_it_should_be(authority):
    async with Talker().listening(tls=authority.server(NAME)) as port:
        outcome = await found(backend(port, trust=trusting(authority)))
    assert outcome.message == f"models.test:{port} accepts connections, and its certificate is accepted"
    assert outcome.healthy


async def test_a_check_that_is_given_up_leaves_its_file_to_nobody_wherever_it_is(authority):
    """Each turn of the loop brings it a step further; the next one gets a file of the same number."""
    async with Talker().listening(tls=authority.server(NAME)) as port:
        one = backend(port, trust=trusting(authority))
        for turns in range(30):
            given_up = asyncio.create_task(found(one))
            for _ in range(turns):
                await asyncio.sleep(0)
            given_up.cancel()
            await asyncio.wait([given_up])
            assert (await found(one)).healthy


async def test_a_certificate_for_an_address_is_verified_as_one(authority):
    trust = trusting(authority, server_name="127.0.0.1")
    async with Talker().listening(tls=authority.server("127.0.0.1")) as port:
        assert (await found(backend(port, trust=trust))).healthy
    async with Talker().listening(tls=authority.server(NAME)) as port:
        assert (await found(backend(port, trust=trust))).message.endswith("is not for 127.0.0.1")


@pytest.mark.parametrize(
    ("names", "days", "words"),
    [
        (["other.test"], (-1, 1), "is not for models.test"),
        ([NAME], (-3, -1), "has expired"),
        ([NAME], (1, 3), "is not valid yet"),
    ],
    ids=["another name", "expired", "not yet"],
)
async def test_a_certificate_that_is_not_accepted(authority, names, days, words):
    async with Talker().listening(tls=authority.server(*names, days=days)) as port:
        outcome = await found(backend(port, trust=trusting(authority)))
    assert outcome == CheckOutcome(False, "CertificateNotAccepted", f"the certificate of models.test:{port} {words}")


@pytest.mark.parametrize("of_the_system", [False, True], ids=["given", "of the system"])
async def test_a_certificate_of_another_authority(authority, another, of_the_system):
    trust = Trust(NAME) if of_the_system else trusting(another)
    async with Talker().listening(tls=authority.server(NAME)) as port:
        outcome = await found(backend(port, trust=trust))
    assert outcome.reason == "CertificateNotAccepted"
    assert outcome.message.endswith("leads to no authority that is trusted")


async def test_an_authority_below_another_one_is_enough_as_for_envoy(authority):
    below = Authority(above=authority)
    async with Talker().listening(tls=below.server(NAME)) as port:
        assert (await found(backend(port, trust=trusting(below)))).healthy


async def test_a_common_name_proves_nothing_as_for_envoy(authority):
    async with Talker().listening(tls=authority.server("somebody@models.test", cn=NAME)) as port:
        outcome = await found(backend(port, trust=trusting(authority)))
    assert outcome.message.endswith("is not for models.test")


async def test_a_server_that_speaks_no_tls(authority):
    async with Talker(answer(400)).listening() as port:
        outcome = await found(backend(port, trust=trusting(authority)))
    assert outcome == CheckOutcome(
        False, "TlsNotAgreed", f"models.test:{port} does not agree on TLS: it answers with something else"
    )


async def test_a_server_that_hangs_up_instead_of_a_handshake(authority):
    async with Talker().listening() as port:
        outcome = await found(backend(port, trust=trusting(authority)))
    assert outcome.message == f"models.test:{port} does not agree on TLS: the connection breaks"


async def test_who_asks_for_a_certificate_is_shown_it(authority, another):
    server = authority.server(NAME, clients=authority.pem)
    async with Talker(answer(200)).listening(tls=server) as port:
        shown = await found(backend(port, "/healthz", trusting(authority, authority.client())))
    assert shown == CheckOutcome(True, "Answering", "GET /healthz answers 200")
    for mine in (None, another.client()):
        async with refusing(authority.server(NAME, clients=authority.pem)) as port:
            refused = await found(backend(port, "/healthz", trusting(authority, mine)))
        assert refused.reason == "ClientCertificateNotAccepted"


async def test_a_key_of_another_certificate(authority, another):
    mine = authority.client(with_key_of=another)
    async with Talker().listening(tls=authority.server(NAME)) as port:
        outcome = await found(backend(port, trust=trusting(authority, mine)))
    assert outcome.reason == "ClientCertificateNotUsable"


# Answers.


@pytest.mark.parametrize("status", [200, 204, 301, 401, 404, 500, 503])
async def test_the_answer_to_a_health_check(status):
    talker = Talker(answer(status, "" if status == 204 else "secret body", "x-secret: 1"))
    async with talker.listening() as port:
        outcome = await found(backend(port, "/healthz?deep=1"))
    assert (outcome.healthy, outcome.message) == (status == 200, f"GET /healthz?deep=1 answers {status}")
    (heard,) = talker.heard
    assert heard.startswith(b"GET /healthz?deep=1 HTTP/1.1\r\nHost: models.test:%d\r\n" % port)
    assert b"authorization" not in heard.lower()


@pytest.mark.parametrize(
    ("talker", "words"),
    [
        (Talker(b"220 secret banner\r\n\r\n", first=True, hang=True), "what comes is no HTTP"),
        (Talker(b""), "the connection breaks"),
        (Talker(b"HTTP/1.1 200"), "the connection breaks"),
        (Talker(b"HTTP/1.1 200 .\r\nx: " + b"x" * 200_000), "what comes is no HTTP"),
    ],
    ids=["a banner", "nothing", "a part of an answer", "headers without end"],
)
async def test_what_a_server_says_instead_of_an_answer_is_not_told(talker, words):
    async with talker.listening() as port:
        outcome = await found(backend(port, "/healthz"))
    assert (outcome.reason, outcome.message) == ("NoAnswer", f"GET /healthz is not answered: {words}")


NOT_IN_TIME = "GET /healthz is not answered: timed out"
LONGER_THAN_A_PAUSE = (0.2, 1.0, 5.0, 25.0)
"""Seconds to connect and to be answered: if the machine stands still for so long, nobody was even connected to."""


async def test_a_server_that_envoy_would_not_wait_for_is_not_waited_for():
    async with Talker(hang=True).listening() as port:
        for seconds in LONGER_THAN_A_PAUSE:
            impatient = replace(backend(port, "/healthz"), patience=timedelta(seconds=seconds))
            async with time_limit(60):
                outcome = await found(impatient, connector_by(LOOPBACK, CheckTiming(longest=600)))
            if outcome.message == NOT_IN_TIME:
                return
    raise AssertionError(outcome.message)


async def test_a_server_that_accepts_and_never_answers_costs_no_more_than_a_check_may():
    loop = asyncio.get_running_loop()
    async with Talker(hang=True).listening() as port:
        patient = replace(backend(port, "/healthz"), patience=timedelta(seconds=600))
        for longest in LONGER_THAN_A_PAUSE:
            start = loop.time()
            async with time_limit(60):
                outcome = await found(patient, connector_by(LOOPBACK, CheckTiming(longest=longest)))
            if outcome.message == NOT_IN_TIME:
                assert loop.time() - start > 0.9 * longest
                return
    raise AssertionError(outcome.message)
