"""What the replicas of the xDS server say together of one remote backend."""

from __future__ import annotations

from collections.abc import Iterable

from controller.api.reports import ModelReport, RemoteReport, digest_of
from controller.api.route import RemoteRoute
from controller.decision import Known, RemoteFacts, Unknown

_UNCHECKED = Unknown("no xDS server checks it: a credential is missing (see Programmed), or checks are turned off")


def remote_facts(said: Iterable[ModelReport | None], remote: RemoteRoute) -> Known[RemoteFacts] | Unknown | None:
    """Judge a remote backend by the reports of every replica on a model, None for one that was not told of it yet.

    Who finds it healthy is right: what can be reached from somewhere is there. Nothing is said (None) while a replica
    may still find it so: its first check has not ended, or it has another remote backend yet. One that says nothing of
    remote backends, since it is older or is not to check them, does not count.
    """
    told = [one.remote if one else RemoteReport(backend="") for one in said]
    current = [_of(one, digest_of(remote)) for one in told if one]
    healthy = next((one for one in current if one.healthy), None)
    if healthy is None and any(one.healthy is None for one in current):
        return None
    best = healthy or next(iter(current), None)
    if best is None or best.healthy is None or best.since is None:
        return _UNCHECKED
    return Known(RemoteFacts(healthy=best.healthy, detail=best.message, reason=best.reason), best.since)


def _of(report: RemoteReport, backend: str) -> RemoteReport:
    return report if report.backend == backend else RemoteReport(backend=backend)
