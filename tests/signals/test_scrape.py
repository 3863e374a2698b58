"""Replicas that show their metrics well, badly, or not at all: what is asked of them, and what is measured."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from controller.api.kubernetes.endpoints import Replica
from controller.api.resources.metrics import MetricSpec
from controller.api.schema.values import parse
from controller.api.timing import PollTiming
from controller.decision.facts import Cause, Known, Uncounted, Unknown
from controller.decision.signals import compare
from controller.signals.scrape import MOST_REPLICAS, Scrape
from controller.signals.source import PolledSource, Subject
from controller.store.objects import ObjectRef
from tests.support.answers import Answers, bytes_of, dripping, endless, saying, silent
from tests.support.memory import peak_memory
from tests.support.network import Network
from tests.support.waiting import until

REF = ObjectRef("ModelDeployment", "default", "chat")
PATIENT = PollTiming(every=0.05, answer=40.0, longest_pause=0.1, old_after=60.0)
HASTY = replace(PATIENT, answer=0.4)
ENOUGH = {"type": "AverageValue", "averageValue": "10"}


def scrape_of(name="queue", target=ENOUGH, **more):
    return parse(MetricSpec, {"type": "Scrape", "scrape": {"metric": {"name": name}, "target": target, **more}})


class Replicas:
    """Servers at addresses of their own with one port, and the model that they are of."""

    def __init__(self, *behaviours):
        self.network = Network.unused()
        self.servers = [Answers(one) for one in behaviours]
        self.port = self.servers[0].port
        for server in self.servers:
            server.port = self.port

    @contextlib.asynccontextmanager
    async def listening(self):
        async with contextlib.AsyncExitStack() as stack:
            for number, server in enumerate(self.servers, 1):
                await stack.enter_async_context(server.listening(self.network.host(number)))
            yield self

    def subject(self, port=None, named=(), unready=0, ref=REF):
        hosts = [self.network.host(number) for number in range(1, len(self.servers) + 1 + unready)]
        ready = [number < len(self.servers) for number in range(len(hosts))]
        return Subject(
            ref,
            replicas=tuple(Replica(host, port or self.port, one) for host, one in zip(hosts, ready, strict=True)),
            named_ports=named,
        )


@contextlib.asynccontextmanager
async def asked(*behaviours, timing=PATIENT):
    """Replicas that answer so, and a source that asks them."""
    source, told = Scrape(timing, lambda: datetime.now(UTC)), []
    async with Replicas(*behaviours).listening() as replicas:
        task = asyncio.create_task(source.run(told.append))
        try:
            yield replicas, source
            assert not task.done()
            assert {ref for refs in told for ref in refs} <= {REF}
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def sampled(source, subject, metric, good):
    """Wait until what is known is good, and return it."""
    seen = []

    def is_good():
        seen[:] = [source.sample(subject, metric, datetime.now(UTC))]
        return good(seen[0])

    await until(is_good, f"a good sample: {seen}")
    return seen[0]


def known(sample):
    return isinstance(sample, Known)


def failed(sample):
    return isinstance(sample, Unknown) and "for the first time" not in sample.why


async def measured(*behaviours, metric=None, **timing):
    async with asked(*behaviours, **timing) as (replicas, source):
        return (await sampled(source, replicas.subject(), metric or scrape_of(), known)).value


async def why(*behaviours, metric=None, **timing):
    async with asked(*behaviours, **timing) as (replicas, source):
        return (await sampled(source, replicas.subject(), metric or scrape_of(), failed)).why


def waiting(number):
    return saying(f"vllm:num_requests_waiting {number}\n")


async def test_what_is_asked_and_what_is_measured():
    async with asked(waiting(3), waiting(6)) as (replicas, source):
        assert isinstance(source, PolledSource)
        sample = await sampled(source, replicas.subject(unready=2), scrape_of(path="/m?x=1"), known)
    assert (sample.value.value, sample.value.pods, sample.value.missing) == (9, 2, Uncounted())
    signal = compare(scrape_of(), sample, replicas=2)
    assert (signal.current, signal.state) == ("4.5", "Clear")
    request = replicas.servers[0].asked[0].decode().lower()
    assert request.startswith("get /m?x=1 http/1.1\r\n")
    assert f"host: {replicas.network.host(1)}:{replicas.port}\r\n" in request
    assert "authorization" not in request


async def test_the_sum_over_the_replicas_is_the_value():
    async with asked(waiting(3), waiting(6)) as (replicas, source):
        metric = scrape_of(target={"type": "Value", "value": "9"})
        sample = await sampled(source, replicas.subject(), metric, known)
    assert (compare(metric, sample, 2).current, compare(metric, sample, 2).state) == ("9", "Breached")


async def test_a_number_or_a_name_says_which_port():
    async with asked(waiting(3)) as (replicas, source):
        elsewhere = replicas.subject(port=1, named=(("metrics", replicas.port), ("http", 1)))
        assert known(await sampled(source, elsewhere, scrape_of(port=replicas.port), known))
        assert known(await sampled(source, elsewhere, scrape_of(port="metrics"), known))
        said = source.sample(elsewhere, scrape_of(port="metric"), datetime.now(UTC))
        assert said == Unknown("no container of the workload has a port named metric", cause=Cause.INVALID)
        twice = replicas.subject(named=(("metrics", 1), ("metrics", 2)))
        said = source.sample(twice, scrape_of(port="metrics"), datetime.now(UTC))
        assert said == Unknown("several ports are named metrics: give a number", cause=Cause.INVALID)


async def test_a_replica_may_have_an_address_of_ipv6():
    source = Scrape(PATIENT, lambda: datetime.now(UTC))
    async with Answers(waiting(3)).listening("::1") as server:
        subject = Subject(REF, replicas=(Replica("::1", server.port, ready=True),))
        task = asyncio.create_task(source.run(lambda refs: None))
        assert (await sampled(source, subject, scrape_of(), known)).value.value == 3
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_several_metrics_of_one_model_are_one_request():
    page = saying("vllm:num_requests_waiting 3\nvllm:kv_cache_usage_perc 0.5\nown 7\n")
    async with asked(page, timing=replace(PATIENT, every=3600.0)) as (replicas, source):
        metrics = [scrape_of(name) for name in ("queue", "kv-cache", "own")]
        for metric in metrics:
            source.sample(replicas.subject(), metric, datetime.now(UTC))
        found = [(await sampled(source, replicas.subject(), one, known)).value.value for one in metrics]
    assert [str(one) for one in found] == ["3.0", "0.5", "7.0"]
    assert len(replicas.servers[0].asked) == 1


@pytest.mark.parametrize(
    ("bad", "timing"),
    [
        (silent, HASTY),
        (dripping(b"x 1\n"), HASTY),
        (saying("vllm:num_requests_waiting 9", 500), PATIENT),
        (saying("vllm:num_requests_waiting 9", 302, "location: /"), PATIENT),
        (saying("vllm:num_requests_waiting 9", 200, "content-encoding: gzip"), PATIENT),
        (saying("vllm:num_requests_waiting NaN"), PATIENT),
        (saying("vllm:num_requests_waiting x"), PATIENT),
        (saying("other 1"), PATIENT),
        (saying(b""), PATIENT),
        (bytes_of(b"HTTP/1.1 200 .\r\ncontent-length: 100\r\n\r\nvllm:num_requests_waiting 9\n"), PATIENT),
        (endless(b"x 1\n" * 10**4), PATIENT),
        (endless(b"x" * 2**16), PATIENT),
        (endless(b"vllm:num_requests_waiting 9\n" * 100), PATIENT),
    ],
)
async def test_a_replica_that_shows_nothing_is_missing_and_no_zero(bad, timing):
    found = await measured(waiting(20), bad, timing=timing)
    assert (found.value, found.pods, found.missing) == (20, 1, Uncounted(pods=1))
    assert found.note == "1 of 2 replicas show none"
    assert compare(scrape_of(), Known(found, datetime.now(UTC)), 2).current == "20"


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (saying("", 404), "no replica shows its metrics: the answer is 404: nothing is there"),
        (saying("other 1"), "no replica shows it: there is no queue: none of vllm:num_requests_waiting, "),
        (bytes_of(b"\x16\x03\x01"), "no replica shows its metrics: the answer is no HTTP"),
        (saying("x" * 9 * 2**20), "no replica shows its metrics: a line is longer than 64 KiB"),
        (saying(("x" * 99 + "\n") * 10**5), "no replica shows its metrics: the answer is longer than 8 MiB"),
    ],
)
async def test_when_no_replica_shows_it_the_reason_is_told(bad, words):
    assert (await why(bad, bad)).startswith(words)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (endless((b"x" * 99 + b"\n") * 1000), "the answer is longer than 8 MiB"),
        (
            saying(gzip.compress(b"a" * 100 * 2**20, 1), 200, "content-encoding: gzip"),
            "the answer is compressed, which nobody asked for",
        ),
    ],
)
async def test_of_an_answer_no_more_is_kept_than_what_is_asked_for(bad, words):
    with peak_memory() as peak:
        assert await why(bad) == f"no replica shows its metrics: {words}"
    assert peak.bytes < 3 * 2**20


async def test_a_counter_is_no_level():
    page = saying("# TYPE requests_total counter\nrequests_total 5\n")
    said = await why(page, metric=scrape_of("requests_total"))
    assert said.startswith("no replica shows it: requests_total is a counter, which only grows")


async def test_nobody_is_ready_or_too_many_are():
    source = Scrape(PATIENT, lambda: datetime.now(UTC))
    one = Replica("10.0.0.1", 80, ready=False)
    assert source.sample(Subject(REF, replicas=(one,)), scrape_of(), datetime.now(UTC)) == Unknown(
        "no replica is ready", cause=Cause.NO_SAMPLE
    )
    many = tuple(Replica(f"10.0.{one // 250}.{one % 250}", 80, ready=True) for one in range(MOST_REPLICAS + 1))
    said = source.sample(Subject(REF, replicas=many), scrape_of(), datetime.now(UTC))
    assert said == Unknown(f"{MOST_REPLICAS + 1} replicas are too many to ask each: {MOST_REPLICAS} are")


async def test_a_share_has_no_sum():
    source = Scrape(PATIENT, lambda: datetime.now(UTC))
    metric = scrape_of("kv-cache", target={"type": "Value", "value": "0.8"})
    subject = Subject(REF, replicas=(Replica("10.0.0.1", 80, ready=True),))
    said = source.sample(subject, metric, datetime.now(UTC))
    why = "a share has no sum over the replicas: give an averageValue, such as 0.8"
    assert said == Unknown(why, cause=Cause.INVALID)


async def test_replicas_that_come_and_go_are_followed_without_a_gap():
    async with asked(waiting(3), waiting(5)) as (replicas, source):
        both = replicas.subject()
        first = replace(both, replicas=both.replicas[:1])
        await sampled(source, first, scrape_of(), known)
        assert known(source.sample(both, scrape_of(), datetime.now(UTC)))
        await sampled(source, both, scrape_of(), lambda sample: sample.value.value == 8)
        assert known(source.sample(first, scrape_of(), datetime.now(UTC)))
        await sampled(source, first, scrape_of(), lambda sample: sample.value.value == 3)


async def test_a_change_is_seen_with_the_next_question():
    async with asked(waiting(3)) as (replicas, source):
        await sampled(source, replicas.subject(), scrape_of(), known)
        replicas.servers[0].behaviour = waiting(50)
        await sampled(source, replicas.subject(), scrape_of(), lambda sample: sample.value.value == 50)


async def test_a_replica_that_hangs_is_asked_less_often_than_the_others_and_comes_back():
    async with asked(waiting(3), silent, timing=replace(PATIENT, answer=1.5)) as (replicas, source):
        good, bad = replicas.servers
        await sampled(source, replicas.subject(), scrape_of(), lambda _: len(good.asked) > 20)
        assert len(bad.asked) < len(good.asked) / 2
        bad.behaviour = waiting(5)
        await sampled(source, replicas.subject(), scrape_of(), lambda sample: sample.value.pods == 2)


def closing(number):
    """A server that speaks HTTP/1.0: each answer has a connection of its own."""
    return bytes_of(b"HTTP/1.0 200 .\r\n\r\nvllm:num_requests_waiting %d\n" % number)


async def test_replicas_of_one_namespace_that_keep_silent_take_no_connection_of_another():
    source = Scrape(PATIENT, lambda: datetime.now(UTC), connections=4)
    crowd, other = Replicas(*[silent] * 8), Replicas(closing(3))
    theirs = crowd.subject(ref=ObjectRef("ModelDeployment", "crowd", "chat"))
    async with crowd.listening(), other.listening():
        task = asyncio.create_task(source.run(lambda refs: None))
        source.sample(theirs, scrape_of(), datetime.now(UTC))
        await until(lambda: sum(one.connections for one in crowd.servers) == 2, "it has half of the connections")
        for times in range(1, 6):
            sample = await sampled(
                source, other.subject(), scrape_of(), lambda one, times=times: len(other.servers[0].asked) > times
            )
            assert known(sample)
        assert sum(one.connections for one in crowd.servers) == 2
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_to_wait_for_a_connection_is_no_silence_of_a_replica():
    """The first that is asked keeps the only connection for as long as it may; the other one answers at once."""
    for answer in (1.0, 5.0, 20.0):
        source = Scrape(replace(PATIENT, answer=answer), lambda: datetime.now(UTC), connections=1)
        replicas, outcomes = Replicas(silent, waiting(3)), []

        def look(_, source=source, replicas=replicas, outcomes=outcomes):
            outcomes.append(source.sample(replicas.subject(), scrape_of(), datetime.now(UTC)))

        async with replicas.listening():
            source.sample(replicas.subject(), scrape_of(), datetime.now(UTC))
            task = asyncio.create_task(source.run(look))
            await until(lambda outcomes=outcomes: outcomes, "the first outcome")
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if known(outcomes[0]):
            assert (outcomes[0].value.pods, outcomes[0].value.missing) == (1, Uncounted(pods=1))
            return
    raise AssertionError(outcomes[0])


async def test_where_a_namespace_asks_for_too_many_it_is_told_and_no_replica_is_blamed():
    """Two that keep silent have the only connection one after another, for longer than the third waits for it."""
    source = Scrape(HASTY, lambda: datetime.now(UTC), connections=1)
    crowd, other = Replicas(silent, silent), Replicas(waiting(3))
    theirs = crowd.subject(ref=ObjectRef("ModelDeployment", "default", "crowd"))
    said = []

    def look(refs):
        if REF in refs:
            said.append(source.sample(other.subject(), scrape_of(), datetime.now(UTC)))

    async with crowd.listening(), other.listening():
        for subject in (theirs, other.subject()):
            source.sample(subject, scrape_of(), datetime.now(UTC))
        task = asyncio.create_task(source.run(look))
        await until(lambda: said, "the first outcome")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    words = "no connection was free: too many replicas of this namespace are asked at once"
    assert said[0] == Unknown(f"no replica shows its metrics: {words}")
