"""Settings that a cell of the matrix needs: without them it must not keep its promise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.route.v3.route_components_pb2 import Route

from tests.support.data_plane.mutation import Change, clusters, routes
from tests.support.failures.cases import Case, Cell, cells


@dataclass(frozen=True)
class Lacking:
    """A cell whose model has a setting taken out, and the words of the breach that this is."""

    cell: Cell
    change: Change
    what: str
    breach: str

    def __str__(self) -> str:
        return f"{self.cell}, {self.what}"


def without_retries(route: Route) -> None:
    route.route.ClearField("retry_policy")


def without_ejections(cluster: Cluster) -> None:
    cluster.ClearField("outlier_detection")


def with_many_checks(cluster: Cluster) -> None:
    for check in cluster.health_checks:
        check.healthy_threshold.value = 60


def with_another_retry(route: Route) -> None:
    if route.route.HasField("retry_policy"):
        route.route.retry_policy.num_retries.value = 2


def with_retries_of_429(route: Route) -> None:
    if route.route.HasField("retry_policy"):
        route.route.retry_policy.retriable_status_codes.append(429)


_CHANGES = {
    "without retries": routes(without_retries),
    "without ejections": clusters(without_ejections),
    "with many checks": clusters(with_many_checks),
    "with another retry": routes(with_another_retry),
    "with retries of 429": routes(with_retries_of_429),
}
_CELLS = {str(cell): cell for cell in cells()}

_LACKING = tuple(
    Lacking(_CELLS[name], _CHANGES[what], what, breach)
    for name, what, breach in (
        ("every replica is killed, 100/0", "without retries", "failed: "),
        ("every replica answers 503, 50/50", "without retries", "failed: "),
        ("one replica of three is killed, nothing may leave", "without retries", "failed: "),
        ("it is killed, 0/100", "without retries", "failed: "),
        ("one replica of three answers 503, 100/0", "without ejections", "the remote backend's"),
        ("one replica of three answers 503, 50/50", "without ejections", "were sent once more"),
        ("one replica of three is killed, nothing may leave", "with many checks", "nothing came to local-1"),
        ("every replica is killed, 50/50", "with many checks", "nothing came to local-1"),
        ("every replica is killed, 50/50", "with many checks", "checks were passed"),
        ("every server answers 503, 100/0", "with another retry", " to 3 times"),
        ("every replica answers 429, 100/0", "with retries of 429", " to 2 times"),
    )
)


def lacking(cases: Sequence[Case]) -> list[Lacking]:
    """Return those of some cases."""
    return [one for one in _LACKING if one.cell.case in cases]
