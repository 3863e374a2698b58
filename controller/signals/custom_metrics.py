"""The metrics `Pods` and `Object`, from `custom.metrics.k8s.io`, and `External`, from `external.metrics.k8s.io`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple
from urllib.parse import quote

from controller.api.kubernetes.metrics import (
    ApiGroup,
    ApiResourceList,
    ExternalMetricValue,
    MetricValue,
)
from controller.api.kubernetes.selectors import query_of
from controller.api.resources.metrics import (
    ExternalMetric,
    LabelSelector,
    MetricByName,
    MetricSpec,
    ObjectMetric,
    PodsMetric,
)
from controller.api.timing import SignalTiming
from controller.decision.facts import Cause, Known, Measurement, Sample, Unknown, WindowFrom
from controller.signals.kube_api import ApiReader, Question, ask, ask_for_items, moment_of, window_of
from controller.signals.kube_metrics import NO_SELECTOR, Moments, measure_fresh
from controller.signals.pod_lists import PodLists
from controller.signals.pods import NoAmountError, PodSample, What, amount_of
from controller.signals.poller import Poller, SourceError, Tell
from controller.signals.source import ASSUMED, Subject

Clock = Callable[[], datetime]

_CUSTOM = "custom.metrics.k8s.io"
_EXTERNAL = "external.metrics.k8s.io"
# The versions that are understood, the better one first.
_VERSIONS = {_CUSTOM: ("v1beta2", "v1beta1"), _EXTERNAL: ("v1beta1",)}
_NO_SHARE = "is no share of what pods request: it stays unknown with type Utilization"
_MOST_SERIES = 10_000
_MOST_SERVED = 2**20  # Bytes of an answer that says what an API serves: two thousand kinds and more.


class MetricQuery(NamedTuple):
    """A metric of some objects: in a namespace, of all pods with some labels, of one object, or (External) of nothing.

    `labels` say which series count.
    """

    namespace: str
    metric: str
    labels: str
    pods: str = ""
    api_version: str = ""
    kind: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class SeriesOf:
    """One value of a metric, and the name of what it was measured of."""

    name: str
    sample: PodSample


@dataclass(slots=True)
class _Found:
    """Something of the API that was looked up, and until when it is taken for the same."""

    what: str
    until: datetime


class Discovery:
    """Looks up which version of a metrics API is served, and what kinds are called in paths; remembers it for a while.

    Every authenticated user may (the role `system:discovery`).
    """

    def __init__(self, reader: ApiReader, seconds: float, clock: Clock) -> None:
        self._reader = reader
        self._lasts = timedelta(seconds=seconds)
        self._clock = clock
        self._found: dict[tuple[str, str], _Found] = {}

    async def version(self, group: str) -> str:
        """Return the version of a metrics API to use. Raises SourceError."""
        if known := self._known(group, ""):
            return known
        adapter = "an adapter of metrics, such as prometheus-adapter or KEDA"
        absent = f"{group} is not served: install {adapter}"
        question = Question(group, f"/apis/{group}", f"get /apis/{group}", absent, most=_MOST_SERVED)
        found = await ask(self._reader, question, ApiGroup)
        served = {one.group_version.rpartition("/")[2] for one in found.versions}
        for version in _VERSIONS[group]:
            if version in served:
                return self._keep(group, "", version)
        versions = ", ".join(_VERSIONS[group])
        raise SourceError(f"{group} is served in none of the versions {versions}", Cause.NO_SOURCE)

    async def resource(self, api_version: str, kind: str) -> str:
        """Return what a kind is called in paths: `services`, `deployments.apps`. Raises SourceError."""
        written = api_version or "v1"
        if known := self._known(written, kind):
            return known
        path = f"/apis/{_in_path(written, slashes='/')}" if "/" in written else f"/api/{_in_path(written)}"
        absent = f"describedObject: {written} is not served"
        question = Question("the API server", path, f"get {path}", absent, most=_MOST_SERVED)
        found = await ask(self._reader, question, ApiResourceList)
        group = written.rpartition("/")[0]
        for one in found.resources:
            if one.kind == kind and "/" not in one.name:
                return self._keep(written, kind, f"{one.name}.{group}" if group else one.name)
        raise SourceError(f"describedObject: {written} has no kind {kind}", Cause.INVALID)

    def _known(self, *key: str) -> str | None:
        found = self._found.get((key[0], key[1]))
        return found.what if found and self._clock() < found.until else None

    def _keep(self, first: str, second: str, what: str) -> str:
        if len(self._found) >= _MOST_SERIES:
            self._found.clear()
        self._found[first, second] = _Found(what, self._clock() + self._lasts)
        return what


class CustomMetrics:
    """Measures the metrics `Pods` and `Object`."""

    def __init__(self, reader: ApiReader, pods: PodLists, timing: SignalTiming, clock: Clock) -> None:
        self._reader = reader
        self._pods = pods
        self._clock = clock
        self._old_after = timedelta(seconds=timing.sample_old_after)
        self._discovery = Discovery(reader, timing.discovery, clock)
        self._poller = Poller(self._list, timing.kubernetes, clock, share_of=_namespace_of)

    def sample(self, subject: Subject, metric: MetricSpec, now: datetime) -> Sample:
        """See `MetricSource`."""
        if fault := fault_of(metric):
            return Unknown(fault, cause=Cause.INVALID)
        moments = Moments(now, self._old_after)
        match metric.source:
            case PodsMetric() as source:
                return self._of_pods(subject, source, moments)
            case ObjectMetric() as source:
                return self._of_object(subject, source, moments)
        return Unknown("this is no custom metric")

    async def run(self, tell: Tell) -> None:
        """See `PolledSource`. The pods are asked for by whoever has them."""
        await self._poller.run(tell)

    def _of_pods(self, subject: Subject, source: PodsMetric, moments: Moments) -> Sample:
        if not subject.selector:
            return NO_SELECTOR
        pods = self._pods.look(subject, moments.now)
        query = MetricQuery(subject.namespace, source.metric.name, labels_of(source.metric.selector), subject.selector)
        answer = self._poller.look(query, subject.ref, moments.now)
        if isinstance(answer, Unknown):
            return answer
        if isinstance(pods, Unknown):
            return pods
        samples = {one.name: one.sample for one in answer.value}
        return _with_window(measure_fresh(pods.value, samples, What(), moments))

    def _of_object(self, subject: Subject, source: ObjectMetric, moments: Moments) -> Sample:
        described = source.described_object
        query = MetricQuery(
            # The autoscaler, too, looks in its own namespace only.
            subject.ref.namespace,
            source.metric.name,
            labels_of(source.metric.selector),
            api_version=described.api_version,
            kind=described.kind,
            name=described.name,
        )
        answer = self._poller.look(query, subject.ref, moments.now)
        if isinstance(answer, Unknown):
            return answer
        if len(answer.value) != 1:
            why = f"{_CUSTOM} gave {len(answer.value)} values where there should be one"
            return Unknown(why, cause=Cause.NOT_USABLE)
        return measure_whole(answer.value, subject, moments)

    async def _list(self, query: MetricQuery) -> tuple[SeriesOf, ...]:
        version = await self._discovery.version(_CUSTOM)
        of, asked = f"namespaces/{query.namespace}", _selecting("metricLabelSelector", query.labels)
        if query.pods:
            asked, of, resource = {**asked, "labelSelector": query.pods}, f"{of}/pods/*", "pods"
        elif query.kind == "Namespace" and query.api_version in ("", "v1"):
            # Whatever name is given: it is the namespace of the object itself.
            of, resource = f"{of}/metrics", "namespaces"
        else:
            resource = await self._discovery.resource(query.api_version, query.kind)
            of = f"{of}/{resource}/{_in_path(query.name)}"
        question = Question(
            _CUSTOM,
            f"/apis/{_CUSTOM}/{version}/{of}/{_in_path(query.metric)}",
            f"get {resource}/{query.metric} of {_CUSTOM} in namespace {query.namespace}",
            query=asked,
        )
        found = await ask_for_items(self._reader, question, MetricValue)
        if not found:
            raise SourceError(f"{_CUSTOM} has no value of this metric", Cause.NO_SUCH_METRIC)
        now = self._clock()
        return tuple(_series_of(one, now) for one in found)


class ExternalMetrics:
    """Measures the metric `External`."""

    def __init__(self, reader: ApiReader, timing: SignalTiming, clock: Clock) -> None:
        self._reader = reader
        self._clock = clock
        self._old_after = timedelta(seconds=timing.sample_old_after)
        self._discovery = Discovery(reader, timing.discovery, clock)
        self._poller = Poller(self._list, timing.kubernetes, clock, share_of=_namespace_of)

    def sample(self, subject: Subject, metric: MetricSpec, now: datetime) -> Sample:
        """See `MetricSource`."""
        if fault := fault_of(metric):
            return Unknown(fault, cause=Cause.INVALID)
        if not isinstance(metric.source, ExternalMetric):
            return Unknown("this is no external metric")
        asked = metric.source.metric
        query = MetricQuery(subject.ref.namespace, asked.name, labels_of(asked.selector))
        answer = self._poller.look(query, subject.ref, now)
        if isinstance(answer, Unknown):
            return answer
        return measure_whole(answer.value, subject, Moments(now, self._old_after))

    async def run(self, tell: Tell) -> None:
        """See `PolledSource`."""
        await self._poller.run(tell)

    async def _list(self, query: MetricQuery) -> tuple[SeriesOf, ...]:
        version = await self._discovery.version(_EXTERNAL)
        question = Question(
            _EXTERNAL,
            f"/apis/{_EXTERNAL}/{version}/namespaces/{query.namespace}/{_in_path(query.metric)}",
            f"list {query.metric}.{_EXTERNAL} in namespace {query.namespace}",
            query=_selecting("labelSelector", query.labels),
        )
        found = await ask_for_items(self._reader, question, ExternalMetricValue)
        if not found:
            raise SourceError(f"{_EXTERNAL} has no series of this metric", Cause.NO_SUCH_METRIC)
        now = self._clock()
        return tuple(
            SeriesOf("", PodSample(_amount(_EXTERNAL, one.value), moment_of(one.timestamp, now), window_of(one.window)))
            for one in found
        )


def measure_whole(series: tuple[SeriesOf, ...], subject: Subject, moments: Moments) -> Sample:
    """Add up the series of a metric that is of no single pod; an average of it is one over the replicas.

    As the autoscaler has it, those are all that the workload says it has. Where that is not known, they are those that
    are ready.
    """
    samples = [one.sample for one in series]
    oldest = min(one.at for one in samples)
    if moments.now - oldest > moments.old_after:
        return Unknown(f"nothing newer than {oldest:%Y-%m-%dT%H:%M:%SZ} was measured", cause=Cause.NO_SAMPLE)
    value = sum((one.value for one in samples), Decimal(0))
    window = max(one.window for one in samples)
    return _with_window(Known(Measurement(value, pods=subject.scale, window=window), oldest))


def _with_window(sample: Sample) -> Sample:
    """Assume a window of what comes without one."""
    if isinstance(sample, Unknown) or sample.value.window:
        return sample
    return Known(replace(sample.value, window=ASSUMED, window_from=WindowFrom.ASSUMED), sample.at)


def fault_of(metric: MetricSpec) -> str:
    """Say why a metric that is found by its name can never be measured; empty if it can."""
    name = metric.source.metric.name if isinstance(metric.source, MetricByName) else ""
    if metric.target.type == "Utilization":
        return f"the metric {_NO_SHARE}"
    # As IsValidPathSegmentName of Kubernetes has it.
    if name in ("", ".", "..") or "/" in name or "%" in name:
        return "the name of the metric cannot stand in a path of the Kubernetes API: it has a / or a %, or is a dot"
    return ""


def labels_of(selector: LabelSelector | None) -> str:
    """Write which series count as a query of the API server has it. Labels one level too high count, too."""
    if selector is None:
        return ""
    misplaced = {name: value for name, value in selector.misplaced.items() if isinstance(value, str)}
    expressions = ((one.key, one.operator, one.values) for one in selector.match_expressions)
    # Labels stay `key=value`, as the autoscaler writes them: some adapters read nothing else.
    return query_of({**misplaced, **selector.match_labels}, expressions)


def _selecting(parameter: str, labels: str) -> dict[str, str]:
    return {parameter: labels} if labels else {}


def _series_of(value: MetricValue, now: datetime) -> SeriesOf:
    sample = PodSample(_amount(_CUSTOM, value.value), moment_of(value.timestamp, now), window_of(value.window_seconds))
    return SeriesOf(value.described_object.name, sample)


def _amount(group: str, quantity: str | int | float) -> Decimal:
    try:
        return amount_of(quantity)
    except NoAmountError as error:
        raise SourceError(f"{group} gave a value that cannot be: {error}") from error


def _in_path(name: str, slashes: str = "") -> str:
    """Write a name as a part of a path; one that would lead out of it is refused."""
    if any(part in ("", ".", "..") for part in name.split("/")) or "%" in name or ("/" in name and not slashes):
        raise SourceError(f"{name[:100]!r} cannot stand in a path of the Kubernetes API", Cause.INVALID)
    return quote(name, safe=slashes)


def _namespace_of(query: MetricQuery) -> str:
    return query.namespace
