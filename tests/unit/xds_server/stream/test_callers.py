"""How long a caller may stay, and the list of those that are refused."""

import asyncio

import pytest

from tests.support.waiting import in_time
from xds_server.stream.callers import (
    Caller,
    Callers,
    NotAllowedError,
    ShownIdentity,
    TokenHolder,
    UnknownCallerError,
    bearer_in,
)
from xds_server.stream.identity import ClientTable, parse_binding
from xds_server.stream.refused import parse_refused

FINGERPRINT = "ab" * 32
OURS = ShownIdentity(
    names=("spiffe://beamlit/gateway",), fingerprint=FINGERPRINT, bearer="says nothing beside a certificate"
)
ACCOUNT = "system:serviceaccount:a:envoy"


class OneAccount:
    async def holder(self, token: str, address: str) -> TokenHolder:
        return TokenHolder(ACCOUNT if token == "ours" else "system:serviceaccount:b:envoy", "pod-1", 100.0)


def callers(now: float = 0.0) -> Callers:
    table = ClientTable.of([parse_binding(f"{ACCOUNT}=gateway/@pod")])
    return Callers(table, OneAccount(), lambda: now)


async def test_a_certificate_goes_before_a_token_and_without_either_nobody_is_known():
    assert {str(one) for one in (await callers().caller(OURS)).granted} == {"gateway"}
    assert {str(one) for one in (await callers().caller(ShownIdentity(bearer="ours"))).granted} == {"gateway/pod-1"}
    with pytest.raises(NotAllowedError, match="no client of this server is system:serviceaccount:b:envoy"):
        await callers().caller(ShownIdentity(bearer="theirs"))
    with pytest.raises(UnknownCallerError, match="neither a certificate nor a token"):
        await callers().caller(ShownIdentity())
    with pytest.raises(NotAllowedError, match="none of a URI or DNS"):
        await Callers(ClientTable()).caller(ShownIdentity(bearer="ours"))


async def test_a_call_ends_with_the_token_that_it_began_with():
    for now, ends in ((99.98, True), (0.0, False)):
        known = callers(now)
        caller = await known.caller(ShownIdentity(bearer="ours"))

        async def serves(known=known, caller=caller) -> None:
            async with known.call_of(caller):
                await asyncio.sleep(0.2)

        if ends:
            with pytest.raises(UnknownCallerError, match="has ended: call again"):
                await serves()
        else:
            await serves()


@pytest.mark.parametrize("named", [FINGERPRINT, "spiffe://beamlit/gateway"])
async def test_who_is_refused_is_ended_and_comes_no_more_until_he_is_let_in_again(named):
    known, inside = callers(), asyncio.Event()
    one, another = await known.caller(OURS), await known.caller(ShownIdentity(bearer="ours"))

    async def serves(caller: Caller) -> None:
        async with known.call_of(caller):
            inside.set()
            await asyncio.Event().wait()

    ended, stays = asyncio.create_task(serves(one)), asyncio.create_task(serves(another))
    await inside.wait()
    assert known.refuse(frozenset((named,))) == 1
    with pytest.raises(NotAllowedError, match="was told to refuse"):
        await in_time(ended, "the call ends")
    with pytest.raises(NotAllowedError, match="was told to refuse"):
        await known.caller(OURS)
    assert not stays.done()
    stays.cancel()
    known.refuse(frozenset())
    await known.caller(OURS)


async def test_a_time_that_runs_out_inside_a_call_is_its_own():
    known = callers()
    with pytest.raises(TimeoutError):
        async with known.call_of(await known.caller(OURS)), asyncio.timeout(0):
            await asyncio.Event().wait()


def test_a_bearer_token_is_the_only_authorization():
    assert bearer_in("Bearer a.b.c") == bearer_in("bearer  a.b.c ") == "a.b.c"
    assert bearer_in("Basic a") == bearer_in("Bearer a", "Bearer b") == bearer_in() == bearer_in("Bearer") == ""


def test_a_list_has_fingerprints_as_openssl_prints_them_and_names():
    printed = "sha256 Fingerprint=" + ":".join(["AB"] * 32)
    text = f"# stolen in May\n\n{printed} # laptop\n  {'cd' * 32}\nspiffe://a/b#c\n{ACCOUNT}\n"
    assert parse_refused(text) == {FINGERPRINT, "cd" * 32, "spiffe://a/b#c", ACCOUNT}


async def test_a_capital_letter_lets_nobody_in_who_is_refused():
    table = ClientTable.of([parse_binding("Envoy.Example.com=gateway")])
    known = Callers(table)
    known.refuse(parse_refused("envoy.EXAMPLE.com"))
    with pytest.raises(NotAllowedError, match="was told to refuse"):
        await known.caller(ShownIdentity(names=("Envoy.Example.com",), fingerprint=FINGERPRINT))


@pytest.mark.parametrize(
    "line",
    [
        "abcd",
        "ab:cd",
        "ab" * 33,
        "gateway",
        "two words.x",
        "system:serviceaccount:envoy",
        f"sha256 Fingerprint={'zz' * 32}",
    ],
)
def test_a_line_that_names_nobody_is_told_with_its_number(line):
    with pytest.raises(ValueError, match=r"line 2: .* is neither a SHA-256 fingerprint nor the name of a client"):
        parse_refused(f"# first\n{line}\n")
