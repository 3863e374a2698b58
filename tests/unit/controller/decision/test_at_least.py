"""A metric of which only a part is known, since one Envoy says nothing: there is at least so much.

Requests are a flow here, without chance, and each of the Envoys has an equal part of what stays. It is looked at every
second, as load reports are.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from controller.api.resources.metrics import MetricSpec
from controller.api.resources.model import Behavior
from controller.api.schema.values import parse
from controller.decision import (
    Cause,
    Decision,
    Facts,
    Known,
    Measurement,
    Memory,
    Reason,
    SentRequests,
    Unknown,
    decide,
)
from controller.decision.decision import Overload
from controller.decision.laws import follow
from controller.decision.signals import compare
from controller.intent.intent import Terms
from tests.support.decisions import facts_with

START = datetime(2026, 1, 1, tzinfo=UTC)
TARGET, ENVOYS = 100, 5
METRIC = parse(MetricSpec, {"type": "Requests", "requests": {"target": {"type": "Value", "value": TARGET}}})
SILENT = Unknown("Envoy five reports no load", cause=Cause.NO_SAMPLE)
HANGS, HEARD_AGAIN = range(60, 1200), range(1200, 2400)


def at(second: int) -> datetime:
    return START + timedelta(seconds=second)


def measured(in_flight: float, second: int, lacks: Unknown | None) -> Facts:
    """What is known of so many requests in flight, of which one Envoy of five says nothing if something `lacks`."""
    heard = in_flight * (ENVOYS - 1) / ENVOYS if lacks else in_flight
    signal = compare(METRIC, Known(Measurement(Decimal(heard), lacks=lacks), at(second)), 1)
    # How many arrive a second is not known either.
    return facts_with(signal, traffic=SentRequests(0, 0, 0.0))


def played(behavior: Behavior, demand: Callable[[int], float], hangs: range = HANGS) -> Iterator[Decision]:
    """What is decided each second for a demand in multiples of the target."""
    memory, away = Memory(), 0.0
    for second in range(HEARD_AGAIN.stop):
        facts = measured(demand(second) * TARGET * (1 - away), second, SILENT if second in hangs else None)
        decision, memory = decide(Terms(True, behavior=behavior), facts, memory, at(second))
        away = decision.split.remote / 100
        yield decision


def shares(behavior: Behavior, demand: Callable[[int], float], hangs: range = HANGS) -> list[int]:
    return [one.split.remote for one in played(behavior, demand, hangs)]


def surge(second: int, height: float = 3.0) -> float:
    return 0.5 if second < 300 or second >= 900 else height


MODES = pytest.mark.parametrize("mode", ["Threshold", "Proportional"])


@MODES
@pytest.mark.parametrize("on_unknown", ["Hold", "Local"])
@pytest.mark.parametrize("height", [1.3, 1.5, 2.0, 3.0])
def test_a_surge_has_requests_leave_and_none_swings_though_an_envoy_says_nothing(mode, on_unknown, height):
    """What is away lowers what the others say below the target, and that is no reason to bring it back."""
    behavior = Behavior(mode=mode, percentage=50 if mode == "Threshold" else 100, on_unknown=on_unknown)
    found = shares(behavior, lambda second: surge(second, height))[:900]
    begun = next(second for second, share in enumerate(found) if share)
    assert 300 <= begun <= 301
    assert found[begun:] == sorted(found[begun:])


@MODES
def test_nothing_comes_back_before_the_envoy_is_heard(mode):
    found = shares(Behavior(mode=mode, percentage=50), surge)
    assert min(found[400:1200]) > 0
    assert found[-1] == 0


def test_with_local_it_comes_back_once_not_even_the_demand_is_known_to_be_too_much():
    found = shares(Behavior(mode="Threshold", percentage=50, on_unknown="Local"), surge)
    assert found[899] == 50
    assert found[905:1200] == [0] * 295


def test_no_more_leaves_by_a_part_than_would_by_all_of_it():
    """As much as brings the part to the target: the whole is more, and so is what has to leave."""
    behavior = Behavior(mode="Proportional")
    part, whole = shares(behavior, surge)[890], shares(behavior, surge, range(0))[890]
    assert 100 * (1 - 1 / (3 * 0.8)) <= part <= whole


def test_what_is_known_at_the_least_takes_back_no_share_that_another_mode_chose():
    """Divided by what stays it is a demand of at least 1.6, and for that half would do."""
    overload = Overload(since=at(0), share=90, cause="Requests")
    memory = Memory(overload=overload)
    facts, terms = measured(200, 10, SILENT), Terms(True, behavior=Behavior(mode="Proportional"))
    for known, share in ((facts, 90), (replace(facts, signals=measured(200, 10, None).signals), 55)):
        followed = follow(terms, known, memory, at(10)).overload
        assert followed is not None
        assert (followed.share < 90) == (share < 90)


def test_what_is_shown_says_that_it_is_the_least():
    first = next(one for one in played(Behavior(percentage=50), surge) if one.reason is Reason.OVERLOADED)
    assert first.message.startswith("Requests is at least 240 of 100 at ")
    assert "(Requests: now at least 240%)" in first.returns


def test_no_few_come_back_to_find_out_what_a_part_cannot_tell():
    """With so many away some return for a while, to measure the demand; the Envoy would be missing in that as well."""
    assert set(shares(Behavior(percentage=95), surge)[301:1200]) == {95}


@pytest.mark.parametrize(("lacks", "is_back"), [(SILENT, False), (None, True)])
def test_nothing_comes_back_for_another_metric_that_is_clear(lacks, is_back):
    memory = Memory(overload=Overload(since=at(0), share=50, cause="Requests"))
    behavior = Behavior(percentage=50)
    for second in range(1, 200):
        (part,), (calm,) = measured(10, second, lacks).signals, measured(10, second, None).signals
        facts = facts_with(part, replace(calm, name="cpu"))
        memory = follow(Terms(True, behavior=behavior), facts, memory, at(second))
    assert (memory.overload is None) == is_back


def test_a_part_is_nothing_to_compare_the_number_of_requests_with():
    terms, counted = Terms(True, behavior=Behavior(percentage=100)), SentRequests(1000, 0, 10.0)
    begun = follow(terms, replace(measured(300, 0, SILENT), traffic=counted), Memory(), at(0)).overload
    assert begun is not None and begun.ratios == {}
    memory = follow(terms, measured(300, 0, SILENT), Memory(), at(0))
    for lacks, ratios in ((SILENT, {}), (None, {"Requests 100": 3.0})):
        found = follow(terms, replace(measured(300, 1, lacks), traffic=counted), memory, at(1)).overload
        assert found is not None and found.ratios == ratios


@pytest.mark.parametrize("in_flight", [50, 150])
def test_a_part_of_an_average_is_of_its_window_too(in_flight):
    """Or it would be taken for a measurement of after the last step, below the target as well."""
    window = timedelta(seconds=300)
    part = Measurement(Decimal(in_flight), window=window, lacks=SILENT)
    assert compare(METRIC, Known(part, START), 1).window == window
