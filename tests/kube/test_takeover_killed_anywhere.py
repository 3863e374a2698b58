"""The controller is killed after any write, those of statuses included, on the way in and again on the way out."""

from __future__ import annotations

import pytest

from tests.support.kube.endpoint_controllers import ServiceHand
from tests.support.kube.killed import is_given_back, is_taken_over, played, prepare
from tests.support.kube.taking_over import Killing


@pytest.mark.parametrize("number", range(1, 9))
async def test_killed_after_any_write_it_ends_taken_over_and_then_given_back(hand: ServiceHand, number: int) -> None:
    await prepare(hand)
    before = hand.written_by_owners()
    killing = Killing(after=number, with_statuses=True)
    await played(hand, killing, lambda: is_taken_over(hand))
    assert killing.dead.is_set()
    await played(hand, Killing(), lambda: is_taken_over(hand))
    assert "beamlit-controller" not in hand.managers()
    hand.delete_model()
    killing = Killing(after=number, with_statuses=True)
    await played(hand, killing, lambda: is_given_back(hand, before))
    assert killing.dead.is_set()
    await played(hand, Killing(), lambda: is_given_back(hand, before))
    assert "beamlit-controller" not in hand.managers()
