"""One cluster for everybody who asks in the same folder, whichever process he is: for all workers of a test run.

Who comes first starts a keeper, a process that has the cluster as its own and ends it when nobody is left. Everybody
holds a shared lock on one file for as long as he uses the server; the keeper waits for an exclusive one. The kernel
gives a lock back however its holder ends.

    python -m tests.support.kube.shared FOLDER CLUSTER
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from tests.support.kube.api_server import ApiServer
from tests.support.kube.cluster import Cluster
from tests.support.kube.crds import install_crds
from tests.support.kube.endpoint_controllers import cluster_with_endpoints
from tests.support.processes import ROOT


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[ApiServer]:
    """An API server with our custom resources, and nothing else."""
    with ApiServer.running(folder) as server:
        install_crds(server)
        yield server


CLUSTERS: Mapping[str, Callable[[Path], AbstractContextManager[ApiServer]]] = {
    "api-server": _alone,
    "with-endpoints": cluster_with_endpoints,
}
"""What may be shared, by the name that the command has for it."""

# The keeper is nobody's child: its starter may be gone before the others are.
_ORPHANED = ("sh", "-c", '"$@" &', "sh")


class _Keepsake:
    """The files by which the users of a folder and its keeper know of each other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.starting = folder / "starting.lock"
        self.using = folder / "using.lock"
        self.where = folder / "where.json"
        self.log = folder / "keeper.log"

    def write(self, server: ApiServer) -> None:
        partial = self.where.with_suffix(".partial")
        where = {"url": server.url, "ca": server.ca.decode(), "token": server.token, "etcd": server.etcd_url}
        partial.write_text(json.dumps(where))
        partial.replace(self.where)

    def read(self, folder: Path) -> Cluster:
        """The server as one user sees it, who keeps what is his own in a folder."""
        where = json.loads(self.where.read_text())
        cluster = Cluster(folder, where["url"], where["ca"].encode(), where["token"])
        cluster.namespaces_end_by_themselves = ApiServer.namespaces_end_by_themselves
        cluster.etcd_url = where["etcd"]
        return cluster


@contextlib.contextmanager
def shared_cluster(shared: Path, folder: Path, which: str = "api-server") -> Iterator[Cluster]:
    """The cluster of a folder, one of `CLUSTERS`; what this user keeps goes into a folder of his own."""
    shared.mkdir(exist_ok=True)
    keepsake = _Keepsake(shared)
    with keepsake.using.open("a") as using:
        with _locked(keepsake.starting):
            # A keeper whose last user has just gone ends its server first.
            fcntl.flock(using, fcntl.LOCK_SH)
            if not keepsake.where.exists():
                _start(keepsake, which)
        yield keepsake.read(folder)


def _start(keepsake: _Keepsake, which: str) -> None:
    command = (*_ORPHANED, sys.executable, "-m", "tests.support.kube.shared", str(keepsake.folder), which)
    with keepsake.log.open("ab") as log:
        keeper = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True
        )
        said, _ = keeper.communicate()
    assert said == b"ready\n", f"no API server:\n{keepsake.log.read_text()[-3000:]}"


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _keep(keepsake: _Keepsake, which: str) -> None:
    """Run a cluster until nobody uses it any more."""
    with keepsake.using.open("a") as using, CLUSTERS[which](keepsake.folder) as server:
        keepsake.write(server)
        print("ready", flush=True)
        os.close(sys.stdout.fileno())  # Who started us reads to the end.
        try:
            fcntl.flock(using, fcntl.LOCK_EX)
        finally:
            keepsake.where.unlink()


if __name__ == "__main__":
    _keep(_Keepsake(Path(sys.argv[1])), sys.argv[2])
