"""What the replicas of the xDS server say together."""

from __future__ import annotations

from controller.api.reports import ModelReport, ReplicaReport
from controller.api.route import ModelRoute
from controller.reconcile.proxies import ProxyReport
from controller.store.objects import ObjectRef

MODEL = "ModelDeployment"


class Fleet:
    """The newest report of every replica on every model. A replica counts once it said everything it had to say."""

    def __init__(self) -> None:
        self._said: dict[str, dict[ObjectRef, ModelReport]] = {}
        self._envoys: dict[str, int] = {}
        self._complete: set[str] = set()

    def begin(self, replica: str) -> None:
        """A replica begins anew; until it is `complete`, what it said before holds."""
        self._said.setdefault(replica, {})

    def hear(self, replica: str, report: ModelReport) -> ObjectRef:
        """Take in a report; return the model it is about."""
        model = ObjectRef(MODEL, report.namespace, report.name)
        said = self._said.setdefault(replica, {})
        if report.route:
            said[model] = report
        else:
            said.pop(model, None)
        return model

    def count(self, replica: str, report: ReplicaReport) -> None:
        """Take in how many Envoys a replica has."""
        self._envoys[replica] = report.envoys

    def complete(self, replica: str, named: frozenset[ObjectRef]) -> frozenset[ObjectRef]:
        """A replica named every model it has; return all models it concerns, also those it no longer has."""
        said = self._said.setdefault(replica, {})
        gone = said.keys() - named
        for model in gone:
            del said[model]
        self._complete.add(replica)
        return frozenset(gone | said.keys())

    def drop(self, replica: str) -> frozenset[ObjectRef]:
        """A replica is gone; return the models it had something to say about."""
        self._complete.discard(replica)
        self._envoys.pop(replica, None)
        return frozenset(self._said.pop(replica, {}))

    @property
    def replicas(self) -> frozenset[str]:
        """The replicas that count."""
        return frozenset(self._complete)

    def report(self, model: ObjectRef, route: ModelRoute) -> ProxyReport | None:
        """Add up what every replica says; an Envoy that still has an older route has not acknowledged this one.

        None while no replica was heard.
        """
        if not self._complete:
            return None
        said = {replica: self._said[replica].get(model) for replica in sorted(self._complete)}
        current = [one for one in said.values() if one and one.route == route.digest]
        return ProxyReport(
            # A replica that was not told of a model yet will serve it to all its Envoys.
            connected=sum(one.connected if one else self._envoys.get(replica, 0) for replica, one in said.items()),
            programmed=sum(one.programmed for one in current),
            refusals=tuple(dict.fromkeys(words for one in current for words in one.refusals)),
        )
