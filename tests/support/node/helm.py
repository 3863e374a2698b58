"""The real Helm, as somebody who has a kubeconfig calls it, and a release of our own chart."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support import processes
from tests.support.kube.cluster import Cluster
from tests.support.kube.crds import remove_crds
from tests.support.node.our_images import CHART
from tests.support.waiting import until_now
from tests.tools import binaries

RELEASE = "beamlit-controller"
CONTROLLER, XDS, GATEWAY = "beamlit-controller", "beamlit-xds-server", "beamlit-gateway"
"""The Deployments of a release of this name."""
_WITHIN = 600.0


def helm(cluster: Cluster, *arguments: object, within: float = 600) -> str:
    """Run helm and return what it says; CalledProcessError with its words if it fails."""
    return run(cluster, str(binaries.helm()), *map(str, arguments), within=within)


def run(cluster: Cluster, *command: str, within: float = 600, input: str | None = None) -> str:  # noqa: A002
    """Run a command in the surroundings of a user of the cluster: kubectl and helm are on its PATH."""
    done: subprocess.CompletedProcess[str] = processes.run(
        command,
        env=surroundings(cluster),
        capture_output=True,
        text=True,
        timeout=within,
        input=input,
    )
    if done.returncode:
        error = subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
        error.add_note(f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        raise error
    said: str = done.stdout
    return said


def surroundings(cluster: Cluster) -> dict[str, str]:
    """The environment of a user of the cluster, whose programs are on PATH and whose home is empty."""
    folder = cluster.folder / "user"
    programs = folder / "bin"
    programs.mkdir(parents=True, exist_ok=True)
    for name, program in (("kubectl", binaries.kubectl()), ("helm", binaries.helm())):
        if not (programs / name).exists():
            (programs / name).symlink_to(program)
    return {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(folder),
        "KUBECONFIG": str(cluster.kubeconfig),
    }


@dataclass(frozen=True, slots=True)
class Release:
    """Our chart, installed."""

    cluster: Cluster
    namespace: str

    @classmethod
    @contextmanager
    def installed(cls, cluster: Cluster, namespace: str, *settings: str) -> Iterator[Release]:
        """A release whose programs are ready; it is uninstalled afterwards, and its namespace deleted."""
        release = cls(cluster, namespace)
        try:
            helm(cluster, "install", RELEASE, CHART, *release._where(), "--create-namespace", *_set(settings))
            for name in (XDS, CONTROLLER, GATEWAY):
                release.await_rollout(name)
            yield release
        finally:
            # Whether a release goes well is tried elsewhere; this one has to go in any case.
            helm(cluster, "uninstall", RELEASE, *release._where(), "--ignore-not-found", "--no-hooks")
            remove_crds(cluster)
            cluster.kubectl("delete", "namespace", namespace, "--ignore-not-found", "--wait=false")

    def upgrade(self, *settings: str) -> None:
        """Upgrade it to these settings in addition, and wait until its programs are the new ones."""
        helm(self.cluster, "upgrade", RELEASE, CHART, *self._where(), "--reuse-values", *_set(settings))
        for name in (XDS, CONTROLLER, GATEWAY):
            self.await_rollout(name)

    def await_rollout(self, name: str, within: float = _WITHIN) -> None:
        """Wait until all pods of one of its Deployments are the newest ones, and ready."""

        def rolled_out() -> bool:
            with self.cluster.client() as client:
                path = f"/apis/apps/v1/namespaces/{self.namespace}/deployments/{name}"
                raw = client.get(path).raise_for_status().json()
            spec, status = raw["spec"], raw.get("status", {})
            return bool(
                status.get("observedGeneration", 0) >= raw["metadata"]["generation"]
                and status.get("updatedReplicas", 0) == spec["replicas"]
                and status.get("replicas", 0) == spec["replicas"]
                and status.get("availableReplicas", 0) == spec["replicas"]
            )

        try:
            until_now(rolled_out, f"{name} is rolled out", within)
        except AssertionError as error:
            error.add_note(self.words(name))
            raise

    def roll_out(self, name: str) -> None:
        """Replace all pods of one of its Deployments, as `kubectl rollout restart` does, and wait for it."""
        self.cluster.kubectl("rollout", "restart", f"deployment/{name}", f"--namespace={self.namespace}")
        self.await_rollout(name)

    def pods(self, component: str) -> tuple[str, ...]:
        """The names of the pods of a component (`controller`, `xds-server`, `gateway`) that are not ending."""
        label = f"--selector=app.kubernetes.io/component={component}"
        said = self.cluster.kubectl("get", "pods", f"--namespace={self.namespace}", label, "--output=json").stdout
        items = json.loads(said)["items"]
        return tuple(item["metadata"]["name"] for item in items if "deletionTimestamp" not in item["metadata"])

    def words(self, name: str) -> str:
        """What there is to say about a Deployment that does not come up."""
        where = f"--namespace={self.namespace}"
        pods = self.cluster.kubectl("get", "pods", where, "--output=wide").stdout
        said = self.cluster.kubectl("logs", where, f"deployment/{name}", "--tail=30", "--all-pods", "--prefix").stdout
        return f"{pods}\n{said}"

    def _where(self) -> tuple[str, ...]:
        return (f"--namespace={self.namespace}", "--timeout=5m")


def _set(settings: tuple[str, ...]) -> Iterator[str]:
    for setting in settings:
        yield from ("--set", setting)
