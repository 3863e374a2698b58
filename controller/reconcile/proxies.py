"""What the xDS servers say of a model: of its Envoys, and of its remote backend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from controller.api.route import ModelRoute, RemoteRoute
from controller.decision import Known, RemoteFacts, Unknown
from controller.store.objects import ObjectRef


@dataclass(frozen=True, slots=True)
class ProxyReport:
    """How many Envoys serve a model, how many of them acknowledged everything of it, and what the others refuse."""

    connected: int
    programmed: int
    refusals: tuple[str, ...] = ()


NO_PROXIES = ProxyReport(connected=0, programmed=0)


class ProxyReports(Protocol):
    """Where the reports come from: the xDS server of the same process, or every replica of it."""

    def report(self, model: ObjectRef, route: ModelRoute) -> ProxyReport | None:
        """Report on one model; an Envoy that still has an older route has not acknowledged this one.

        None while nothing was heard of any Envoy, which is not the same as that there is none.
        """
        ...

    def remote(self, model: ObjectRef, remote: RemoteRoute) -> Known[RemoteFacts] | Unknown | None:
        """Say whether this remote backend of a model answers. None while that is still being found out."""
        ...
