"""Whatever fails, with each split: no request does for which there is a second try, and none is tried more than twice.

The same table, with more requests, is docs/failures.md (`make bench NAME=failures`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.route.v3.route_components_pb2 import Route

from tests.support.data_plane.mutation import Change, clusters, routes
from tests.support.failures.cases import Cell, cells
from tests.support.failures.cell import Size, come_of
from tests.support.failures.promise import breaches
from tests.support.failures.site import Site
from tests.support.network import Network

pytestmark = pytest.mark.asyncio(loop_scope="module")

SIZE = Size(requests=1_500)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(network: Network, folder: Path) -> AsyncIterator[Site]:
    async with Site(network, folder).running() as site:
        yield site


@pytest.mark.parametrize("cell", list(cells()), ids=str)
async def test_what_is_promised_of_a_failure_holds(site: Site, cell: Cell) -> None:
    outcome = await come_of(site, cell, SIZE)

    assert list(breaches(outcome, cell.promise)) == [], outcome


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


@pytest.mark.parametrize(
    ("name", "change", "breach"),
    [
        ("every replica is killed, 100/0", routes(without_retries), "failed: "),
        ("every replica answers 503, 50/50", routes(without_retries), "failed: "),
        ("one replica of three is killed, nothing may leave", routes(without_retries), "failed: "),
        ("it is killed, 0/100", routes(without_retries), "failed: "),
        ("one replica of three answers 503, 100/0", clusters(without_ejections), "the remote backend's"),
        ("one replica of three is killed, nothing may leave", clusters(with_many_checks), "nothing came to local-1"),
        ("every replica is killed, 50/50", clusters(with_many_checks), "nothing came to local-1"),
        ("every server answers 503, 100/0", routes(with_another_retry), " to 3 times"),
        ("every replica answers 429, 100/0", routes(with_retries_of_429), " to 2 times"),
    ],
)
async def test_the_matrix_sees_what_is_missing(site: Site, name: str, change: Change, breach: str) -> None:
    (cell,) = (one for one in cells() if str(one) == name)

    outcome = await come_of(site, cell, SIZE, change)

    assert breach in "; ".join(breaches(outcome, cell.promise))
