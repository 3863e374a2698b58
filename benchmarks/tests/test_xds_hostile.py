"""What the benchmark of hostile clients judges, and that it has them do all that the tests know."""

from collections import Counter
from dataclasses import replace

from benchmarks.attackers.xds import NOBODY, OWN, Kind, kinds
from benchmarks.xds_hostile import Seen, Waits, goals
from tests.support.protocol.attacks import FAMILIES

ATTACK = Kind("names", "delta")
GOOD = Seen(ATTACK, Counter(RESOURCE_EXHAUSTED=3), Waits([0.01, 0.1]), Waits([0.01]), 0.05, 100)


def judged(*seen: Seen, after: int = 120) -> list[bool]:
    return [good for good, _ in goals(seen, 100, after)]


def test_each_goal_is_missed_by_itself() -> None:
    assert judged(GOOD) == [True, True, True, True]
    assert judged(GOOD, replace(GOOD, ended=Counter(OK=1, RESOURCE_EXHAUSTED=2))) == [False, True, True, True]
    assert judged(GOOD, replace(GOOD, ended=Counter())) == [False, True, True, True]
    assert judged(GOOD, replace(GOOD, attacked=Waits([0.11]))) == [True, False, True, True]
    assert judged(GOOD, replace(GOOD, attacked=Waits())) == [True, False, True, True]
    assert judged(GOOD, replace(GOOD, step=0.06)) == [True, True, False, True]
    assert judged(GOOD, after=121) == [True, True, True, False]


def test_what_the_machine_makes_anybody_wait_is_not_the_servers() -> None:
    assert judged(replace(GOOD, attacked=Waits([0.3]), other=Waits([0.16]))) == [True, True, True, True]


def test_what_is_allowed_may_end_well() -> None:
    assert judged(replace(GOOD, kind=NOBODY, ended=Counter(rested=1))) == [True, True, True, True]


def test_all_attacks_are_done_as_members_and_as_strangers() -> None:
    every = list(kinds())
    assert len(every) == len({one.label for one in every}) == 2 * sum(len(one.attacks) for one in FAMILIES) + len(OWN)
