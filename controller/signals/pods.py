"""Grouping the samples of pods as the HorizontalPodAutoscaler does. Pure.

The rules are those of its replica calculator (`pkg/controller/podautoscaler/replica_calculator.go` of Kubernetes 1.37):
which pods count, which are missing, which say nothing of their work yet, and what they request together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, Decimal

from controller.api.kubernetes.pods import PodContainer, PodObject, SpecOfPod
from controller.api.schema.scalars import number_of
from controller.decision.facts import Cause, Known, Measurement, Sample, Uncounted, Unknown

CPU = "cpu"

# So long after its start a pod works for other reasons than requests, and a sample counts only if all of it is of the
# time in which the pod was ready (`--horizontal-pod-autoscaler-cpu-initialization-period`).
_INITIALIZATION = timedelta(minutes=5)
# A pod that is not ready, and was last ready no later than so long after its start, never was
# (`--horizontal-pod-autoscaler-initial-readiness-delay`).
_INITIAL_READINESS = timedelta(seconds=30)

# What a pod as a whole may request (KEP-2837).
_OF_PODS = ("cpu", "memory")
_HUGE_PAGES = "hugepages-"

# A Quantity holds no larger number, and the least that the autoscaler counts is a thousandth.
_LARGEST = Decimal(2**63 - 1)
_MILLI = Decimal("0.001")
_LONGEST_QUANTITY = 64
_MOST_EXPONENT = 3

_FIRST_YEAR, _LAST_YEAR = 1970, 9000

Requests = Mapping[str, Decimal]


class NoAmountError(ValueError):
    """A quantity that is none, or larger than one can be."""


def amount_of(quantity: str | int | float) -> Decimal:
    """Read a quantity as the autoscaler does: in thousandths, rounded up. Raises NoAmountError."""
    text = str(quantity)
    exponent = text.lower().rpartition("e")[2].lstrip("+-") if "e" in text.lower()[:-1] else ""
    if len(text) > _LONGEST_QUANTITY or len(exponent.lstrip("0")) > _MOST_EXPONENT:
        raise NoAmountError(f"{text[:_LONGEST_QUANTITY]} is larger than a quantity can be")
    try:
        number = number_of(quantity)
    except (ArithmeticError, ValueError, AssertionError):
        raise NoAmountError(f"{text[:_LONGEST_QUANTITY]} is no quantity") from None
    if abs(number) > _LARGEST:
        raise NoAmountError(f"{text} is larger than a quantity can be")
    return number.quantize(_MILLI, ROUND_CEILING)


@dataclass(frozen=True, slots=True)
class Readiness:
    """What the condition Ready of a pod says, and since when."""

    is_false: bool
    since: datetime | None


@dataclass(frozen=True, slots=True)
class MeasuredPod:
    """A pod as the autoscaler sees it.

    `containers` are those that run as long as the pod, with what each requests. `whole` is what the pod requests as a
    whole, if it says that.
    """

    name: str
    phase: str = "Running"
    leaves: bool = False
    readiness: Readiness | None = None
    started: datetime | None = None
    containers: tuple[tuple[str, Requests], ...] = ()
    whole: Requests | None = None

    @property
    def is_ignored(self) -> bool:
        """Whether it counts for nothing."""
        return self.leaves or self.phase == "Failed"


@dataclass(frozen=True, slots=True)
class PodSample:
    """What was measured of one pod, as an average over `window` until `at`."""

    value: Decimal
    at: datetime
    window: timedelta = timedelta(0)


def pod_of(pod: PodObject) -> MeasuredPod:
    """Read a pod. Raises NoAmountError."""
    ready = next((one for one in pod.status.conditions if one.type == "Ready"), None)
    sidecars = tuple(one for one in pod.spec.init_containers if one.is_sidecar)
    return MeasuredPod(
        name=pod.metadata.name,
        phase=pod.status.phase,
        leaves=pod.metadata.deletion_timestamp is not None,
        readiness=Readiness(ready.status == "False", _moment(ready.last_transition_time)) if ready else None,
        started=_moment(pod.status.start_time),
        containers=tuple((one.name, _requests(one)) for one in (*pod.spec.containers, *sidecars)),
        whole=_whole(pod.spec),
    )


def _moment(at: datetime | None) -> datetime | None:
    """Take a moment that no calendar goes far beyond for none, as the zero time of Go."""
    return at if at and _FIRST_YEAR <= at.year <= _LAST_YEAR else None


@dataclass(frozen=True, slots=True)
class What:
    """What is measured of pods: a resource, of one container or (empty) of all; without a resource, another metric.

    `of_requests` says that it is compared with what the pods request.
    """

    resource: str = ""
    container: str = ""
    of_requests: bool = False


@dataclass(slots=True)
class _Groups:
    """The names of pods, by what their samples are good for."""

    missing: list[str] = field(default_factory=list)
    unready: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def measure(pods: Sequence[MeasuredPod], samples: Mapping[str, PodSample], what: What, now: datetime) -> Sample:
    """Add up the samples of the pods that count; say how many have none, or one that says nothing yet.

    `samples` are by the names of pods; those that are too old are not among them.
    """
    if not pods:
        return Unknown("no pod has the labels of its selector", cause=Cause.NO_SAMPLE)
    groups = _group(pods, samples, what, now)
    counted = {name: one for name, one in samples.items() if name not in {*groups.ignored, *groups.unready}}
    requests: Mapping[str, Decimal] = {}
    if what.of_requests:
        try:
            requests = {pod.name: _request(pod, what) for pod in pods}
        except _NoRequestError as error:
            return Unknown(str(error), cause=Cause.INVALID)
        # A sample of a pod that is not there has nothing to be compared with.
        counted = {name: one for name, one in counted.items() if name in requests}
    if not counted:
        return Unknown(_none_counts(groups), cause=Cause.NO_SAMPLE)
    measurement = Measurement(
        value=sum((one.value for one in counted.values()), Decimal(0)),
        pods=len(counted),
        requests=_sum_of(requests, counted) if what.of_requests else None,
        window=max(one.window for one in counted.values()),
        missing=Uncounted(len(groups.missing), _sum_of(requests, groups.missing)),
        unready=Uncounted(len(groups.unready), _sum_of(requests, groups.unready)),
    )
    return Known(measurement, min(one.at for one in counted.values()))


def _group(pods: Iterable[MeasuredPod], samples: Mapping[str, PodSample], what: What, now: datetime) -> _Groups:
    groups = _Groups()
    for pod in pods:
        if pod.is_ignored:
            groups.ignored.append(pod.name)
        elif pod.phase == "Pending":
            groups.unready.append(pod.name)
        elif pod.name not in samples:
            groups.missing.append(pod.name)
        elif what.resource == CPU and _says_nothing(pod, samples[pod.name], now):
            groups.unready.append(pod.name)
    return groups


def _says_nothing(pod: MeasuredPod, sample: PodSample, now: datetime) -> bool:
    """Say whether what a pod used of the CPU is of its start, and not of its work."""
    ready = pod.readiness
    if ready is None or pod.started is None:
        return True
    since = ready.since
    if pod.started + _INITIALIZATION > now:
        return ready.is_false or (since is not None and sample.at < since + sample.window)
    never_was_ready = since is None or pod.started + _INITIAL_READINESS > since
    return ready.is_false and never_was_ready


def _none_counts(groups: _Groups) -> str:
    why = [
        f"{len(names)} {words}"
        for names, words in (
            (groups.missing, "without a sample"),
            (groups.unready, "not ready, or not for long enough"),
            (groups.ignored, "failed or on the way out"),
        )
        if names
    ]
    return f"no pod counts: {', '.join(why)}" if why else "no pod of its selector has a sample"


class _NoRequestError(Exception):
    """A pod does not say how much it requests; the message names the container."""


def _request(pod: MeasuredPod, what: What) -> Decimal:
    """Say what a pod requests. As the autoscaler has it, a container that does not say makes the whole unknown."""
    if pod.whole is not None and not what.container:
        if what.resource not in pod.whole:
            raise _NoRequestError(f"pod {pod.name} requests no {what.resource}")
        return pod.whole[what.resource]
    wanted = [one for one in pod.containers if what.container in ("", one[0])]
    if what.container and not wanted:
        raise _NoRequestError(f"pod {pod.name} has no container {what.container}")
    for name, requests in wanted:
        if what.resource not in requests:
            raise _NoRequestError(
                f"container {name} of pod {pod.name} requests no {what.resource}, so there is no utilization"
            )
    return sum((requests[what.resource] for _, requests in wanted), Decimal(0))


def _sum_of(requests: Mapping[str, Decimal], names: Iterable[str]) -> Decimal:
    return sum((requests.get(name, Decimal(0)) for name in names), Decimal(0))


def _requests(container: PodContainer) -> Requests:
    return _amounts(container.resources.requests)


def _amounts(quantities: Mapping[str, str | int | float]) -> Requests:
    return {name: amount_of(quantity) for name, quantity in quantities.items()}


def _whole(spec: SpecOfPod) -> Requests | None:
    """Say what a pod requests as a whole: what it says of itself, and for other resources what its containers do.

    None unless it says something of itself. To all of it comes the overhead of its runtime.
    """
    said = {name: one for name, one in _amounts(spec.resources.requests).items() if _is_of_pods(name)}
    if not said:
        return None
    return _added({**_of_containers(spec), **said}, _amounts(spec.overhead))


def _is_of_pods(resource: str) -> bool:
    return resource in _OF_PODS or resource.startswith(_HUGE_PAGES)


def _of_containers(spec: SpecOfPod) -> Requests:
    """Say what containers request together: all that run at once, or while it starts if that is more (KEP-753)."""
    running: Requests = {}
    for container in spec.containers:
        running = _added(running, _requests(container))
    sidecars: Requests = {}
    starting: Requests = {}
    for container in spec.init_containers:
        requests = _requests(container)
        if container.is_sidecar:
            running, sidecars = _added(running, requests), _added(sidecars, requests)
            at_once = sidecars
        else:
            at_once = _added(sidecars, requests)
        starting = _most(starting, at_once)
    return _most(running, starting)


def _added(one: Requests, other: Requests) -> Requests:
    return {name: one.get(name, Decimal(0)) + other.get(name, Decimal(0)) for name in {**one, **other}}


def _most(one: Requests, other: Requests) -> Requests:
    return {name: max(one.get(name, Decimal(0)), other.get(name, Decimal(0))) for name in {**one, **other}}
