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
from controller.observe.own_place import GatewayPlace
from controller.observe.proxies import ProxyReports
from controller.runtime.events import Events, NoEvents
from controller.signals.load_reports import LoadReports, NoLoads
from controller.store.objects import ObjectRef
from controller.store.protocol import ObjectWriter

Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The proxies' reports, a clock (UTC), and what has one sensible value for a folder of YAML.

    `on_decision` is called with every decision made, and with None for an object that is gone. `events` record what
    happened, `guard` says which endpoints count, `loads` what load there is, `ports` how objects get their ports on the
    gateway, `any_replica` writes what needs nobody to lead (None: the store does), `limits` says how much is written,
    `timing` when an object is looked at again. `gateway_place` is where no remote backend
    may be.
    """

    proxies: ProxyReports
    clock: Clock
    on_decision: Callable[[ObjectRef, Decision | None], None] = lambda ref, decision: None
    default_remote: RemoteBackend | None = None
    events: Events = field(default_factory=NoEvents)
    guard: EndpointGuard = admit_all
    gateway_place: GatewayPlace = field(default_factory=GatewayPlace)
    loads: LoadReports = field(default_factory=NoLoads)
    ports: PortRule = field(default_factory=ServicePorts)
    any_replica: ObjectWriter | None = None
    limits: Limits = REAL.writes
    timing: StatusTiming = REAL.statuses
