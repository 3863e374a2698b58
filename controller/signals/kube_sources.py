"""The sources of metrics that a cluster has."""

from __future__ import annotations

from collections.abc import Mapping

from controller.api.timing import SignalTiming
from controller.signals.custom_metrics import CustomMetrics, ExternalMetrics
from controller.signals.kube_api import ApiReader
from controller.signals.kube_metrics import Clock, PodResources
from controller.signals.pod_lists import PodLists
from controller.signals.source import MetricSource, NotMeasured

_NO_API = "there is no metrics API in a folder: use Requests, Scrape, or External with metricInformer prometheus"
IN_A_FOLDER: Mapping[str, MetricSource] = {
    type_: NotMeasured(_NO_API) for type_ in ("Resource", "ContainerResource", "Pods", "Object", "External")
}
"""By type: why a folder has no sample of it."""


def kube_sources(reader: ApiReader, timing: SignalTiming, clock: Clock) -> Mapping[str, MetricSource]:
    """Return by type what measures the metrics of Kubernetes, through its API server."""
    pods = PodLists(reader, timing, clock)
    resources, custom = PodResources(reader, pods, timing, clock), CustomMetrics(reader, pods, timing, clock)
    external = ExternalMetrics(reader, timing, clock)
    return {
        "Resource": resources,
        "ContainerResource": resources,
        "Pods": custom,
        "Object": custom,
        "External": external,
    }
