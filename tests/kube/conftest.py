"""One API server for all tests, or one of its own for a test that breaks it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.kube.api_server import ApiServer
from tests.support.kube.cluster import Cluster
from tests.support.kube.crds import install_crds, remove_crds
from tests.support.kube.endpoint_controllers import ServiceHand
from tests.support.kube.existing import existing_cluster
from tests.support.kube.metrics_apis import MetricsApis
from tests.support.kube.namespaces import fresh_namespace
from tests.support.kube.proxy import Proxy
from tests.support.kube.shared import shared_cluster
from tests.support.kube.site import Site
from tests.support.prometheus import Prometheus, Target
from tests.support.workers import folder_of_the_run
from tests.tools import binaries

EXISTING = "BEAMLIT_TEST_KUBECONFIG"
"""The variable that names the kubeconfig of a cluster to test on; tests that break one still start their own."""


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what the collected tests need before the first of them starts: it takes longer than a test may."""
    used = {fixture for item in session.items for fixture in getattr(item, "fixturenames", ())}
    if session.config.option.collectonly:
        return
    own = used & {"own_api_server", "api_server_of_module", "metrics_apis", "endpoint_controllers"}
    programs = [binaries.kubectl] if own or "api_server" in used else []
    if own or (programs and not os.environ.get(EXISTING)):
        programs += [binaries.etcd, binaries.kube_apiserver]
    if "metrics_apis" in used:
        programs += [binaries.metrics_server, binaries.metrics_adapter, binaries.kube_controller_manager]
    if "endpoint_controllers" in used:
        programs += [binaries.kube_controller_manager]
    if "prometheus" in used:
        programs += [binaries.prometheus]
    with session.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        for program in programs:
            program()


@pytest.fixture(scope="session")
def api_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """An API server that all tests of all workers share: each keeps to its namespace."""
    folder = tmp_path_factory.mktemp("api_server")
    given = os.environ.get(EXISTING)
    shared = folder_of_the_run(request.config, tmp_path_factory) / "shared_api_server"
    with existing_cluster(Path(given), folder) if given else shared_cluster(shared, folder) as cluster:
        yield cluster


@pytest.fixture
def own_api_server(tmp_path: Path) -> Iterator[ApiServer]:
    """An API server that a test may break."""
    folder = tmp_path / "own_api_server"
    folder.mkdir()
    with ApiServer.running(folder) as server:
        yield server


@pytest.fixture(scope="module")
def api_server_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API server of the module's own, which its tests may break if they mend it again. See `bare_api_server`."""
    with ApiServer.running(tmp_path_factory.mktemp("api_server_of_module")) as server:
        yield server


@pytest.fixture
def bare_api_server(api_server_of_module: ApiServer) -> ApiServer:
    """An API server of the module's own without our custom resources, for tests that install them."""
    remove_crds(api_server_of_module)
    return api_server_of_module


@pytest.fixture(scope="module")
def metrics_apis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MetricsApis]:
    """A cluster of the module's own with all metrics APIs, whose tests keep to their namespaces."""
    with MetricsApis.running(tmp_path_factory.mktemp("metrics_apis")) as apis:
        yield apis


@pytest.fixture(scope="session")
def endpoint_controllers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster in which Services have endpoints, shared by all tests of all workers: each keeps to its namespace."""
    folder = tmp_path_factory.mktemp("endpoint_controllers")
    shared = folder_of_the_run(request.config, tmp_path_factory) / "shared_endpoint_controllers"
    with shared_cluster(shared, folder, "with-endpoints") as cluster:
        yield cluster


@pytest.fixture
def hand(endpoint_controllers: Cluster) -> Iterator[ServiceHand]:
    """The hand of a user in a fresh namespace of that cluster."""
    with fresh_namespace(endpoint_controllers) as name, closing(ServiceHand(endpoint_controllers, name)) as hand:
        yield hand


@pytest.fixture
def away(endpoint_controllers: Cluster) -> Iterator[ServiceHand]:
    """The hand of a user in another fresh namespace of that cluster."""
    with fresh_namespace(endpoint_controllers) as name, closing(ServiceHand(endpoint_controllers, name)) as hand:
        yield hand


@pytest.fixture(scope="module")
def scraped() -> Iterator[Target]:
    """What the Prometheus of the module scrapes."""
    with Target.running() as target:
        yield target


@pytest.fixture(scope="module")
def prometheus(scraped: Target, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus of the module's own with one target."""
    with Prometheus.running(tmp_path_factory.mktemp("prometheus"), {"model": scraped}) as prometheus:
        yield prometheus


@pytest.fixture
def namespace(api_server: Cluster) -> Iterator[str]:
    """The name of a fresh namespace, deleted afterwards with all it holds."""
    with fresh_namespace(api_server) as name:
        yield name


@pytest.fixture
async def proxy(api_server: Cluster, tmp_path: Path) -> AsyncIterator[Proxy]:
    """A proxy in front of the API server that all tests share, to fail on demand."""
    async with Proxy(api_server, tmp_path).running() as proxy:
        yield proxy


@pytest.fixture(scope="session")
def crds(api_server: Cluster) -> None:
    """The custom resources of deploy/crds, served: that of the tests has them from its start."""
    if os.environ.get(EXISTING):
        install_crds(api_server)


@pytest.fixture
async def site(api_server: Cluster, crds: None, namespace: str, tmp_path: Path) -> AsyncIterator[Site]:
    """Our programs in a fresh namespace: none of them runs yet."""
    async with Site(api_server, namespace, tmp_path).running() as site:
        yield site


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running_site(
    api_server: Cluster, crds: None, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Site]:
    """Our programs, one replica of each, for tests that stop none of them and whose models have names of their own."""
    with fresh_namespace(api_server) as namespace:
        async with Site(api_server, namespace, tmp_path_factory.mktemp("site")).running() as site:
            await site.start()
            yield site
