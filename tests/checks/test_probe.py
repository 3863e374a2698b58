"""One check against real servers: what it finds, in which words, and what it never tells."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from dataclasses import replace
from datetime import timedelta

import pytest
from pydantic import SecretStr

from controller.api.endpoint_guard import admit_pods
from tests.checks.servers import Authority, Names, Talker, answer, refusing, way_by
from tests.data_plane.support.loopback import unused_port
from tests.data_plane.support.protected import Tokens
from xds_server.checks.backend import Backend, Place, TokenRequest, Trust
from xds_server.checks.connection import Way
from xds_server.checks.outcome import Outcome
from xds_server.checks.probe import Probe
from xds_server.checks.resolver import SystemResolver

NAME = "models.test"
LOOPBACK = Names(models__test="127.0.0.1")
HUSH = "hush-hush"


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture(scope="module")
def another():
    return Authority()


def backend(port, path="", trust=None, token=None):
    return Backend("backend/x", Place(NAME, port), f"{NAME}:{port}", trust, token, path)


def trusting(authority, shown=None, server_name=NAME):
    return Trust(server_name, SecretStr(authority.pem), SecretStr(shown) if shown else None)


async def found(one, way=None):
    return await Probe(one, way or way_by(LOOPBACK)).check()


def asking(tokens, secret=HUSH, host="auth.test"):
    form = SecretStr(f"grant_type=client_credentials&client_id=me&client_secret={secret}")
    return TokenRequest(Place(host, tokens.port), False, f"{host}:{tokens.port}", "/token", form)


# Names and connections.


async def test_a_name_that_is_gone():
    assert await found(backend(1), way_by(Names())) == Outcome(
        False, "NameNotResolved", "models.test cannot be resolved: Name or service not known"
    )


async def test_the_systems_resolver_knows_this_host_and_not_what_cannot_be():
    way = Way(SystemResolver(), lambda host, address: None)
    async with Talker().listening() as port:
        assert (await found(replace(backend(port), place=Place("localhost", port)), way)).healthy
        assert (await found(replace(backend(port), place=Place("127.0.0.1", port)), way)).healthy
    missing = await found(replace(backend(port), place=Place("models.invalid", port)), way)
    assert missing.reason == "NameNotResolved"
    assert missing.message.startswith("models.invalid cannot be resolved: ")
    assert (await found(replace(backend(1), place=Place("x" * 70, 1)), way)).reason == "NameNotResolved"


async def test_nobody_listens():
    port = unused_port()
    assert await found(backend(port)) == Outcome(
        False, "NotConnected", f"models.test:{port} cannot be connected to: connection refused"
    )


async def test_nobody_accepts():
    with socket.socket() as full:
        full.bind(("127.0.0.1", unused_port()))
        full.listen(0)
        port = full.getsockname()[1]
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(3):
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(("127.0.0.1", port))
            outcome = await found(backend(port))
    assert outcome.message == f"models.test:{port} cannot be connected to: timed out"


async def test_one_address_of_several_is_enough():
    async with Talker().listening("127.0.0.3") as port:
        outcome = await found(backend(port), way_by(Names(models__test="127.0.0.2 127.0.0.3")))
    assert outcome == Outcome(True, "Answering", f"models.test:{port} accepts connections")


async def test_where_the_gateway_may_not_be_sent_nobody_connects():
    """The guard of hosts sees a name; what it leads to is seen here."""
    way = Way(LOOPBACK, lambda host, address: admit_pods.refused_host(address))
    talker = Talker()
    async with talker.listening() as port:
        outcome = await found(backend(port, "/healthz"), way)
    assert outcome == Outcome(
        False, "HostRefused", "models.test leads to a loopback address; nothing may be sent there"
    )
    assert talker.connections == 0


async def test_one_address_that_is_refused_refuses_the_name():
    names, talker = Names(models__test="127.0.0.2 127.0.0.3"), Talker()
    async with talker.listening("127.0.0.2") as port:
        outcome = await found(backend(port), way_by(names, **{"127_0_0_3": "forbidden"}))
    assert (outcome.reason, talker.connections) == ("HostRefused", 0)


# Certificates.


async def test_a_certificate_that_is_as_it_should_be(authority):
    async with Talker().listening(tls=authority.server(NAME)) as port:
        outcome = await found(backend(port, trust=trusting(authority)))
    assert outcome.message == f"models.test:{port} accepts connections, and its certificate is accepted"
    assert outcome.healthy


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
    assert outcome == Outcome(False, "CertificateNotAccepted", f"the certificate of models.test:{port} {words}")


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
    assert outcome == Outcome(
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
    assert shown == Outcome(True, "Answering", "GET /healthz answers 200")
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


async def test_a_server_that_envoy_would_not_wait_for_is_not_waited_for():
    async with Talker(hang=True).listening() as port:
        impatient = replace(backend(port, "/healthz"), patience=timedelta(seconds=0.2))
        async with asyncio.timeout(2):
            outcome = await found(impatient)
    assert outcome.message == "GET /healthz is not answered: timed out"


async def test_a_server_that_accepts_and_never_answers_costs_five_seconds():
    loop = asyncio.get_running_loop()
    async with Talker(hang=True).listening() as port:
        start = loop.time()
        outcome = await found(backend(port, "/healthz"))
    assert outcome.message == "GET /healthz is not answered: timed out"
    assert 4.5 < loop.time() - start < 15


# Tokens.

BOTH = Names(models__test="127.0.0.1", auth__test="127.0.0.5")


@contextlib.asynccontextmanager
async def protected(**tokens):
    """A backend that wants a token, and its token endpoint."""
    endpoint = Tokens("127.0.0.5", HUSH, port=unused_port(), **tokens)
    talker = Talker(answer(200))
    async with endpoint.running(), talker.listening() as port:
        yield endpoint, Probe(backend(port, "/healthz", token=asking(endpoint)), way_by(BOTH)), talker


async def test_a_token_is_asked_for_once_and_goes_nowhere():
    async with protected() as (endpoint, probe, talker):
        for _ in range(3):
            assert (await probe.check()).healthy
    assert endpoint.asked == [HUSH]
    assert not any(endpoint.issued[0].encode() in heard for heard in talker.heard)
    assert not any(endpoint.issued[0] in text for text in (repr(probe), repr(vars(probe)), repr(vars(probe._tokens))))


async def test_a_token_is_asked_for_again_after_half_its_life():
    async with protected(lifetime=0) as (endpoint, probe, _):
        for _ in range(3):
            await probe.check()
    assert len(endpoint.asked) == 3


@pytest.mark.parametrize(
    ("up", "accepts", "words"),
    [(False, HUSH, "auth.test answers 503"), (True, "another", "auth.test answers 401 (invalid_client)")],
    ids=["down", "refused"],
)
async def test_a_token_endpoint_that_gives_none_is_named_and_left_alone(up, accepts, words):
    async with protected(up=up) as (endpoint, probe, _):
        endpoint.accepts = accepts
        outcome = await probe.check()
        assert outcome == Outcome(False, "TokenNotIssued", f"no token is issued: {words}")
        assert [await probe.check() for _ in range(3)] == [None] * 3
        assert endpoint.asked == [HUSH]
        # Another secret is another try; the same backend that is asked for otherwise is not.
        same = Probe(replace(probe.backend, path="/other"), way_by(BOTH), probe)
        assert await same.check() is None
        endpoint.up, endpoint.accepts = True, "new"
        new = Probe(replace(probe.backend, token=asking(endpoint, "new")), way_by(BOTH), probe)
        assert (await new.check()).healthy


async def test_a_token_endpoint_that_is_not_there():
    async with Talker(answer(200)).listening() as port:
        gone = TokenRequest(Place("auth.test", 1), False, "auth.test:1", "/token", SecretStr("x=1"))
        outcome = await found(backend(port, token=gone), way_by(BOTH))
        assert outcome.message == "no token is issued: auth.test:1 cannot be connected to: connection refused"
        outcome = await found(backend(port, token=gone), way_by(LOOPBACK))
        assert outcome.message == "no token is issued: auth.test cannot be resolved: Name or service not known"
        outcome = await found(backend(port, token=gone), way_by(BOTH, **{"127_0_0_5": "forbidden"}))
        assert outcome.message == "no token is issued: auth.test leads to forbidden; nothing may be sent there"
    assert outcome.reason == "TokenNotIssued"


async def test_a_token_endpoint_must_prove_who_it_is(another):
    tls = another.server("auth.test")
    async with Talker(answer(200)).listening() as port, Talker().listening("127.0.0.5", tls) as tokens:
        asked = TokenRequest(Place("auth.test", tokens), True, "auth.test", "/token", SecretStr(HUSH))
        outcome = await found(backend(port, token=asked), way_by(BOTH))
    assert outcome.message.startswith("no token is issued: the certificate of auth.test")


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, {"access_token": "t"}, "auth.test does not say how long it lives (expires_in)"),
        *(
            (200, {"access_token": "t", "expires_in": life}, "auth.test does not say how long it lives (expires_in)")
            for life in (-1, 0.5, True, "", "-1", "soon", "0.5", None)
        ),
        (200, {"expires_in": 60}, "auth.test answers 200 without a token"),
        (200, {"access_token": 5, "expires_in": 60}, "auth.test answers 200 without a token"),
        (200, "[" * 60_000, "auth.test answers 200 without a token"),
        (200, [], "auth.test answers 200 without a token"),
        (400, {"error": HUSH, "error_description": HUSH}, "auth.test answers 400"),
        (400, {"error": [HUSH]}, "auth.test answers 400"),
        (400, {"error": "invalid_scope"}, "auth.test answers 400 (invalid_scope)"),
        (302, HUSH, "auth.test answers 302"),
    ],
)
async def test_of_what_a_token_endpoint_says_only_the_words_of_the_standard_are_told(status, body, words):
    text = body if isinstance(body, str) else json.dumps(body)
    async with Talker(answer(200)).listening() as port, Talker(answer(status, text)).listening("127.0.0.5") as tokens:
        asked = TokenRequest(Place("auth.test", tokens), False, "auth.test", "/token", SecretStr(f"secret={HUSH}"))
        outcome = await found(backend(port, token=asked), way_by(BOTH))
    assert outcome.message == f"no token is issued: {words}"


@pytest.mark.parametrize("life", [60, 60.0, "60", 0, "0"])
async def test_a_lifetime_that_envoy_takes_is_taken(life):
    body = json.dumps({"access_token": "t", "expires_in": life})
    async with Talker(answer(200)).listening() as port, Talker(answer(200, body)).listening("127.0.0.5") as tokens:
        asked = TokenRequest(Place("auth.test", tokens), False, "auth.test", "/token", SecretStr("x=1"))
        assert (await found(backend(port, token=asked), way_by(BOTH))).healthy


async def test_an_absurd_lifetime_is_none_of_our_trouble():
    body = f'{{"access_token": "t", "expires_in": 1{"0" * 4000}}}'
    async with Talker(answer(200)).listening() as port, Talker(answer(200, body)).listening("127.0.0.5") as tokens:
        asked = TokenRequest(Place("auth.test", tokens), False, "auth.test", "/token", SecretStr("x=1"))
        assert (await found(backend(port, token=asked), way_by(BOTH))).healthy


async def test_prior_fault_26_nothing_secret_is_logged(caplog, authority, another):
    caplog.set_level(logging.DEBUG)
    async with protected(up=False) as (_, probe, _):
        await probe.check()
    async with Talker(HUSH.encode()).listening(tls=authority.server(NAME)) as port:
        await found(backend(port, "/x", trusting(authority, authority.client(with_key_of=another))))
        await found(backend(port, "/x", trusting(authority)))
    assert HUSH not in caplog.text
    assert "PRIVATE KEY" not in caplog.text
