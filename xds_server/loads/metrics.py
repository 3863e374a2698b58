"""The metrics of the loads that Envoys report."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from xds_server.loads.loads import Loads
from xds_server.resources.names import is_backend

_ENDED = ("succeeded", "failed")


class LoadMetrics(Collector):
    """Reads the counts when Prometheus asks.

    Counters are of what came to this replica, so the sum over replicas is what all Envoys reported. What is unknown has
    no sample: all that is in flight while one of those that are `connected` (their node ids) says nothing, and what is
    in flight of a model while one of its sides is. How many say nothing is of the same moment, so that whoever adds up
    several replicas knows whether one is missing.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        loads: Loads,
        clock: Callable[[], float],
        connected: Callable[[], Iterable[str]],
    ) -> None:
        self._loads = loads
        self._clock = clock
        self._connected = connected
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """Give the metrics as they are now."""
        labels = ("namespace", "name", "side")
        issued = CounterMetricFamily(
            "beamlit_model_requests_issued", "Requests sent upstream; a retry is one more.", labels=labels
        )
        ended = CounterMetricFamily(
            "beamlit_model_requests", "Requests that ended, each try for itself.", labels=(*labels, "outcome")
        )
        flying = GaugeMetricFamily("beamlit_model_requests_in_flight", "Requests in flight now.", labels=labels)
        backend = CounterMetricFamily(
            "beamlit_backend_requests",
            "Requests to a remote backend that ended, of all models that share it.",
            labels=("backend", "outcome"),
        )
        now = self._clock()
        quiet = self._loads.quiet(self._connected(), now)
        in_flight = {} if quiet else self._loads.in_flight(now)
        # Between two families others go on, and count: all families are of one moment.
        totals = sorted(self._loads.totals().items())
        sides = [(name.split("/")[1:], name, count) for name, count in totals if not is_backend(name)]
        for side, _, count in sides:
            issued.add_metric(side, count.issued)
        yield issued
        for side, _, count in sides:
            for outcome in _ENDED:
                ended.add_metric((*side, outcome), getattr(count, outcome))
        yield ended
        for side, name, _ in sides:
            if name in in_flight:
                flying.add_metric(side, in_flight[name])
        yield flying
        yield GaugeMetricFamily(
            "beamlit_xds_envoys_silent", "Envoys of this replica that do not report what they sent.", value=len(quiet)
        )
        for name, count in totals:
            if is_backend(name):
                for outcome in _ENDED:
                    backend.add_metric((name, outcome), getattr(count, outcome))
        yield backend
