"""What other projects of a cluster do for a release of ours: they are built when this suite is run, and not before."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.kube.api_server import ApiServer
from tests.support.kube.crds import install_crds
from tests.support.kube.namespaces import fresh_namespace
from tests.support.kube.site import Site
from tests.support.processes import Child
from tests.tools import binaries


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what the tests need before the first of them starts: it takes longer than a test may."""
    if session.config.option.collectonly or not session.items:
        return
    programs = [binaries.etcd, binaries.kube_apiserver, binaries.kubectl, binaries.helm]
    used = {fixture for item in session.items for fixture in getattr(item, "fixturenames", ())}
    if "certifying" in used:
        programs += [binaries.cert_manager]
    if "scaling" in used:
        programs += [binaries.kube_controller_manager, binaries.prometheus, binaries.prometheus_adapter]
    with session.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        for program in programs:
            program()


@pytest.fixture(scope="session")
def certifying(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API server with our custom resources and with those of cert-manager, whose controllers run."""
    folder = tmp_path_factory.mktemp("certifying")
    with ApiServer.running(folder) as server:
        install_crds(server)
        # Fields that an older Kubernetes does not know are dropped, and said.
        server.kubectl("create", "--validate=warn", f"--filename={binaries.cert_manager_definitions()}")
        server.kubectl("wait", "--for=condition=Established", "crds", "--all", "--timeout=3m")
        child = Child((binaries.cert_manager(), f"--kubeconfig={server.kubeconfig}"), folder / "cert-manager.log")
        try:
            yield server
        finally:
            child.kill()


@pytest.fixture
async def site(certifying: ApiServer, tmp_path: Path) -> AsyncIterator[Site]:
    """Our programs in a fresh namespace: none of them runs yet."""
    with fresh_namespace(certifying) as namespace:
        async with Site(certifying, namespace, tmp_path).running() as site:
            yield site


@pytest.fixture
async def scaling(tmp_path: Path) -> AsyncIterator[Site]:
    """Our programs in a cluster of their own, whose external metrics are nobody's yet: none of them runs yet."""
    folder = tmp_path / "scaling"
    folder.mkdir()
    with ApiServer.running(folder) as server:
        install_crds(server)
        with fresh_namespace(server) as namespace:
            async with Site(server, namespace, tmp_path).running() as site:
                yield site
