"""What the product asks of a Prometheus, and how it reads the answers, held against a real one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import pytest

from controller.api.resources.configuration import PrometheusConfiguration
from controller.api.resources.metrics import MetricSpec
from controller.api.schema.values import parse
from controller.api.timing import PollTiming
from controller.decision.facts import Cause, Known, Sample, Unknown, WindowFrom
from controller.signals import promql
from controller.signals.source import Subject
from controller.store.objects import ObjectRef
from tests.support.prometheus import Prometheus, Target
from tests.support.waiting import until

OFTEN = PollTiming(every=0.1, answer=30.0, longest_pause=0.2, old_after=0.5)
PAGE = """\
queue{app="chat",zone="a",odd="x\\"}|y"} 3
queue{app="chat",zone="b"} 4
queue{app="code",zone="a"} 100
broken NaN
endless +Inf
# TYPE served_total counter
served_total 5
"""


@pytest.fixture(scope="module", autouse=True)
def pages(prometheus: Prometheus, scraped: Target) -> None:
    scraped.text = PAGE
    prometheus.await_value("served_total", 5)


@contextlib.asynccontextmanager
async def asking(prometheus: Prometheus, path: str = "") -> AsyncIterator[promql.Prometheus]:
    configuration = PrometheusConfiguration(address=f"{prometheus.address}{path}")
    source = promql.Prometheus(configuration, OFTEN, lambda: datetime.now(UTC))
    task = asyncio.create_task(source.run(lambda refs: None))
    try:
        yield source
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def sampled(
    prometheus: Prometheus, name: str, selector: object = None, good: Callable[[Sample], object] | None = None
) -> Sample:
    """The first answer that is good; any that was asked for, unless it is said what is."""
    metric = {"name": name, "selector": selector} if selector else {"name": name}
    target = {"type": "Value", "value": "10"}
    asked = parse(MetricSpec, {"type": "External", "external": {"metric": metric, "target": target}})
    seen: list[Sample] = []

    def is_good() -> object:
        seen[:] = [source.sample(Subject(ObjectRef("ModelDeployment", "default", "chat")), asked, datetime.now(UTC))]
        one = seen[0]
        return good(one) if good else isinstance(one, Known) or "for the first time" not in one.why

    async with asking(prometheus) as source:
        await until(is_good, f"{name} is answered: {seen}")
    return seen[0]


@pytest.mark.parametrize(
    ("name", "selector", "value"),
    [
        ("queue", {"matchLabels": {"app": "chat", "zone": "a"}}, 3),
        ("queue", {"matchLabels": {"odd": 'x"}|y'}}, 3),
        ("queue", {"matchExpressions": [{"key": "odd", "operator": "In", "values": ['x"}|y', "z"]}]}, 3),
        ("queue", {"matchExpressions": [{"key": "odd", "operator": "Exists"}]}, 3),
        ("queue", {"matchExpressions": [{"key": "odd", "operator": "DoesNotExist"}]}, 104),
        ("queue", {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["code", "c.at"]}]}, 7),
        ("queue", {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]}, 107),
        ("queue", None, 107),
        ('sum(queue{app="chat"}) / 2', None, 3.5),
        ('scalar(sum(queue{app="code"}))', None, 100),
        ("42", None, 42),
        ("1e3 * sum(queue) > 1", None, 107000),
    ],
)
async def test_a_number(prometheus: Prometheus, name: str, selector: object, value: float) -> None:
    # After a scrape that a busy machine was too slow for there is no series until the next one.
    sample = await sampled(prometheus, name, selector, good=lambda sample: isinstance(sample, Known))
    assert isinstance(sample, Known), sample
    assert float(sample.value.value) == value


@pytest.mark.parametrize(
    ("name", "selector", "words"),
    [
        ("nobody_has_it", None, "no series matches"),
        ("queue", {"matchLabels": {"app.kubernetes.io/name": "chat"}}, "no series matches"),
        ("broken", None, "NaN was measured, which is no number"),
        ("endless", None, "+Inf was measured, which is no number"),
        ("'text'", None, "the answer is a text"),
        ("queue[1m]", None, "the answer is a range of values"),
        ("sum(queue", None, "Prometheus says: invalid parameter"),
        ("queue{", None, "Prometheus says: invalid parameter"),
        ("queue * on(app) queue", None, "Prometheus says: "),
        ("label_replace(vector(1), 'a', 'b', 'c', '(')", None, "Prometheus says: "),
    ],
)
async def test_what_is_no_number_is_told(prometheus: Prometheus, name: str, selector: object, words: str) -> None:
    sample = await sampled(
        prometheus,
        name,
        selector,
        good=lambda sample: isinstance(sample, Known) or sample.why.startswith(words),
    )
    assert isinstance(sample, Unknown), sample
    assert len(sample.why) < 250


async def test_what_prometheus_doubts_stands_beside_the_number(prometheus: Prometheus) -> None:
    has_two = "count_over_time(queue{app='code'}[1m]) > 1"
    await sampled(prometheus, has_two, good=lambda sample: isinstance(sample, Known))
    sample = await sampled(prometheus, "rate(queue{app='code'}[1m])", good=lambda sample: isinstance(sample, Known))
    assert isinstance(sample, Known), sample
    assert "might not be a counter" in sample.value.note


async def test_the_time_of_the_oldest_sample_is_that_of_the_number(prometheus: Prometheus, scraped: Target) -> None:
    """Both are what Prometheus shows for the next minutes: what was pushed, or is scraped once a minute."""
    older, newer = (datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=ago) for ago in (100, 40))
    stamps = [("a", 3, older), ("b", 4, newer)]
    lines = (f'held{{app="chat",zone="{zone}"}} {number} {one.timestamp() * 1000:.0f}' for zone, number, one in stamps)
    scraped.text = PAGE + "".join(f"{line}\n" for line in lines)
    prometheus.await_value("sum(held)", 7)
    begun = datetime.now(UTC)
    both, zone_b, written = [
        await sampled(prometheus, name, selector, good=lambda sample: isinstance(sample, Known))
        for name, selector in (
            ("held", {"matchLabels": {"app": "chat"}}),
            ("held", {"matchLabels": {"zone": "b"}}),
            ('held{app=~"chat|}",zone="a"}', None),
        )
    ]
    assert isinstance(both, Known) and isinstance(zone_b, Known) and isinstance(written, Known)
    # What the question itself took is added.
    assert both.at <= older < zone_b.at <= newer < begun
    assert written.at <= older
    assert (both.value.value, zone_b.value.value, written.value.value) == (7, 4, 3)
    assert both.value.window == zone_b.value.window == timedelta(0)


async def test_a_series_that_is_gone_without_a_word_makes_a_number_a_minute_older_than_the_others_and_no_more(
    prometheus: Prometheus, scraped: Target
) -> None:
    """Its samples have times of their own, as what was pushed or comes from another Prometheus: no marker ends it."""
    now = datetime.now(UTC).replace(microsecond=0)
    gone, alone, newest = (now - timedelta(seconds=ago) for ago in (180, 150, 1))
    stamps = [("one", "gone", 3, gone), ("one", "stays", 4, newest), ("other", "gone", 5, alone)]
    lines = (f'left{{app="{app}",pod="{pod}"}} {number} {at.timestamp() * 1000:.0f}' for app, pod, number, at in stamps)
    scraped.text = PAGE + "".join(f"{line}\n" for line in lines)
    prometheus.await_value("sum(left)", 12)
    one, other = [
        await sampled(prometheus, "left", {"matchLabels": {"app": app}}, good=lambda sample: isinstance(sample, Known))
        for app in ("one", "other")
    ]
    assert isinstance(one, Known) and isinstance(other, Known)
    assert (one.value.value, other.value.value) == (7, 5)
    # What the question itself took is added; nothing else is newer than the last word of the other model.
    assert gone < alone < one.at <= newest - timedelta(minutes=1)
    assert other.at <= alone


@pytest.mark.parametrize(
    ("name", "seconds", "said_by"),
    [
        ("queue", 0, WindowFrom.QUERY),
        ("sum(queue)", 60, WindowFrom.ASSUMED),
        ("42", 60, WindowFrom.ASSUMED),
        ("sum(avg_over_time(queue[2m]))", 120, WindowFrom.QUERY),
    ],
)
async def test_over_what_a_number_is_taken_to_be(
    prometheus: Prometheus, name: str, seconds: float, said_by: WindowFrom
) -> None:
    begun = datetime.now(UTC)
    sample = await sampled(prometheus, name, good=lambda sample: isinstance(sample, Known))
    assert isinstance(sample, Known)
    assert (sample.value.window, sample.value.window_from) == (timedelta(seconds=seconds), said_by)
    # Only of a series it is known, and that was scraped before.
    assert sample.at >= begun or name == "queue"


async def test_what_more_series_match_than_are_good_is_told(prometheus: Prometheus, scraped: Target) -> None:
    scraped.text = PAGE + "".join(f'many{{number="{number}"}} 1\n' for number in range(1500))
    sample = await sampled(
        prometheus, "many", good=lambda sample: isinstance(sample, Unknown) and "match:" in sample.why
    )
    assert sample == Unknown("more than 1000 series match: ask for less, as with sum()", cause=Cause.INVALID)
    total = await sampled(prometheus, "sum(many)", good=lambda sample: isinstance(sample, Known))
    assert isinstance(total, Known)
    assert total.value.value == 1500


async def test_a_target_that_is_gone_is_unknown_and_not_its_last_number(
    prometheus: Prometheus, scraped: Target
) -> None:
    scraped.text = None
    sample = await sampled(
        prometheus, "queue", good=lambda sample: isinstance(sample, Unknown) and "series" in sample.why
    )
    assert sample == Unknown("no series matches", cause=Cause.NO_SUCH_METRIC)
