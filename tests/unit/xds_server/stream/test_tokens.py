"""Whose a token is: how often the API server is asked, and what holds while it does not answer."""

import asyncio
import base64
import json

import pytest

from xds_server.stream.callers import (
    CannotTellError,
    NotAllowedError,
    TokenHolder,
    TooManyTokensError,
    UnknownCallerError,
)
from xds_server.stream.tokens import LONGEST_TOKEN, Reviewed, ReviewedTokens, TokenLimits

LIMITS = TokenLimits()
END = 3_600.0


def token(name: str, audience: object = "beamlit-xds", **claims: object) -> str:
    said = json.dumps({"aud": audience, "exp": END, "name": name, **claims}).encode()
    return f"e30.{base64.urlsafe_b64encode(said).decode().rstrip('=')}.signature"


class ApiServer:
    """Knows every token whose name begins with `good` or `other`; `down` has it answer nobody.

    Those that begin with `other` are of accounts that are no clients.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.asked: list[str] = []
        self.at_once = 0
        self.most_at_once = 0
        self.down = False
        self.tokens = self.reviewed(LIMITS)

    def reviewed(self, limits: TokenLimits) -> ReviewedTokens:
        return ReviewedTokens(
            self.review, "beamlit-xds", lambda name: not name.startswith("other"), limits, lambda: self.now
        )

    async def review(self, said: str) -> Reviewed | None:
        self.asked.append(said)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        if self.down:
            raise CannotTellError("down")
        name = json.loads(base64.urlsafe_b64decode(said.split(".")[1] + "=="))["name"]
        return Reviewed(name, "pod") if name.startswith(("good", "other")) else None

    async def outcomes(self, *asking: tuple[str, str]) -> list[object]:
        every = (self.tokens.holder(said, address) for said, address in asking)
        return await asyncio.gather(*every, return_exceptions=True)


async def test_a_token_is_asked_about_once_and_again_after_some_minutes():
    api = ApiServer()
    holder = TokenHolder("good", "pod", END)
    assert await api.outcomes(*[(token("good"), f"10.0.0.{i}") for i in range(20)]) == [holder] * 20
    api.now = LIMITS.known_for - 1
    assert await api.tokens.holder(token("good"), "10.0.0.1") == holder
    assert len(api.asked) == 1
    api.now += 2
    assert await api.tokens.holder(token("good"), "10.0.0.1") == holder
    assert len(api.asked) == 2


async def test_a_token_is_believed_no_longer_than_it_holds():
    api = ApiServer()
    await api.tokens.holder(token("good"), "10.0.0.1")
    api.now = END
    with pytest.raises(UnknownCallerError, match="has ended"):
        await api.tokens.holder(token("good"), "10.0.0.1")


async def test_one_that_is_nobodys_now_is_nobodys_for_some_seconds_and_no_longer_anybodys():
    api = ApiServer()
    for _ in range(5):
        with pytest.raises(UnknownCallerError, match="does not know the token"):
            await api.tokens.holder(token("bad"), "10.0.0.1")
    assert len(api.asked) == 1
    api.now = LIMITS.refused_for
    with pytest.raises(UnknownCallerError):
        await api.tokens.holder(token("bad"), "10.0.0.1")
    assert len(api.asked) == 2


@pytest.mark.parametrize(
    "said",
    ["", "no-token", "a.b.c", "e30.W10.x", "x" * (LONGEST_TOKEN + 1), token("good", "another"),
     token("good", ["a", "b"]), token("good", exp=-1), token("good", exp="never"), token("good", exp=True),
     token("good", exp=10**400), token("good", exp=float("nan")), token("good", exp=float("inf")),
     token("good") + " ", token("good") + "=", "\udcff" + token("good"), token("good", aud=None)],
)  # fmt: skip
async def test_what_cannot_be_a_token_of_ours_is_never_asked_about(said):
    api = ApiServer()
    with pytest.raises(UnknownCallerError):
        await api.tokens.holder(said, "10.0.0.1")
    assert api.asked == []


async def test_while_the_api_server_is_away_who_is_known_stays_and_a_new_one_hears_why():
    api = ApiServer()
    known = await api.tokens.holder(token("good"), "10.0.0.1")
    api.down = True
    api.now = LIMITS.known_for + 1
    assert await api.tokens.holder(token("good"), "10.0.0.1") == known
    asked = len(api.asked)
    assert await api.tokens.holder(token("good"), "10.0.0.1") == known
    assert len(api.asked) == asked, "and is not asked about with each call"
    with pytest.raises(CannotTellError, match="down"):
        await api.tokens.holder(token("good-2"), "10.0.0.1")
    api.now = END
    with pytest.raises(UnknownCallerError):
        await api.tokens.holder(token("good"), "10.0.0.1")


async def test_an_address_with_a_storm_of_bad_tokens_costs_a_bounded_number_of_questions_and_keeps_no_other_out():
    api, storm = ApiServer(), LIMITS.refusals_of_an_address * 5
    flood = [(token(f"bad-{i}"), "10.0.0.66") for i in range(storm)]
    others = [(token(f"good-{i}"), f"10.0.0.{i}") for i in range(10)]
    outcomes = await api.outcomes(*flood, *others)
    assert all(isinstance(one, TokenHolder) for one in outcomes[storm:])
    assert {type(one) for one in outcomes[:storm]} == {UnknownCallerError, TooManyTokensError}
    bad = [said for said in api.asked if said in {one for one, _ in flood}]
    assert len(bad) <= LIMITS.refusals_of_an_address
    # One question at a time of an address: those of the others are among the first.
    last_good = max(index for index, said in enumerate(api.asked) if said not in bad)
    assert last_good < 2 * len(others)
    assert api.most_at_once <= LIMITS.at_once
    api.now += 3
    before = len(api.asked)
    await api.outcomes(*[(token(f"later-{i}"), "10.0.0.66") for i in range(storm)])
    assert len(api.asked) - before == 3, "one a second"


async def test_who_is_known_comes_again_also_where_others_of_its_address_show_bad_tokens():
    api = ApiServer()
    known = await api.tokens.holder(token("good"), "10.0.0.1")
    api.now = LIMITS.known_for + 1
    flood = [(token(f"bad-{i}"), "10.0.0.1") for i in range(LIMITS.waiting_of_an_address)]
    *_, outcome = await api.outcomes(*flood, (token("good"), "10.0.0.1"))
    assert outcome == known
    assert api.asked.index(token("good"), 1) <= LIMITS.at_once, "nor does it wait for them"


async def test_tokens_of_accounts_that_are_no_clients_cost_as_little_and_push_no_good_one_out():
    api = ApiServer()
    api.tokens = api.reviewed(TokenLimits(most_known=5))
    await api.tokens.holder(token("good"), "10.0.0.1")
    flood = [(token(f"other-{i}"), "10.0.0.66") for i in range(LIMITS.waiting_of_an_address)]
    outcomes = await api.outcomes(*flood)
    assert {type(one) for one in outcomes} == {NotAllowedError, TooManyTokensError}
    assert len(api.asked) == 1 + LIMITS.refusals_of_an_address
    assert isinstance((await api.outcomes(flood[0]))[0], NotAllowedError), "it is remembered, too"
    await api.tokens.holder(token("good"), "10.0.0.1")
    assert len(api.asked) == 1 + LIMITS.refusals_of_an_address


async def test_an_api_server_that_cannot_say_is_asked_about_a_new_token_of_an_address_once_a_second():
    api = ApiServer()
    api.down = True
    many = [(token(f"good-{i}"), "10.0.0.1") for i in range(LIMITS.waiting_of_an_address)]
    outcomes = await api.outcomes(*many, (token("good"), "10.0.0.2"))
    assert {type(one) for one in outcomes} == {CannotTellError}
    assert len(api.asked) == 2, "one of each address, and nobody waits for the questions of all before"
    api.down, api.now = False, LIMITS.rest
    assert {type(one) for one in await api.outcomes(*many)} == {TokenHolder}


async def test_who_goes_away_leaves_the_question_to_who_still_waits():
    api = ApiServer()
    first = asyncio.create_task(api.tokens.holder(token("good"), "10.0.0.1"))
    second = asyncio.create_task(api.tokens.holder(token("good"), "10.0.0.1"))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).name == "good"
    assert len(api.asked) == 1


async def test_bad_tokens_push_no_good_one_out():
    api = ApiServer()
    api.tokens = api.reviewed(TokenLimits(most_refused=5))
    await api.tokens.holder(token("good"), "10.0.0.1")
    await api.outcomes(*[(token(f"bad-{i}"), f"10.0.1.{i}") for i in range(20)])
    asked = len(api.asked)
    await api.tokens.holder(token("good"), "10.0.0.1")
    assert len(api.asked) == asked
    assert len(api.tokens._refused) == 5
