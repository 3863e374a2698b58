"""A Helm, that of BEAMLIT_HELM if it is given, from an install to an uninstall on a real API server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.chart import CHART, NAMESPACE, RELEASE
from tests.support.kube.api_server import ApiServer
from tests.support.node.helm import helm
from tests.support.objects import a_model
from tests.tools.binaries import numbers

WHERE = f"--namespace={NAMESPACE}"
# No pods run here: what a release waits for, and its hooks, are tried on a node.
ALONE = "--no-hooks"
ROLLED = "controller.podAnnotations.rolled=once"
LEFT = "deployments,services,secrets,configmaps,serviceaccounts,roles,rolebindings,poddisruptionbudgets,leases,jobs"


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[ApiServer]:
    """An API server without our custom resources."""
    folder = tmp_path / "empty"
    folder.mkdir()
    with ApiServer.running(folder) as server:
        yield server


def test_a_release_is_installed_upgraded_rolled_back_uninstalled_and_installed_again(empty: ApiServer) -> None:
    oauth = "config.defaultRemoteBackend.authConfig.oauthConfig"
    values = ("beamlitApiToken=bWU6aHVzaC1odXNo", f"{oauth}.clientId=me", f"{oauth}.clientSecret=hush-hush")
    sets = [f"--set={one}" for one in values]
    assert "STATUS: deployed" in helm(empty, "install", RELEASE, CHART, WHERE, "--create-namespace", ALONE, *sets)
    names = set(everything_of_ours(empty))
    assert {"deployment.apps/beamlit-gateway", "secret/beamlit-credentials"} <= names
    empty.kubectl("wait", "--for=condition=Established", "crds", "--all", "--timeout=3m")
    empty.apply(a_model("chat").fronting("chat", 80).raw)

    kept = ["--reset-then-reuse-values"] if knows_how_to_keep_values(empty) else sets
    helm(empty, "upgrade", RELEASE, CHART, WHERE, ALONE, *kept, f"--set={ROLLED}")
    assert rolled(empty) == "once"
    assert "hush-hush" in helm(empty, "get", "values", RELEASE, WHERE), "what was set before is kept"
    helm(empty, "rollback", RELEASE, "1", WHERE, ALONE)
    assert rolled(empty) == ""
    assert set(everything_of_ours(empty)) == names

    helm(empty, "uninstall", RELEASE, WHERE, ALONE)
    assert everything_of_ours(empty) == []
    assert "beamlit" not in empty.kubectl("get", "clusterroles,clusterrolebindings", "--output=name").stdout
    assert empty.kubectl("get", "modeldeployments", "--output=name").stdout.split("/")[1:] == ["chat\n"]
    assert "STATUS: deployed" in helm(empty, "install", RELEASE, CHART, WHERE, ALONE)


def knows_how_to_keep_values(server: ApiServer) -> bool:
    """Whether this Helm has what docs/install.md upgrades with; an older one is given all values again."""
    return numbers(helm(server, "version", "--template={{.Version}}")) >= (3, 14)


def rolled(server: ApiServer) -> str:
    """The annotation of the controller's pods that the upgrade brings."""
    path = "--output=jsonpath={.spec.template.metadata.annotations.rolled}"
    return server.kubectl("get", WHERE, "deployment", "beamlit-controller", path).stdout


def everything_of_ours(server: ApiServer) -> list[str]:
    """What the release has in its namespace, but for what helm itself remembers."""
    found = server.kubectl("get", WHERE, LEFT, "--output=name").stdout.split()
    return sorted(name for name in found if "/beamlit" in name and "helm.release" not in name)
