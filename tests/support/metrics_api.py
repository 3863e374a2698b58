"""The metrics APIs of an API server that has what a test says, and nobody on the network."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from controller.api.resources.metrics import MetricSpec
from controller.api.schema.values import parse
from controller.api.timing import PollTiming, SignalTiming
from controller.decision import Sample, Unknown
from controller.signals.kube_api import ApiReader
from controller.signals.kube_sources import kube_sources
from controller.signals.poller import NOT_ASKED_YET
from controller.signals.source import MetricSource, PolledSource, Sampler, Subject
from controller.store.kube.answers import UnusableAnswerError
from controller.store.objects import ObjectRef
from controller.store.protocol import NotFoundError, StoreError
from tests.support.clock import Clock
from tests.support.waiting import until

NAMESPACE = "default"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
USED = f"/apis/metrics.k8s.io/v1beta1/namespaces/{NAMESPACE}/pods"
CUSTOM = "/apis/custom.metrics.k8s.io"
EXTERNAL = "/apis/external.metrics.k8s.io"
CHAT = Subject(ObjectRef("ModelDeployment", NAMESPACE, "chat"), NAMESPACE, "app=chat")
OFTEN = PollTiming(every=1.0, least_pause=0.001)


@dataclass
class Api:
    """What is answered by path; `asked` is each path with its query."""

    answers: dict[str, Mapping[str, Any] | StoreError] = field(default_factory=dict)
    asked: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)

    async def fetch(self, path: str, query: Mapping[str, str], most: int | None = None) -> dict[str, Any]:
        assert most, "whatever is answered is bounded"
        self.asked.append((path, query))
        answer = self.answers.get(path, NotFoundError(f"GET {path}: HTTP 404"))
        if isinstance(answer, StoreError):
            raise answer
        if len(json.dumps(answer)) > most:
            raise UnusableAnswerError(f"GET {path}: the answer is larger than {most // 2**20} MiB")
        return dict(answer)

    def count(self, path: str) -> int:
        """How often a path was asked for."""
        return sum(one == path for one, _ in self.asked)


class Measuring:
    """The sources of a cluster, at work."""

    def __init__(
        self, api: ApiReader, clock: Callable[[], datetime], more: Mapping[str, MetricSource] | None = None
    ) -> None:
        self.clock = clock
        timing = SignalTiming(kubernetes=OFTEN, pods=OFTEN)
        self.sampler = Sampler({**kube_sources(api, timing, self.clock), **(more or {})})
        self.tasks = [asyncio.create_task(self._run(one)) for one in self.sampler.polled]

    @staticmethod
    async def _run(source: PolledSource) -> None:
        await source.run(lambda _: None)

    @property
    def are_running(self) -> bool:
        """Whether every source is still at work."""
        return bool(self.tasks) and not any(one.done() for one in self.tasks)

    def look(self, metric: Mapping[str, Any], subject: Subject = CHAT) -> Sample:
        """Return the sample of a metric as it is now."""
        ((_, sample),) = self.sampler.samples(subject, (parse(MetricSpec, metric),), self.clock())
        return sample

    async def sample(self, metric: Mapping[str, Any], subject: Subject = CHAT) -> Sample:
        """Return the sample of a metric as soon as it was asked for."""
        await until(lambda: self.look(metric, subject) != NOT_ASKED_YET, "it is asked for")
        return self.look(metric, subject)

    async def why(self, metric: Mapping[str, Any], subject: Subject = CHAT) -> str:
        """Return why a metric is unknown."""
        sample = await self.sample(metric, subject)
        assert isinstance(sample, Unknown), sample
        return sample.why


@contextlib.asynccontextmanager
async def measuring(
    api: ApiReader, clock: Callable[[], datetime] | None = None, more: Mapping[str, MetricSource] | None = None
) -> AsyncIterator[Measuring]:
    """Let the sources ask for what is looked at, until the end of the block; `more` are others, by type."""
    sources = Measuring(api, clock or Clock(), more)
    try:
        yield sources
    finally:
        for task in sources.tasks:
            task.cancel()
        await asyncio.gather(*sources.tasks, return_exceptions=True)


def a_running_pod(name: str, cpu: str = "1") -> dict[str, Any]:
    """A pod that has been ready for long."""
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2025-12-31T00:00:00Z"}
    return {
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "server", "resources": {"requests": {"cpu": cpu}}}]},
        "status": {"phase": "Running", "conditions": [ready], "startTime": "2025-12-31T00:00:00Z"},
    }


def usage_of(name: str, timestamp: str = "2026-01-01T00:00:00Z", **containers: str) -> dict[str, Any]:
    """What the containers of a pod used of the CPU."""
    return {
        "metadata": {"name": name},
        "timestamp": timestamp,
        "window": "10.5s",
        "containers": [{"name": one, "usage": {"cpu": cpu}} for one, cpu in containers.items()],
    }


def items(*found: Mapping[str, Any]) -> dict[str, Any]:
    """A list of the API."""
    return {"items": list(found)}
