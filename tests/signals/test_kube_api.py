"""An API server that answers badly or not at all: what is asked of it is bounded, and what becomes of it is told."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from controller.api.resources.metrics import MetricSpec
from controller.api.schema.values import parse
from controller.api.timing import PollTiming, SignalTiming
from controller.decision import Cause, Known, Sample, Unknown
from controller.signals.kube_sources import kube_sources
from controller.signals.pod_lists import MOST_BYTES_OF_PODS
from controller.signals.poller import NOT_ASKED_YET
from controller.signals.source import PolledSource
from controller.store.kube import KubeClient
from tests.support.answers import Answers, Behaviour, bytes_of, dripping, endless, saying, silent
from tests.support.memory import peak_memory
from tests.support.metrics_api import CHAT, items, usage_of
from tests.support.waiting import until

PATIENT = PollTiming(every=0.05, answer=30.0, longest_pause=0.1)
HASTY = replace(PATIENT, answer=0.3)
CPU = parse(
    MetricSpec,
    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "AverageValue", "averageValue": "1"}}},
)
MIB = 2**20


def bomb() -> Behaviour:
    """Answer with a hundred megabytes, packed to one of a hundred kilobytes."""
    return saying(gzip.compress(b" " * (100 * MIB), 1), 200, "content-encoding: gzip")


def kubeconfig(folder: Path, port: int) -> Path:
    file = folder / "kubeconfig"
    cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    user = {"name": "u", "user": {"token": "t"}}
    document = {"current-context": "c", "clusters": [cluster], "contexts": [context], "users": [user]}
    file.write_text(json.dumps(document))
    return file


@contextlib.asynccontextmanager
async def measuring(folder: Path, behaviour: Behaviour, timing: PollTiming) -> AsyncIterator[PolledSource]:
    """What measures CPU, of an API server that answers everything so."""
    async with (
        Answers(behaviour).listening() as server,
        KubeClient.from_environment(kubeconfig(folder, server.port)) as client,
    ):
        source = kube_sources(client, SignalTiming(kubernetes=timing, pods=timing), lambda: datetime.now(UTC))[CPU.type]
        assert isinstance(source, PolledSource)
        task = asyncio.create_task(source.run(lambda _: None))
        try:
            yield source
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def sampled(source: PolledSource) -> Sample:
    """Return the sample as soon as there is one, or a reason why there is none."""

    def look() -> Sample:
        return source.sample(CHAT, CPU, datetime.now(UTC))

    await until(lambda: look() != NOT_ASKED_YET, "it is asked for")
    return look()


@pytest.mark.parametrize(
    ("behaviour", "timing", "words"),
    [
        (lambda: endless(b" " * 65536), PATIENT, "metrics.k8s.io cannot be used: the answer is larger than 4 MiB"),
        (lambda: saying(" " * (17 * MIB)), PATIENT, "metrics.k8s.io cannot be used: the answer is larger than 4 MiB"),
        (bomb, PATIENT, "metrics.k8s.io cannot be used: the answer is larger than 4 MiB"),
        (lambda: silent, HASTY, "no answer within"),
        (lambda: dripping(b" "), HASTY, "no answer within"),
        (lambda: bytes_of(b"HTTP/1.1 200 .\r\ncontent-length: 9\r\n\r\n{"), PATIENT, "the API server does not answer"),
        (lambda: bytes_of(b"\x00" * 1000), PATIENT, "the API server does not answer"),
        (lambda: saying("<html>Welcome</html>"), PATIENT, "metrics.k8s.io cannot be used: the answer is no JSON"),
        (lambda: saying("[" * 100_000), PATIENT, "metrics.k8s.io cannot be used: the answer is no JSON"),
        (lambda: saying("[]"), PATIENT, "metrics.k8s.io cannot be used: the answer is no object"),
        (lambda: saying(json.dumps(items(*[{}] * 100_000))), PATIENT, "the answer has more than 5000 items"),
        (lambda: saying("{}"), PATIENT, "no pod has the labels of its selector"),
        (
            lambda: saying('{"items": [{"metadata": {"name": NaN}}]}'),
            PATIENT,
            "is not what it should be: items[0].metadata.name",
        ),
        (lambda: saying("<html>Oh no</html>", 500), PATIENT, "metrics.k8s.io failed (HTTP 500): HTTP 500"),
        (lambda: saying("x" * MIB, 503), PATIENT, "metrics.k8s.io does not answer (HTTP 503)"),
        (
            lambda: saying("moved", 302, "location: http://127.0.0.1:1/"),
            PATIENT,
            "metrics.k8s.io cannot be used: the answer is a redirect (302), which is not followed",
        ),
    ],
)
async def test_an_answer_that_cannot_be_used_is_unknown(
    behaviour: Callable[[], Behaviour], timing: PollTiming, words: str, tmp_path: Path
) -> None:
    async with measuring(tmp_path, behaviour(), timing) as source:
        sample = await sampled(source)
        assert isinstance(sample, Unknown)
        assert words in sample.why
        assert len(sample.why) < 400


@pytest.mark.parametrize("behaviour", [lambda: endless(b" " * 65536), bomb])
async def test_what_is_kept_of_an_answer_is_what_may_be_read_of_it(
    behaviour: Callable[[], Behaviour], tmp_path: Path
) -> None:
    answer = behaviour()
    with peak_memory() as peak:
        async with measuring(tmp_path, answer, PATIENT) as source:
            assert isinstance(await sampled(source), Unknown)
    # Two are on their way, for the pods and for what they use; of each there is one copy, and for a moment another.
    assert MOST_BYTES_OF_PODS < peak.bytes < 3.5 * MOST_BYTES_OF_PODS


@pytest.mark.parametrize(
    ("brackets", "of_metrics", "most"),
    [
        # As above, but that the server has all of it to send, too: a list of pods would take 25 times as much.
        (5 * MIB, "the answer is larger than 4 MiB", 6 * MOST_BYTES_OF_PODS),
        # As a list of pods that is not much, and is unpacked.
        (600_000, "the answer has more values than its size admits", 16 * MOST_BYTES_OF_PODS),
    ],
)
async def test_an_answer_of_little_but_brackets_is_not_unpacked(
    brackets: int, of_metrics: str, most: int, tmp_path: Path
) -> None:
    answer = saying(b'{"items": [' + b"{}," * brackets + b"{}]}")
    with peak_memory() as peak:
        async with measuring(tmp_path, answer, PATIENT) as source:
            why = f"metrics.k8s.io cannot be used: {of_metrics}"
            assert await sampled(source) == Unknown(why, cause=Cause.NOT_USABLE)
    assert peak.bytes < most


async def test_what_pods_are_written_with_is_unpacked_whatever_size_they_have(tmp_path: Path) -> None:
    pod = {
        "metadata": {"name": "a", "managedFields": [{"fieldsV1": {f"f:{name}": {} for name in range(100, 140)}}]},
        "spec": {"containers": [{"name": "server", "env": [{"name": "A", "value": "b" * 20}] * 20}]},
    }
    many = json.dumps(items(*[pod] * 100), separators=(",", ":"))
    async with (
        Answers(saying(many)).listening() as server,
        KubeClient.from_environment(kubeconfig(tmp_path, server.port)) as client,
    ):
        assert await client.fetch("/", {}, most=len(many)) == json.loads(many)


async def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    async with Answers(saying("{}")).listening() as elsewhere:
        moved = saying("", 307, f"location: http://127.0.0.1:{elsewhere.port}/")
        async with measuring(tmp_path, moved, PATIENT) as source:
            why = "metrics.k8s.io cannot be used: the answer is a redirect (307), which is not followed"
            assert await sampled(source) == Unknown(why, cause=Cause.NOT_USABLE)
    assert elsewhere.connections == 0


async def test_a_refusal_without_an_end_is_read_as_far_as_anybody_reads_it(tmp_path: Path) -> None:
    async def refuse(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 500 .\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n%b\r\n" % (b"x" * 65536))
            await writer.drain()

    async with measuring(tmp_path, refuse, PATIENT) as source:
        assert await sampled(source) == Unknown("metrics.k8s.io failed (HTTP 500): HTTP 500", cause=Cause.NOT_ANSWERING)


async def test_one_that_recovers_is_believed_again(tmp_path: Path) -> None:
    pod = {"metadata": {"name": "a"}, "status": {"phase": "Running"}}
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2025-01-01T00:00:00Z"}
    pod["status"] |= {"startTime": "2025-01-01T00:00:00Z", "conditions": [ready]}
    # The same object is an answer to both questions.
    both = {**usage_of("a", datetime.now(UTC).isoformat(), server="250m"), **pod}
    answers = [saying("no"), saying(json.dumps(items(both)))]

    async def behave(writer: asyncio.StreamWriter) -> None:
        await answers[0](writer)

    async with measuring(tmp_path, behave, PATIENT) as source:
        assert isinstance(await sampled(source), Unknown)
        answers.pop(0)
        await until(lambda: isinstance(source.sample(CHAT, CPU, datetime.now(UTC)), Known), "it is measured")
