"""The controller is killed before and after each write of the way in: the next one goes on, or goes back."""

from __future__ import annotations

import asyncio

import pytest

from controller.api.kubernetes.fronting import FRONTED_KEY
from tests.support.kube.endpoint_controllers import ServiceHand
from tests.support.kube.killed import CHAT, IN, OUT, Led, is_given_back, is_taken_over, played, prepare
from tests.support.kube.taking_over import Killing
from tests.support.waiting import until


async def test_these_are_the_writes(hand: ServiceHand) -> None:
    await prepare(hand)
    before = hand.written_by_owners()
    killing = Killing()
    assert await played(hand, killing, lambda: is_taken_over(hand)) == IN
    hand.delete_model()
    assert sorted(await played(hand, Killing(), lambda: is_given_back(hand, before))) == sorted(OUT)


async def test_a_moment_in_which_clients_are_led_nowhere_is_seen(hand: ServiceHand) -> None:
    await prepare(hand)
    led = Led(hand)
    following = asyncio.create_task(led.follow())
    await until(led.has_seen_all, "it is told of what there is")
    hand.set_ready("chat-1", ready=False)
    await hand.until_ways()
    hand.set_ready("chat-1", ready=True)
    await hand.until_ways("10.8.0.1:8080", "10.8.0.1:9000")
    with pytest.raises(AssertionError, match="nothing is behind the port http"):
        await following


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("number", range(1, len(IN) + 1))
async def test_killed_on_the_way_in_it_ends_taken_over(hand: ServiceHand, number: int, moment: str) -> None:
    await prepare(hand)
    before = hand.written_by_owners()
    killing = Killing(**{moment: number})
    await played(hand, killing, lambda: is_taken_over(hand))
    assert killing.dead.is_set()
    await played(hand, Killing(), lambda: is_taken_over(hand))
    assert "beamlit-controller" not in hand.managers()
    after = hand.written_by_owners()
    assert after["spec"].pop("selector") == {**CHAT, FRONTED_KEY: "true"}
    before["spec"].pop("selector")
    assert after == before


@pytest.mark.parametrize("number", range(1, len(IN) + 1))
async def test_killed_on_the_way_in_it_is_given_back_if_it_is_wanted_no_more(hand: ServiceHand, number: int) -> None:
    await prepare(hand)
    before = hand.written_by_owners()
    await played(hand, Killing(after=number), lambda: is_taken_over(hand))
    hand.delete_model()
    await played(hand, Killing(), lambda: is_given_back(hand, before))
    assert "beamlit-controller" not in hand.managers()
