"""One node for all tests, or a cluster that exists; each test has a namespace of its own."""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.kube.cluster import Cluster
from tests.support.kube.existing import existing_cluster
from tests.support.kube.namespaces import fresh_namespace
from tests.support.node.node import Node, work_folder
from tests.support.node.post_mortem import post_mortem
from tests.support.waiting import until_now

EXISTING = "BEAMLIT_TEST_KUBECONFIG"
_NEEDS_OUR_OWN = "node"
"""The fixture of tests that change the node itself."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, on somebody else's cluster, what only a node of our own can play."""
    if os.environ.get(EXISTING):
        skip = pytest.mark.skip(reason=f"it changes the node itself, and {EXISTING} names somebody else's")
        for item in items:
            if _NEEDS_OUR_OWN in getattr(item, "fixturenames", ()):
                item.add_marker(skip)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep, beside what the programs of the node wrote, what a cluster says when a test has failed on it."""
    report = yield
    arguments = getattr(item, "funcargs", {})
    cluster, folder = arguments.get("cluster") or arguments.get(_NEEDS_OUR_OWN), item.config.option.basetemp
    if report.failed and call.when != "teardown" and cluster and folder:
        name = re.sub(r"\W+", "-", item.name)
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / f"{name}.txt").write_text(post_mortem(cluster))
    return report


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    """The node of this run."""
    with work_folder() as folder, Node.running(folder) as node:
        yield node


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The node of this run, or the cluster that was given."""
    given = os.environ.get(EXISTING)
    if not given:
        yield request.getfixturevalue(_NEEDS_OUR_OWN)
        return
    with existing_cluster(Path(given), tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """The name of a fresh namespace, deleted afterwards with all it holds."""
    with namespace_with_account(cluster) as name:
        yield name


@pytest.fixture
def other_namespace(cluster: Cluster) -> Iterator[str]:
    """Another one."""
    with namespace_with_account(cluster) as name:
        yield name


@contextmanager
def namespace_with_account(cluster: Cluster) -> Iterator[str]:
    with fresh_namespace(cluster) as name:
        account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
        with cluster.client() as client:
            until_now(lambda: client.get(account).is_success, "the namespace has its service account")
        yield name
