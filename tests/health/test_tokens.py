"""A token for a check: who is asked for it, how often, in which words that fails, and what is told of it nowhere."""

from __future__ import annotations

import contextlib
import json
import logging
from dataclasses import replace

import pytest
from pydantic import SecretStr

from tests.health.checked import LOOPBACK, NAME, backend, found, trusting
from tests.support.checked_servers import Names, Talker, answer, connector_by
from tests.support.data_plane.protected import Tokens
from tests.support.network import unused_port
from xds_server.health.backend import Address, TokenRequest
from xds_server.health.outcome import CheckOutcome
from xds_server.health.probe import BackendProbe

HUSH = "hush-hush"
BOTH = Names(models__test="127.0.0.1", auth__test="127.0.0.5")


def asking(tokens, secret=HUSH, host="auth.test"):
    form = SecretStr(f"grant_type=client_credentials&client_id=me&client_secret={secret}")
    return TokenRequest(Address(host, tokens.port), False, f"{host}:{tokens.port}", "/token", form)


@contextlib.asynccontextmanager
async def protected(**tokens):
    """A backend that wants a token, and its token endpoint."""
    endpoint = Tokens("127.0.0.5", HUSH, port=unused_port(), **tokens)
    talker = Talker(answer(200))
    async with endpoint.running(), talker.listening() as port:
        yield endpoint, BackendProbe(backend(port, "/healthz", token=asking(endpoint)), connector_by(BOTH)), talker


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
        assert outcome == CheckOutcome(False, "TokenNotIssued", f"no token is issued: {words}")
        assert [await probe.check() for _ in range(3)] == [None] * 3
        assert endpoint.asked == [HUSH]
        # Another secret is another try; the same backend that is asked for otherwise is not.
        same = BackendProbe(replace(probe.backend, path="/other"), connector_by(BOTH), probe)
        assert await same.check() is None
        endpoint.up, endpoint.accepts = True, "new"
        new = BackendProbe(replace(probe.backend, token=asking(endpoint, "new")), connector_by(BOTH), probe)
        assert (await new.check()).healthy


async def test_a_token_endpoint_that_is_not_there():
    async with Talker(answer(200)).listening() as port:
        gone = TokenRequest(Address("auth.test", 1), False, "auth.test:1", "/token", SecretStr("x=1"))
        outcome = await found(backend(port, token=gone), connector_by(BOTH))
        assert outcome.message == "no token is issued: auth.test:1 cannot be connected to: connection refused"
        outcome = await found(backend(port, token=gone), connector_by(LOOPBACK))
        assert outcome.message == "no token is issued: auth.test cannot be resolved: Name or service not known"
        outcome = await found(backend(port, token=gone), connector_by(BOTH, **{"127_0_0_5": "forbidden"}))
        assert outcome.message == "no token is issued: auth.test leads to an address that is refused"
    assert outcome.reason == "TokenNotIssued"


async def test_a_token_endpoint_must_prove_who_it_is(another):
    tls = another.server("auth.test")
    async with Talker(answer(200)).listening() as port, Talker().listening("127.0.0.5", tls) as tokens:
        asked = TokenRequest(Address("auth.test", tokens), True, "auth.test", "/token", SecretStr(HUSH))
        outcome = await found(backend(port, token=asked), connector_by(BOTH))
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
        asked = TokenRequest(Address("auth.test", tokens), False, "auth.test", "/token", SecretStr(f"secret={HUSH}"))
        outcome = await found(backend(port, token=asked), connector_by(BOTH))
    assert outcome.message == f"no token is issued: {words}"


@pytest.mark.parametrize("life", [60, 60.0, "60", 0, "0"])
async def test_a_lifetime_that_envoy_takes_is_taken(life):
    body = json.dumps({"access_token": "t", "expires_in": life})
    async with Talker(answer(200)).listening() as port, Talker(answer(200, body)).listening("127.0.0.5") as tokens:
        asked = TokenRequest(Address("auth.test", tokens), False, "auth.test", "/token", SecretStr("x=1"))
        assert (await found(backend(port, token=asked), connector_by(BOTH))).healthy


async def test_an_absurd_lifetime_is_none_of_our_trouble():
    body = f'{{"access_token": "t", "expires_in": 1{"0" * 4000}}}'
    async with Talker(answer(200)).listening() as port, Talker(answer(200, body)).listening("127.0.0.5") as tokens:
        asked = TokenRequest(Address("auth.test", tokens), False, "auth.test", "/token", SecretStr("x=1"))
        assert (await found(backend(port, token=asked), connector_by(BOTH))).healthy


async def test_prior_fault_26_nothing_secret_is_logged(caplog, authority, another):
    caplog.set_level(logging.DEBUG)
    async with protected(up=False) as (_, probe, _):
        await probe.check()
    async with Talker(HUSH.encode()).listening(tls=authority.server(NAME)) as port:
        await found(backend(port, "/x", trusting(authority, authority.client(with_key_of=another))))
        await found(backend(port, "/x", trusting(authority)))
    assert HUSH not in caplog.text
    assert "PRIVATE KEY" not in caplog.text
