"""A cluster of one real node, and the parts of it that a test stops, changes or looks into."""

from __future__ import annotations

import contextlib
import fcntl
import json
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import httpx
import trustme

from tests.support.kube.cluster import Cluster
from tests.support.node.components import API_SERVICE, FRONT_PROXY, NAME, PORT, Components, ProxyMode
from tests.support.node.images import Image, base_images
from tests.support.node.missing import program
from tests.support.node.namespaces import Namespaces, remove_leftovers
from tests.support.processes import Child, Children
from tests.support.waiting import Deadline, until_now
from tests.tools import binaries

MANIFESTS = Path(__file__).parent / "manifests"
_FOLDER = "beamlit-node-"
READY_WITHIN = 300.0
"""Seconds. It takes a tenth of it on two idle cores; the rest is for a machine with other work."""


class Node(Cluster):
    """A cluster whose one node lives in namespaces of this machine. It and its pods end with this process."""

    def __init__(self, folder: Path, place: Namespaces, children: Children) -> None:
        ca, front = trustme.CA(), trustme.CA()
        url = f"https://{place.address}:{PORT}"
        super().__init__(folder, url, ca.cert_pem.bytes(), secrets.token_hex(16))
        names = ("127.0.0.1", "kubernetes", "kubernetes.default", "kubernetes.default.svc", API_SERVICE)
        serving = ca.issue_cert(place.address, *names)
        serving.private_key_and_cert_chain_pem.write_to_path(folder / "serving.pem")
        ca.issue_cert(place.address, NAME).private_key_and_cert_chain_pem.write_to_path(folder / "kubelet.pem")
        ca.cert_pem.write_to_path(folder / "ca.pem")
        (folder / "tokens.csv").write_text(f'{self.token},admin,admin,"system:masters"\n')
        front.cert_pem.write_to_path(folder / "front-ca.pem")
        front.issue_cert(FRONT_PROXY, common_name=FRONT_PROXY).private_key_and_cert_chain_pem.write_to_path(
            folder / "front.pem"
        )
        self.place = place
        self._components = Components(folder, place, self.kubeconfig)
        self._children = children
        self._kube_proxy: Child | None = None

    @classmethod
    @contextlib.contextmanager
    def running(cls, folder: Path, proxy_mode: ProxyMode = "nftables") -> Iterator[Node]:
        """A node that is Ready, on which names resolve."""
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers()
        with Namespaces.fresh(folder) as place, Children(folder) as children:
            node = cls(folder, place, children)
            node._start(proxy_mode)
            yield node

    @property
    def audit_log(self) -> Path:
        """What service accounts did, for tests.support.kube.audit."""
        return self._components.audit_log

    def run_kube_proxy(self, mode: ProxyMode) -> None:
        """Have Services implemented in this way. What the one before made is removed by its own --cleanup."""
        if self._kube_proxy:
            self._kube_proxy.kill()
            self.place.run(*self._components.kube_proxy(mode), "--cleanup")
        self._kube_proxy = self._launch("kube-proxy", self._components.kube_proxy(mode))

        def programmed() -> bool:
            """Its rules come all at once; one of them leads to the API server, which answers anybody something."""
            assert self._kube_proxy
            self._kube_proxy.check()
            with contextlib.suppress(subprocess.CalledProcessError):
                self.place.run(program("curl"), "--silent", "--insecure", "--max-time", "5", f"https://{API_SERVICE}")
                return True
            return False

        until_now(programmed, f"kube-proxy's rules are in force in mode {mode}", within=60)

    def import_images(self, images: Iterable[Image]) -> None:
        """Have these images, as if they had been pulled."""
        cache = binaries.cache() / "images"
        cache.mkdir(exist_ok=True)
        for image in images:
            self.import_archive(image.save(cache))

    def import_archive(self, archive: Path) -> None:
        """Have the image of an archive (`docker save`, `buildah push`), under the name that is written in it."""
        self.place.run(
            *(binaries.ctr(), f"--address={self._components.socket}", "--namespace=k8s.io"),
            *("images", "import", "--all-platforms", archive),
            timeout=300,
        )

    def kill_pod(self, name: str, namespace: str) -> None:
        """SIGKILL every container of a pod, as the kernel does when memory ends. The kubelet starts them again."""
        raw = json.loads(self.kubectl("get", "pod", name, f"--namespace={namespace}", "--output=json").stdout)
        for container in raw["status"]["containerStatuses"]:
            identity = container["containerID"].removeprefix("containerd://")
            command = (binaries.ctr(), f"--address={self._components.socket}", "--namespace=k8s.io")
            self.place.run(*command, "tasks", "kill", "--signal=SIGKILL", identity)

    def tag_image(self, name: str, another: str) -> None:
        """Give an image that is there another name besides."""
        ctr = (binaries.ctr(), f"--address={self._components.socket}", "--namespace=k8s.io")
        self.place.run(*ctr, "images", "tag", "--force", name, another)

    def install(self, name: str) -> None:
        """Apply one of the manifests beside this module."""
        self.kubectl("apply", "--filename", MANIFESTS / f"{name}.yaml")

    def uninstall(self, name: str) -> None:
        """Delete what `install` applied."""
        self.kubectl("delete", f"--filename={MANIFESTS / f'{name}.yaml'}", "--ignore-not-found")

    def await_rollout(self, workload: str, namespace: str = "default", within: float = 120) -> None:
        """Wait until all replicas of a workload (`deployment/coredns`) are the newest ones, and available."""
        command = ("rollout", "status", workload, f"--namespace={namespace}", "--timeout=20s")

        def rolled_out() -> bool:
            with contextlib.suppress(Exception):
                self.kubectl(*command)
                return True
            return False

        until_now(rolled_out, f"{workload} in {namespace} is rolled out", within)

    def _launch(self, name: str, command: tuple[object, ...]) -> Child:
        return self._children.start(name, self.place.program(*command))

    def _start(self, proxy_mode: ProxyMode) -> None:
        components = self._components
        etcd = self._launch("etcd", components.etcd())
        runtime = self._launch("containerd", components.containerd())
        server = self._launch("kube-apiserver", components.kube_apiserver())
        self._await((etcd, server), self.ready, "kube-apiserver is ready")
        self._launch("kube-controller-manager", components.kube_controller_manager())
        self._launch("kube-scheduler", components.kube_scheduler())
        self._await((runtime,), components.socket.exists, "containerd listens")
        self.import_images(base_images())
        kubelet = self._launch("kubelet", components.kubelet())
        self._await((kubelet,), self._node_is_ready, "the node is Ready")
        self.run_kube_proxy(proxy_mode)
        self._await((kubelet,), self._has_default_account, "namespaces have their service account")
        self.install("images")
        self.install("coredns")
        self.await_rollout("deployment/coredns", "kube-system", READY_WITHIN)

    def _await(self, children: tuple[Child, ...], good: Callable[[], bool], what: str) -> None:
        deadline = Deadline(time.monotonic(), READY_WITHIN)
        while not good():
            for child in children:
                child.check()
            assert not deadline.has_passed(time.monotonic()), "\n".join(
                [f"not within {READY_WITHIN} s: {what}", *(child.last_words() for child in children)]
            )
            time.sleep(0.1)

    def ready(self) -> bool:
        """Whether the API server serves."""
        try:
            with self.client(timeout=5) as client:
                return client.get("/readyz").is_success
        except httpx.TransportError:
            return False

    def _node_is_ready(self) -> bool:
        with self.client() as client:
            answer = client.get(f"/api/v1/nodes/{NAME}")
        conditions = answer.json()["status"].get("conditions", ()) if answer.is_success else ()
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    def _has_default_account(self) -> bool:
        with self.client() as client:
            return client.get("/api/v1/namespaces/kube-system/serviceaccounts/default").is_success


@contextlib.contextmanager
def work_folder() -> Iterator[Path]:
    """A folder for a node, after those of killed runs are removed. Its path is short: sockets are below it."""
    for other in Path("/tmp").glob(f"{_FOLDER}*"):
        with contextlib.suppress(OSError), (other / "lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(other, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=_FOLDER, dir="/tmp"))
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
