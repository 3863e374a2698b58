"""What Envoys report, without any."""

from dataclasses import dataclass, field

from controller.api.contract.health import RemoteHealth
from controller.api.contract.route import Remote, Route
from controller.observe.proxies import Programmed, ProxyFacts
from controller.store.objects import ObjectRef


class AllProgrammed:
    """One Envoy, which has acknowledged everything. Others report differently by what they override.

    `connected` says how many Envoys there are at all: as many as anybody asks for. `known_as` are their names.
    """

    connected = 1000
    known_as: frozenset[str] = frozenset()

    def report(self, model: ObjectRef, route: Route) -> Programmed | None:
        return Programmed(connected=1, programmed=1)

    def remote(self, model: ObjectRef, remote: Remote) -> RemoteHealth | None:
        """Nobody has found out anything about any remote backend."""
        return None

    silence = ""
    ports: frozenset[int] = frozenset()

    def facts(self, ref: ObjectRef) -> ProxyFacts:
        return _Facts((), model=ref, reports=self)


@dataclass(frozen=True)
class _Facts(ProxyFacts):
    """Says of any route what the double says."""

    model: ObjectRef = field(kw_only=True)
    reports: AllProgrammed = field(kw_only=True)

    @property
    def connected(self) -> int:
        return self.reports.connected

    @property
    def known_as(self) -> frozenset[str]:
        return self.reports.known_as

    def programmed(self, route: Route) -> Programmed | None:
        return self.reports.report(self.model, route)

    def health_of(self, remote: Remote) -> RemoteHealth | None:
        return self.reports.remote(self.model, remote)
