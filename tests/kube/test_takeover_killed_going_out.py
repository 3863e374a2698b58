"""The controller is killed before and after each write of the way out: the next one gives back what is left."""

from __future__ import annotations

import pytest

from tests.support.kube.endpoint_controllers import ServiceHand
from tests.support.kube.killed import OUT, is_given_back, is_taken_over, played, prepare
from tests.support.kube.taking_over import Killing


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("number", range(1, len(OUT) + 1))
async def test_killed_on_the_way_out_it_ends_given_back(hand: ServiceHand, number: int, moment: str) -> None:
    await prepare(hand)
    before = hand.written_by_owners()
    await played(hand, Killing(), lambda: is_taken_over(hand))
    hand.delete_model()
    killing = Killing(**{moment: number})
    await played(hand, killing, lambda: is_given_back(hand, before))
    assert killing.dead.is_set()
    await played(hand, Killing(), lambda: is_given_back(hand, before))
    assert "beamlit-controller" not in hand.managers()
