"""What the controller works with, apart from the store: all of it protocols and values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from controller.api.kubernetes.endpoints import EndpointGuard, admit_all
from controller.api.resources.backend import RemoteBackend
from controller.api.timing import REAL, Limits, StatusTiming
from controller.frontend.ports import PortRule, ServicePorts
from controller.observe.fronting import TakeoverRules
from controller.observe.own_place import GatewayPlace
from controller.observe.proxies import ProxyReports
from controller.plan.plan import Plan
from controller.runtime.events import Events, NoEvents
from controller.signals.load_reports import LoadReports, NoLoads
from controller.signals.source import MetricSource
from controller.store.objects import ObjectRef
from controller.store.protocol import ObjectWriter

Clock = Callable[[], datetime]


class Telemetry(Protocol):
    """What is measured of the controller's work. Never waits, never raises."""

    def planned(self, plan: Plan) -> None:
        """Take in what an object shall be; it may be the same as before, and need not be written."""

    def forgotten(self, ref: ObjectRef) -> None:
        """Forget an object that is gone."""

    def written(self, plan: Plan, seconds: float) -> None:
        """Take in what was written, and how many seconds after the change that was read and from which it follows."""

    def failed(self, step: Literal["plan", "write"]) -> None:
        """Count an object that could not be planned, by a mistake of ours, or written."""


class NoTelemetry:
    """Nobody measures."""

    def planned(self, plan: Plan) -> None:
        """See `Telemetry`."""

    def forgotten(self, ref: ObjectRef) -> None:
        """See `Telemetry`."""

    def written(self, plan: Plan, seconds: float) -> None:
        """See `Telemetry`."""

    def failed(self, step: Literal["plan", "write"]) -> None:
        """See `Telemetry`."""


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The proxies' reports, a clock (UTC), and what has one sensible value for a folder of YAML.

    `telemetry` measures the work, `events` record what happened, `guard` says which endpoints count,
    `expects_workloads` whether a workload must be there, `needs_consent` whether references into other namespaces have
    to be permitted there, `loads` what load there is; `sources` measure the other metrics, by their types. `ports` says
    how objects get theirs on the gateway, `any_replica` writes what needs nobody to lead (None: the store does),
    `limits` says how much is written, `timing` when an object is looked at again.
    `takeover` says how Services are taken over (None: never), `gateway_place` is where no remote backend may be.
    `controller` is our name as a writer of statuses, empty where there is no other. Models of another
    `controller_class` are left alone (None: none is).
    """

    proxies: ProxyReports
    clock: Clock
    telemetry: Telemetry = field(default_factory=NoTelemetry)
    default_remote: RemoteBackend | None = None
    events: Events = field(default_factory=NoEvents)
    guard: EndpointGuard = admit_all
    gateway_place: GatewayPlace = field(default_factory=GatewayPlace)
    expects_workloads: bool = False
    needs_consent: bool = False
    loads: LoadReports = field(default_factory=NoLoads)
    sources: Mapping[str, MetricSource] = field(default_factory=dict)
    controller: str = ""
    controller_class: str | None = None
    ports: PortRule = field(default_factory=ServicePorts)
    any_replica: ObjectWriter | None = None
    takeover: TakeoverRules | None = None
    limits: Limits = REAL.writes
    timing: StatusTiming = REAL.statuses
