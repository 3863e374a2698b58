"""What the replicas of the xDS server say together."""

from __future__ import annotations

from controller.api.reports import ModelReport, ReplicaReport
from controller.api.route import ModelRoute
from controller.reconcile.proxies import ProxyReport
from controller.store.objects import ObjectRef

MODEL = "ModelDeployment"


class Fleet:
    """The newest report of every replica on every model.

    Nothing is reported before every replica that is expected said all it had to say, or was dropped: half of the truth
    would take back what was said of models before a restart.
    """

    def __init__(self) -> None:
        self._said: dict[str, dict[ObjectRef, ModelReport]] = {}
        self._envoys: dict[str, int] = {}
        self._complete: set[str] = set()
        self._awaited: set[str] = set()

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

    def count(self, replica: str, report: ReplicaReport) -> None:
        """Take in how many Envoys a replica has."""
        self._envoys[replica] = report.envoys

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
        self._envoys.pop(replica, None)
        self._said.pop(replica, None)

    @property
    def replicas(self) -> frozenset[str]:
        """The replicas that count."""
        return frozenset(self._complete)

    def report(self, model: ObjectRef, route: ModelRoute) -> ProxyReport | None:
        """Add up what every replica says; an Envoy that still has an older route has not acknowledged this one.

        None while a replica is awaited, or none was heard.
        """
        if self._awaited or not self._complete:
            return None
        said = {replica: self._said[replica].get(model) for replica in sorted(self._complete)}
        current = [one for one in said.values() if one and one.route == route.digest]
        return ProxyReport(
            # A replica that was not told of a model yet will serve it to all its Envoys.
            connected=sum(one.connected if one else self._envoys.get(replica, 0) for replica, one in said.items()),
            programmed=sum(one.programmed for one in current),
            refusals=tuple(dict.fromkeys(words for one in current for words in one.refusals)),
        )
