"""Reports of load, said in a few words."""

from __future__ import annotations

from collections.abc import Iterable

from controller.api.contract.route import RouteKey
from tests.support.routes import A, a_remote, a_route, with_key
from xds_server.loads.loads import Loads
from xds_server.resources import names
from xds_server.resources.backend_names import backend_name
from xds_server.snapshot.snapshot import CLUSTER, ResourceKey
from xds_server.stream.load_reporting.wire import (
    ClusterLoad,
    LoadStream,
    LocalityLoad,
    ReportedLoads,
)
from xds_server.stream.protocol.parts import at_once

PLAIN, WITH_CREDENTIAL = a_remote(), a_remote(auth=with_key())
BACKEND, BACKEND_WITH_CREDENTIAL = backend_name(A, PLAIN), backend_name(A, WITH_CREDENTIAL)


def load(cluster: str, sent: int = 0, ok: int = 0, bad: int = 0, now: int = 0) -> ClusterLoad:
    """A cluster, of which one locality did something if anything was done."""
    return ClusterLoad(cluster, 1.0, (LocalityLoad(sent, ok, bad, now),) if sent or ok or bad or now else ())


def hears(loads: Loads, stream: LoadStream, clusters: Iterable[ClusterLoad], now: float) -> None:
    """A report of these clusters was heard."""
    at_once(loads.report_received(stream, ReportedLoads.of(clusters), now))


def to_local(model: RouteKey, sent: int = 0, ok: int = 0, bad: int = 0, now: int = 0) -> ClusterLoad:
    """What went to the replicas of a model."""
    return load(names.local_cluster(model), sent, ok, bad, now)


def away(model: RouteKey, sent: int = 0, ok: int = 0, bad: int = 0, now: int = 0) -> ClusterLoad:
    """What went to the remote backend by the internal listener: found no replica, failed there, or is guarded."""
    return load(names.remote_cluster(model), sent, ok, bad, now)


def to_backend(sent: int = 0, ok: int = 0, bad: int = 0, now: int = 0, *, credential: bool = False) -> ClusterLoad:
    """What went to the remote backend, by whichever way."""
    return load(BACKEND_WITH_CREDENTIAL if credential else BACKEND, sent, ok, bad, now)


def serves(loads: Loads, model: RouteKey, *, away: int | None = None, credential: bool = False) -> None:
    """Publish a model; `away` is the share of the backend, None for one that has none."""
    if away is None:
        loads.set_route(model, a_route(), ())
        return
    remote = WITH_CREDENTIAL if credential else PLAIN
    loads.set_route(model, a_route(remote, away=away), [ResourceKey(CLUSTER, backend_name(model, remote))])
