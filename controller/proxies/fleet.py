"""What the replicas of the xDS server say together."""

from __future__ import annotations

import math

from controller.api.reports import ModelReport, ReplicaReport
from controller.api.route import ModelRoute, RemoteRoute
from controller.api.timing import REAL, ReportTiming
from controller.decision import Known, RemoteFacts, Unknown
from controller.proxies.health import remote_facts
from controller.proxies.loads import FleetLoads
from controller.reconcile.proxies import ProxyReport
from controller.store.objects import ObjectRef

MODEL = "ModelDeployment"


class Fleet:
    """The newest report of every replica on every model, and in `loads` what load they have.

    Nothing is reported before every replica that is expected said all it had to say, or was dropped: half of the truth
    would take back what was said of models before a restart. So would the moments in which all Envoys change from one
    replica to the next.
    """

    def __init__(self, timing: ReportTiming = REAL.reports) -> None:
        self.loads = FleetLoads(timing)
        self._timing = timing
        self._said: dict[str, dict[ObjectRef, ModelReport]] = {}
        self._envoys: dict[str, int] = {}
        self._complete: set[str] = set()
        self._awaited: set[str] = set()
        self._envoy_at = -math.inf
        self._nobody = True

    def expect(self, replica: str) -> None:
        """There is a replica that was not heard yet."""
        self._awaited.add(replica)

    def hear(self, replica: str, report: ModelReport) -> ObjectRef:
        """Take in a report; return the model it is about."""
        model = ObjectRef(MODEL, report.namespace, report.name)
        said = self._said.setdefault(replica, {})
        if report.route:
            said[model] = report
        else:
            said.pop(model, None)
        return model

    def count(self, replica: str, report: ReplicaReport, now: float) -> bool:
        """Take in how many Envoys a replica has; say whether it is news that there is none, or one again.

        `now` are the seconds of a steady clock.
        """
        self._envoys[replica] = report.envoys
        self.loads.silent(replica, report.silent)
        before = self._nobody
        if any(self._envoys.values()):
            self._envoy_at, self._nobody = now, False
        else:
            self._nobody = now - self._envoy_at >= self._timing.envoys_away
        return self._nobody != before

    def complete(self, replica: str, named: frozenset[ObjectRef]) -> None:
        """A replica, expected or heard before, named every model it has."""
        said = self._said.setdefault(replica, {})
        for model in said.keys() - named:
            del said[model]
        self._complete.add(replica)
        self._awaited.discard(replica)

    def drop(self, replica: str) -> None:
        """A replica is gone, or was not heard for too long."""
        self._complete.discard(replica)
        self._awaited.discard(replica)
        self.loads.drop(replica)
        self._envoys.pop(replica, None)
        self._said.pop(replica, None)

    @property
    def replicas(self) -> frozenset[str]:
        """The replicas that count."""
        return frozenset(self._complete)

    def report(self, model: ObjectRef, route: ModelRoute) -> ProxyReport | None:
        """Add up what every replica says; an Envoy that still has an older route has not acknowledged this one.

        None while a replica is awaited, none was heard, or all Envoys may be on their way to another one.
        """
        if self._awaited or not self._complete:
            return None
        said = self._of(model)
        # A replica that was not told of a model yet will serve it to all its Envoys.
        connected = sum(one.connected if one else self._envoys.get(replica, 0) for replica, one in said.items())
        if not connected and not self._nobody:
            return None
        current = [one for one in said.values() if one and one.route == route.digest]
        return ProxyReport(
            connected=connected,
            programmed=sum(one.programmed for one in current),
            refusals=tuple(dict.fromkeys(words for one in current for words in one.refusals)),
        )

    def remote(self, model: ObjectRef, remote: RemoteRoute) -> Known[RemoteFacts] | Unknown | None:
        """Say whether this remote backend of a model answers.

        None while a replica is awaited, none was heard, or one of them is still finding out.
        """
        if self._awaited or not self._complete:
            return None
        return remote_facts(self._of(model).values(), remote)

    def _of(self, model: ObjectRef) -> dict[str, ModelReport | None]:
        return {replica: self._said[replica].get(model) for replica in sorted(self._complete)}
