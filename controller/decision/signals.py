"""Comparing a metric with its target, as the HorizontalPodAutoscaler does: reached when at or over it. Pure.

The rules are those of its replica calculator (Kubernetes documentation, "Horizontal Pod Autoscaling", "Algorithm
details"): a utilization is one of all pods together and cut to whole percent, an average of pods to thousandths; a pod
without a sample counts as idle where that keeps requests from leaving, and as one at its target where it keeps them
from returning.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_FLOOR, Decimal
from typing import NamedTuple

from controller.api.resources.metrics import ContainerResourceMetric, MetricByName, MetricSpec, ResourceMetric
from controller.api.schema.scalars import number_of, text_of
from controller.decision.facts import (
    LONGEST_MESSAGE,
    Cause,
    Measurement,
    Sample,
    Signal,
    Unknown,
    WindowFrom,
    cut,
)

_PERCENT = Decimal(100)
_MILLI = Decimal(1000)
_MOST_TIMES = Decimal(10**9)
# Kubernetes' API reference, "Quantity": a larger one is capped.
_LARGEST = Decimal(2**63 - 1)
# It stands in a status twice, of 32 metrics, and a character takes six bytes of JSON at the most.
_LONGEST_NAME = 500

_OF_PODS = ("Resource", "ContainerResource", "Pods")
_OF_THE_WHOLE = ("Object", "External")


def compared(samples: Iterable[tuple[MetricSpec, Sample]], replicas: int) -> tuple[Signal, ...]:
    """Compare everything that was measured of an object, as `compare` does."""
    return tuple(compare(metric, sample, replicas) for metric, sample in samples)


def compare(metric: MetricSpec, sample: Sample, replicas: int) -> Signal:
    """Compare what was measured of a metric with its target.

    `replicas` is what a measurement of the whole is divided by for an average. Whatever cannot be compared is unknown,
    and its signal says why.
    """
    target = metric.target
    name, written = _shown(name_of(metric)), target_text(metric)
    if isinstance(sample, Unknown):
        return _unknown(name, written, sample)
    measured, wanted = sample.value, _target(metric)
    if wanted <= 0:
        return _unknown(name, written, Unknown("the target must be above zero", cause=Cause.INVALID))
    if not measured.value.is_finite():
        why = f"{measured.value} was measured, which is no number"
        return _unknown(name, written, Unknown(why, cause=Cause.NOT_USABLE))
    match target.type:
        case "Utilization":
            found = _utilization(measured, wanted)
        case "AverageValue":
            found = _average(metric, measured, replicas)
        case _:
            found = _whole_value(measured, wanted)
    if isinstance(found, Unknown):
        return _unknown(name, written, found)
    if measured.lacks:
        found = found._replace(most=Decimal("Infinity"))
    least, most = _multiple(found.least, wanted), _multiple(found.most, wanted)
    declared = metric.source.window if isinstance(metric.source, MetricByName) else None
    window, window_from = (measured.window, measured.window_from) if declared is None else (declared, WindowFrom.SPEC)
    if measured.lacks and found.least < wanted:
        unknown = _unknown(name, written, measured.lacks)
        dated = replace(unknown, at=sample.at, window=window, window_from=window_from)
        return replace(dated, least=least, most=most, at_least=True)
    return Signal(
        name=name,
        target=written,
        state="Breached" if found.least >= wanted else "Clear",
        current=f"{found.current:.0f}%" if target.type == "Utilization" else text_of(found.current),
        message=cut(f"at least: {measured.lacks.why}" if measured.lacks else measured.note, LONGEST_MESSAGE) or None,
        at=sample.at,
        window=window,
        window_from=window_from,
        least=least,
        most=most,
        at_least=measured.lacks is not None,
        per_replica=target.type != "Value",
        counts=_requests(metric, wanted, replicas),
        saturates=isinstance(metric.source, ResourceMetric | ContainerResourceMetric) and metric.source.name == "cpu",
    )


def _unknown(name: str, target: str, found: Unknown) -> Signal:
    why = cut(found.why, LONGEST_MESSAGE)
    return Signal(name, target, "Unknown", message=why, pending=found.pending, cause=found.cause)


def _shown(name: str) -> str:
    """Write the name of a metric as a status has it; of a long expression the beginning, and a hash of all of it."""
    if len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=4).hexdigest()
    return f"{name[:_LONGEST_NAME]}... ({digest})"


def _multiple(value: Decimal, wanted: Decimal) -> float:
    """Say how many times a target there is; no more than what can be computed with, and remembered in JSON."""
    return float(min(value / wanted, _MOST_TIMES))


def _requests(metric: MetricSpec, wanted: Decimal, replicas: int) -> float:
    """Say how many requests in flight a target is; 0 for what is no number of them."""
    if metric.type != "Requests":
        return 0.0
    return float(wanted * replicas if metric.target.type == "AverageValue" else wanted)


def name_of(metric: MetricSpec) -> str:
    """Name a metric as its object does: `cpu`, `cpu of server`, the name of a metric, or `Requests`."""
    match metric.source:
        case ContainerResourceMetric() as source:
            return f"{source.name} of {source.container}"
        case ResourceMetric() as source:
            return source.name
        case MetricByName() as source:
            return source.metric.name
    return metric.type


def target_text(metric: MetricSpec) -> str:
    """Write the target of a metric as it is shown: `90%`, or a number."""
    is_share = metric.target.type == "Utilization"
    return f"{metric.target.average_utilization}%" if is_share else text_of(_target(metric))


class _Figures(NamedTuple):
    """What is shown, and what it is at least and at most for the pods of which nothing is known."""

    current: Decimal
    least: Decimal
    most: Decimal


def _target(metric: MetricSpec) -> Decimal:
    target = metric.target
    match target.type:
        case "Utilization":
            number: str | int | float | None = target.average_utilization
        case "AverageValue":
            number = target.average_value
        case _:
            number = target.value
    assert number is not None, "a target without its number is refused"
    return min(number_of(number), _LARGEST)


def _utilization(measured: Measurement, wanted: Decimal) -> _Figures | Unknown:
    """Compare what is used with what is requested, in whole percent."""
    if measured.requests is None:
        why = "nothing is requested of it, so there is no utilization: give an averageValue or a value"
        return Unknown(why, cause=Cause.INVALID)
    if not measured.requests:
        return Unknown("no pod that counts requests any of it, so there is no utilization", cause=Cause.INVALID)
    missing, unready, used, requested = measured.missing, measured.unready, measured.value, measured.requests
    at_target = missing.requests * max(_PERCENT, wanted) / _PERCENT
    return _Figures(
        _whole(_PERCENT * used / requested),
        _whole(_PERCENT * used / (requested + missing.requests + unready.requests)),
        _whole(_PERCENT * (used + at_target) / (requested + missing.requests)),
    )


def _average(metric: MetricSpec, measured: Measurement, replicas: int) -> _Figures | Unknown:
    """Compare what there is for each pod, or for each replica, with what there should be."""
    pods = replicas if measured.pods is None else measured.pods
    if not pods:
        return Unknown("no replica is ready, so there is no average", cause=Cause.NO_SAMPLE)
    if metric.type in _OF_THE_WHOLE:
        # The autoscaler rounds what it shows, and compares what it is.
        average = measured.value / pods
        return _Figures(_thousandths(average, ROUND_CEILING), average, average)
    missing, unready = measured.missing.pods, measured.unready.pods
    figures = _Figures(
        measured.value / pods,
        measured.value / (pods + missing + unready),
        (measured.value + _target(metric) * missing) / (pods + missing),
    )
    return _Figures(*(_thousandths(one, ROUND_DOWN) for one in figures)) if metric.type in _OF_PODS else figures


def _thousandths(number: Decimal, rounding: str) -> Decimal:
    # Not `quantize`, which refuses a number that is too large for it.
    return (number * _MILLI).to_integral_value(rounding) / _MILLI + 0  # nor is there a zero below zero


def _whole_value(measured: Measurement, wanted: Decimal) -> _Figures:
    """Compare a sum; a pod without a sample has at most its part of the target."""
    missing, pods = measured.missing.pods, measured.pods or 0
    at_target = wanted * missing / (pods + missing) if missing else Decimal(0)
    return _Figures(measured.value, measured.value, measured.value + at_target)


def _whole(number: Decimal) -> Decimal:
    return number.to_integral_value(ROUND_FLOOR)
