"""A Prometheus that answers well, badly, or not at all: what is asked of it, and what becomes of it."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import ssl
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import parse_qs

import pytest
import trustme

from controller.api.resources.configuration import PrometheusConfiguration
from controller.api.resources.metrics import MetricSpec
from controller.api.schema.scalars import number_of
from controller.api.schema.values import parse
from controller.api.timing import REAL, PollTiming
from controller.decision.facts import Cause, Known, Unknown
from controller.decision.signals import compare
from controller.signals.promql import Prometheus, dated
from controller.signals.source import PolledSource, Subject
from controller.store.objects import ObjectRef
from tests.support.answers import Answers, bytes_of, dripping, endless, saying, silent
from tests.support.hpa_cases import wanted
from tests.support.hpa_signals import disagreements
from tests.support.hpa_table import CASES
from tests.support.memory import peak_memory
from tests.support.waiting import until

REF = ObjectRef("ModelDeployment", "default", "chat")
SUBJECT = Subject(REF)
PATIENT = PollTiming(every=0.05, answer=30.0, longest_pause=0.1, old_after=60.0)
HASTY = replace(PATIENT, answer=0.3)


def external(name, **selector):
    target = {"type": "Value", "value": "10"}
    metric = {"name": name, "selector": {"matchLabels": selector}}
    return parse(MetricSpec, {"type": "External", "external": {"metric": metric, "target": target}})


def vector(*numbers, **more):
    result = [{"metric": {"pod": str(place)}, "value": [1, number]} for place, number in enumerate(numbers)]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}, **more})


def prometheus(timing=PATIENT, **configuration):
    return Prometheus(parse(PrometheusConfiguration, configuration), timing, lambda: datetime.now(UTC))


@contextlib.asynccontextmanager
async def asking(timing=PATIENT, **configuration):
    """A source at work; what it told is in `told`."""
    source = prometheus(timing, **configuration)
    task = asyncio.create_task(source.run(lambda refs: None))
    try:
        yield source
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def asked(behaviour, timing=PATIENT, *, path="", scheme="http", tls=None, **configuration):
    """A server that answers so, and a source that asks it."""
    async with Answers(behaviour).listening(tls=tls) as server:
        address = f"{scheme}://127.0.0.1:{server.port}{path}"
        async with asking(timing, address=address, **configuration) as source:
            yield server, source


async def sampled(source, metric, good, subject=SUBJECT):
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


async def why(behaviour, timing=PATIENT, **around):
    async with asked(behaviour, timing, **around) as (_, source):
        return (await sampled(source, external("q"), failed)).why


def bomb():
    return saying(gzip.compress(b" " * 100 * 2**20, 1), 200, "content-encoding: gzip")


async def test_what_is_asked_and_what_is_measured():
    async with asked(saying(vector("2", "3")), path="/prefix/", tenant="team-a") as (server, source):
        assert isinstance(source, PolledSource)
        sample = await sampled(source, external("queue", app="chat", zone="a"), known)
    assert sample.value.value == 5
    head, _, form = server.asked[0].decode().partition("\r\n\r\n")
    assert head.startswith("POST /prefix/api/v1/query HTTP/1.1\r\n")
    assert "x-scope-orgid: team-a" in head.lower()
    assert "authorization" not in head.lower()
    query = dated('queue{app="chat",zone="a"}')
    assert parse_qs(form) == {"query": [query], "timeout": ["30s"], "limit": ["1002"]}


async def test_what_several_models_need_is_asked_once():
    async with asked(saying(vector("2")), replace(PATIENT, every=3600.0)) as (server, source):
        for number in range(100):
            source.sample(
                Subject(ObjectRef("ModelDeployment", "default", str(number))), external("q"), datetime.now(UTC)
            )
        await sampled(source, external("q"), known)
    assert len(server.asked) == 1
    assert server.connections == 1


@pytest.mark.parametrize("case", [one for one in CASES if one.external], ids=lambda case: case.name)
async def test_we_say_of_external_metrics_what_the_autoscaler_says(case):
    """Whoever knows the metric: the table has what an adapter says of it, and a Prometheus has the same series."""
    series = vector(*(str(number_of(one.value)) for one in wanted(case, case.external)))
    subject, ready = Subject(REF, scale=case.declared), 1
    metrics = [parse(MetricSpec, dict(one)) for one in case.metrics]
    async with asked(saying(series)) as (_, source):
        signals = tuple([compare(one, await sampled(source, one, known, subject), ready) for one in metrics])
    assert disagreements(signals, case.says, case.tolerance) == []


async def test_without_a_workload_an_average_is_over_the_ready_replicas():
    average = {"type": "AverageValue", "averageValue": "10"}
    metric = parse(MetricSpec, {"type": "External", "external": {"metric": {"name": "q"}, "target": average}})
    async with asked(saying(vector("40"))) as (_, source):
        of_four, of_nobody = [
            compare(metric, await sampled(source, metric, known, Subject(REF, scale=scale)), 2) for scale in (4, None)
        ]
    assert (of_four.current, of_nobody.current) == ("10", "20")


async def test_a_token_is_read_anew_for_each_query(tmp_path):
    token = tmp_path / "token"
    token.write_text("first\n")
    async with asked(saying(vector("2")), bearerTokenFile=str(token)) as (server, source):
        await sampled(source, external("q"), known)
        token.write_text("second\n")
        source.sample(Subject(REF), external("q"), datetime.now(UTC))
        await until(lambda: b"Bearer second\r\n" in server.asked[-1], "the new token is sent")
        token.unlink()
        gone = await sampled(source, external("other"), failed)
    assert b"Bearer first\r\n" in server.asked[0]
    assert gone.why == "the file of the token (bearerTokenFile) cannot be read"


@pytest.mark.parametrize("text", ["", "two words", "line\nline", "größe"])
async def test_a_file_without_a_token_is_told_and_not_sent(tmp_path, text):
    token = tmp_path / "token"
    token.write_text(text)
    async with asked(saying(vector("2")), bearerTokenFile=str(token)) as (server, source):
        assert "the file of the token" in (await sampled(source, external("q"), failed)).why
    assert server.asked == []


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (301, "the answer is a redirect (301), which is not followed"),
        (401, "the answer is 401: who asks is not known there"),
        (403, "the answer is 403: who asks may not read it"),
        (404, "the answer is 404: nothing is there"),
        (500, "the answer is 500"),
        (503, "the answer is 503"),
    ],
)
async def test_a_status_is_told(status, words):
    assert await why(saying("secret words", status, "location: http://127.0.0.1:1/")) == words


async def test_a_query_that_is_wrong_is_told_in_the_words_of_prometheus():
    said = json.dumps({"status": "error", "errorType": "bad_data", "error": "1:3: parse error: no"})
    assert await why(saying(said, 400)) == "Prometheus says: 1:3: parse error: no"


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "the connection ended before the answer"),
        (b"HTTP/1.1 200 .\r\ncontent-length: 100\r\n\r\n{", "the connection ended within the answer"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "the answer is no HTTP"),
        (b"HTTP/1.1 200 .\r\n" + b"a: b\r\n" * 10**5, "the answer is no HTTP"),
        (b"HTTP/1.1 200 .\r\ncontent-length: 7\r\n\r\n<html/>", "the answer is not as Prometheus answers"),
    ],
)
async def test_what_is_no_answer_is_told(raw, words):
    assert await why(bytes_of(raw)) == words


async def test_an_answer_of_a_hundred_megabytes_is_read_to_four():
    assert await why(saying(b"x" * 100 * 2**20)) == "the answer is longer than 4 MiB"


async def test_an_answer_without_an_end_is_read_to_four_megabytes():
    assert await why(endless(b" " * 2**16)) == "the answer is longer than 4 MiB"


async def test_what_is_packed_is_not_unpacked():
    assert await why(bomb()) == "the answer is compressed, which nobody asked for"


@pytest.mark.parametrize("behaviour", [endless(b" " * 2**16), bomb()])
async def test_what_is_kept_of_an_answer_is_what_may_be_read_of_it(behaviour):
    with peak_memory() as peak:
        assert await why(behaviour)
    assert peak.bytes < 3 * 4 * 2**20


async def test_silence_is_told():
    assert await why(silent, HASTY) == "no answer within 0 s"


async def test_an_answer_that_drips_is_told():
    assert await why(dripping(b" "), HASTY) == "no answer within 0 s"


async def test_nobody_is_there():
    server = Answers(silent)
    async with asking(address=f"127.0.0.1:{server.port}") as source:
        assert (await sampled(source, external("q"), failed)).why == "Connection refused"


async def test_a_certificate_that_nobody_knows_is_told_and_one_of_an_authority_is_good(tmp_path):
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    said = await why(saying(vector("1")), scheme="https", tls=context)
    assert said.startswith("its certificate is not trusted: ")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    ca = str(tmp_path / "ca.pem")
    async with asked(saying(vector("1")), scheme="https", tls=context, caFile=ca) as (_, source):
        assert (await sampled(source, external("q"), known)).value.value == 1


async def test_a_cookie_is_not_sent_back():
    async with asked(saying(vector("1"), 200, "set-cookie: a=b; path=/")) as (server, source):
        await sampled(source, external("q"), known)
        source.sample(Subject(REF), external("q"), datetime.now(UTC))
        await until(lambda: len(server.asked) > 2, "it is asked again")
    assert not any(b"cookie" in one.lower() for one in server.asked)


async def test_a_failure_keeps_the_last_number_until_it_is_old_and_ends_by_itself():
    async with asked(saying(vector("1")), replace(PATIENT, old_after=0.5)) as (server, source):
        await sampled(source, external("q"), known)
        server.behaviour = saying("", 500)
        assert (await sampled(source, external("q"), failed)).why == "the answer is 500"
        server.behaviour = saying(vector("7"))
        assert (await sampled(source, external("q"), known)).value.value == 7


async def test_a_query_that_cannot_be_asked_is_told_at_once():
    source = prometheus(REAL.signals.prometheus, address="127.0.0.1:1")
    said = source.sample(Subject(REF), external("sum(q)", app="chat"), datetime.now(UTC))
    why = "a selector goes with the name of a metric: an expression has its own"
    assert said == Unknown(why, cause=Cause.INVALID)


async def test_it_is_asked_again_by_who_leads_again():
    async with Answers(saying(vector("1"))).listening() as server:
        source = prometheus(address=f"127.0.0.1:{server.port}")
        for _ in range(2):
            server.asked.clear()
            task = asyncio.create_task(source.run(lambda refs: None))
            await sampled(source, external("q"), lambda sample: known(sample) and server.asked)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_authorities_that_are_replaced_are_trusted_without_a_restart(tmp_path):
    """As a certificate of a cluster is renewed, with its authority: the file is replaced in place."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    file = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(file)
    metric = external("queue")
    async with asked(saying(vector("1")), scheme="https", tls=context, caFile=str(file)) as (_, source):
        refused = await sampled(source, metric, lambda one: isinstance(one, Unknown) and not one.pending)
        assert "its certificate is not trusted" in refused.why
        file.write_text("is being written")
        authority.cert_pem.write_to_path(tmp_path / "new.pem")
        (tmp_path / "new.pem").replace(file)
        assert isinstance(await sampled(source, metric, lambda one: isinstance(one, Known)), Known)


@pytest.mark.parametrize(("number", "state"), [("3", "Unknown"), ("12", "Breached")])
async def test_a_sum_that_lacks_a_part_is_the_least_there_is(number, state):
    """One of two stores is away: below the target nothing returns for what the other one has."""
    metric = external("sum(queue)")
    async with asked(saying(vector(number, warnings=["store-1: connection refused"]))) as (_, source):
        sample = await sampled(source, metric, lambda one: isinstance(one, Known))
    signal = compare(metric, sample, 1)
    assert (signal.state, signal.at_least) == (state, True)
    assert "the answer lacks a part: store-1: connection refused" in (signal.message or "")
