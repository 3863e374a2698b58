"""The Helm chart as the real helm renders it."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.processes import ROOT

CHART = ROOT / "deploy" / "chart"
INSTALL = ROOT / "deploy" / "install.yaml"
RELEASE, NAMESPACE = "beamlit-controller", "beamlit-system"
"""Of `deploy/install.yaml`, and of whoever says no others."""

NEW_KUBERNETES = "1.37.0"
"""What it is rendered for, unless an option says otherwise: each Helm has another default, that of 3.12 is 1.27."""

EVERYTHING = (
    "installMetricServer=true",
    "networkPolicy.enabled=true",
    "serviceMonitor.enabled=true",
    "prometheusRule.enabled=true",
    "dashboard.enabled=true",
    "certificates.clients={gateway/edge-1,sidecar/team-a}",
    "allowedNamespaces={default,team-a}",
    "config.namespaces={default,team-a}",
    "config.defaultRemoteBackend.authConfig.oauthConfig.clientId=me",
    "config.defaultRemoteBackend.authConfig.oauthConfig.clientSecret=hush-hush",
    "beamlitApiToken=aHVzaDpodXNo",
)
"""Everything switched on."""

CLIENT = (
    "config.defaultRemoteBackend.authConfig.oauthConfig.clientId=a-client",
    "config.defaultRemoteBackend.authConfig.oauthConfig.clientSecret=hush-hush",
)
"""A client of the default remote backend."""

Object = dict[str, Any]


class RefusedError(Exception):
    """Helm did not take it; the message is what it said."""


@dataclass(frozen=True, slots=True)
class Chart:
    """The chart, and the helm that renders it. What that keeps goes into `folder`."""

    helm: Path
    folder: Path

    def run(self, *arguments: object) -> str:
        """Run helm and return what it prints. Raises RefusedError."""
        places = {f"HELM_{name}_HOME": str(self.folder / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
        environment = {**os.environ, **places, "KUBECONFIG": str(self.folder / "no-kubeconfig")}
        command = [str(self.helm), *map(str, arguments)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
        if ended.returncode:
            raise RefusedError(ended.stderr + ended.stdout)
        return ended.stdout

    def text(self, *values: str, options: Iterable[object] = (), release: str = RELEASE) -> str:
        """Render with these `--set` and other options."""
        sets = (f"--set={one}" for one in values)
        return _rendered(self, release, (*sets, *map(str, options)))

    def objects(self, *values: str, options: Iterable[object] = (), release: str = RELEASE) -> list[Object]:
        """Render, and read what came out."""
        text = self.text(*values, options=options, release=release)
        return [one for one in yaml.load_all(text, yaml.CSafeLoader) if one]

    def lint(self, *values: str) -> str:
        """Lint as strictly as helm can. Raises RefusedError."""
        return self.run("lint", "--strict", CHART, *(f"--set={one}" for one in values))


@functools.cache
def _rendered(chart: Chart, release: str, options: tuple[str, ...]) -> str:
    """Render once, however many tests look at it. Raises RefusedError."""
    place = (f"--namespace={NAMESPACE}", f"--kube-version={NEW_KUBERNETES}")
    return chart.run("template", release, CHART, *place, *options)


def install_manifest(chart: Chart) -> str:
    """Write `deploy/install.yaml`: the chart with its defaults, without hooks, and the namespace before it."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    head = "# Written by `make manifests` from deploy/chart; do not edit. docs/install.md says what to do with it.\n"
    return f"{head}---\n{yaml.safe_dump(namespace)}{chart.text(options=['--no-hooks'])}"


def named(objects: Iterable[Object], kind: str, name: str) -> Object:
    """Find the one object of this kind and name."""
    (found,) = (one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name))
    return found


def pods(objects: Iterable[Object]) -> list[tuple[str, Object]]:
    """List the pod specs, each with the name of what makes it."""
    return [
        (f"{one['kind']}/{one['metadata']['name']}", one["spec"]["template"]["spec"])
        for one in objects
        if one["kind"] in ("Deployment", "Job")
    ]


def configuration_of(objects: Iterable[Object]) -> Object:
    """Read the configuration file that the programs are given."""
    written: Object = yaml.safe_load(named(objects, "ConfigMap", "beamlit-config")["data"]["config.yaml"])
    return written


def container_of(objects: Iterable[Object], deployment: str) -> Object:
    """Find the container of a Deployment."""
    (container,) = named(objects, "Deployment", deployment)["spec"]["template"]["spec"]["containers"]
    assert isinstance(container, dict)
    return container


def copies() -> dict[Path, Path]:
    """What the chart has of other folders, since helm reads none but its own: each file by where it comes from."""
    observability = ROOT / "deploy" / "observability"
    return {observability / name: CHART / "files" / name for name in ("dashboard.json", "rules.yaml")}


def write_manifests() -> None:
    """Write what is made of other files anew, `deploy/install.yaml` last: `python -m tests.support.chart`."""
    import tempfile  # noqa: PLC0415

    from tests.tools import binaries  # noqa: PLC0415

    for original, copy in copies().items():
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(original.read_bytes())
    with tempfile.TemporaryDirectory() as folder:
        INSTALL.write_text(install_manifest(Chart(binaries.helm(), Path(folder))))


if __name__ == "__main__":
    write_manifests()
