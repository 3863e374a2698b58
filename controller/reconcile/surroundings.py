"""What the controller works with, apart from the store: all of it protocols and values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from controller.api.kubernetes.endpoints import EndpointGuard, admit_all
from controller.api.resources.backend import RemoteBackend
from controller.api.timing import REAL, Limits, StatusTiming
from controller.decision import Decision
from controller.frontend.ports import PortRule, ServicePorts
from controller.observe.proxies import ProxyReports
from controller.runtime.events import Events, NoEvents
from controller.signals.load_reports import LoadReports, NoLoads
from controller.store.objects import ObjectRef

Clock = Callable[[], datetime]
Observer = Callable[[ObjectRef, Decision | None], None]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The proxies' reports, a clock (UTC), an observer; then what has one sensible value for a folder of YAML.

    The observer is told every decision made, and None for a model that is gone. `events` are told what happened,
    `guard` says which endpoints count, `loads` what load there is, `ports` how models get their ports on the gateway,
    `limits` how much is written, `timing` when a model is looked at again.
    """

    proxies: ProxyReports
    clock: Clock
    observer: Observer
    default_remote: RemoteBackend | None = None
    events: Events = field(default_factory=NoEvents)
    guard: EndpointGuard = admit_all
    loads: LoadReports = field(default_factory=NoLoads)
    ports: PortRule = field(default_factory=ServicePorts)
    limits: Limits = REAL.writes
    timing: StatusTiming = REAL.statuses
