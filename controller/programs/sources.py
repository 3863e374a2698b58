"""Where measurements come from: the sources that both programs have, as the configuration says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from controller.api.resources.configuration import Configuration
from controller.api.timing import SignalTiming
from controller.programs.lifetime import CannotStartError
from controller.signals.promql import Prometheus
from controller.signals.scrape import Scrape
from controller.signals.source import MetricSource


def sources_everywhere(
    configuration: Configuration, timing: SignalTiming, clock: Callable[[], datetime]
) -> Mapping[str, MetricSource]:
    """Return the sources that need no Kubernetes, by the type of their metrics. Raises CannotStartError."""
    sources: dict[str, MetricSource] = {"Scrape": Scrape(timing.scrape, clock)}
    if configuration.prometheus:
        try:
            sources["External"] = Prometheus(configuration.prometheus, timing.prometheus, clock)
        except OSError as error:
            file = configuration.prometheus.ca_file
            raise CannotStartError(
                f"metricInformer.prometheus.caFile: {file}: {error.strerror or 'holds no certificates'}"
            ) from error
    return sources
