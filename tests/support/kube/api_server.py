"""etcd and kube-apiserver as processes of the test: validation, CEL, apply, watches, Leases and RBAC are real.

Nothing else of a cluster runs. No controller writes EndpointSlices, mints service accounts or empties a deleted
namespace, and no kubelet runs a Pod. Both processes listen on loopback and die with the test run.
"""

from __future__ import annotations

import secrets
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import trustme

from tests.support.kube.cluster import Cluster
from tests.support.network import unused_port
from tests.support.processes import Child, processes_of
from tests.support.waiting import Deadline
from tests.tools import binaries

FRONT_PROXY = "front-proxy-client"
"""The name by which other API servers know this one, as every installer of Kubernetes calls it."""
READY_WITHIN = 60.0
"""Seconds. It takes 4 on two idle cores; the rest is for a machine with other work."""


class Etcd:
    """One etcd without fsync: it survives a kill, but not the machine's."""

    def __init__(self, folder: Path) -> None:
        self.url = f"http://127.0.0.1:{unused_port()}"
        self._peers = f"http://127.0.0.1:{unused_port()}"
        self._data = folder / "etcd"
        self._log = folder / "etcd.log"
        self._process: Child | None = None

    def start(self) -> None:
        """Start it, with what it knew when it was stopped."""
        assert self._process is None, "etcd runs already"
        self._process = Child(
            (
                binaries.etcd(),
                "--name=test",
                f"--data-dir={self._data}",
                "--unsafe-no-fsync",
                f"--listen-client-urls={self.url}",
                f"--advertise-client-urls={self.url}",
                f"--listen-peer-urls={self._peers}",
                f"--initial-advertise-peer-urls={self._peers}",
                f"--initial-cluster=test={self._peers}",
            ),
            self._log,
        )

    @property
    def running(self) -> bool:
        return self._process is not None

    def stop(self) -> None:
        """Kill it. What it knows stays."""
        if self._process:
            self._process.kill()
            self._process = None

    def forget(self) -> None:
        """Kill it. It comes back empty-handed."""
        self.stop()
        shutil.rmtree(self._data, ignore_errors=True)

    def last_words(self) -> str:
        return self._process.last_words() if self._process else "etcd does not run"


class ApiServer(Cluster):
    """A kube-apiserver and its etcd, for which ports and a folder are kept over restarts."""

    namespaces_end_by_themselves = False

    def __init__(self, folder: Path) -> None:
        port = unused_port()
        ca = trustme.CA()
        super().__init__(folder, f"https://127.0.0.1:{port}", ca.cert_pem.bytes(), secrets.token_hex(16))
        ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / "serving.pem")
        (folder / "tokens.csv").write_text(f'{self.token},admin,admin,"system:masters"\n')
        front = trustme.CA()
        front.cert_pem.write_to_path(folder / "front-ca.pem")
        front.issue_cert(FRONT_PROXY, common_name=FRONT_PROXY).private_key_and_cert_chain_pem.write_to_path(
            folder / "front.pem"
        )
        self.etcd = Etcd(folder)
        self.etcd_url = self.etcd.url
        self._port = port
        self._process: Child | None = None

    @classmethod
    @contextmanager
    def running(cls, folder: Path) -> Iterator[ApiServer]:
        """One that is ready. Its logs stay in the folder, what etcd wrote does not."""
        server = cls(folder)
        try:
            server.start()
            yield server
        finally:
            server.stop()
            server.etcd.forget()

    def start(self, *, empty: bool = False) -> None:
        """Start it and wait until it is ready."""
        self.launch(empty=empty)
        self.until_ready()

    def until_ready(self) -> None:
        """Wait until one that was launched is ready, in any thread."""
        deadline = Deadline(time.monotonic(), READY_WITHIN)
        # One client for all looks: a connection costs more than an answer.
        with self.client(timeout=1.0) as client:
            while not _says_ready(client):
                assert self._process is not None
                words = f"{self._process.last_words()}\n{self.etcd.last_words()}"
                assert self._process.alive, f"kube-apiserver ended:\n{words}"
                assert not deadline.has_passed(time.monotonic()), (
                    f"kube-apiserver is not ready after {READY_WITHIN} s:\n{words}"
                )
                time.sleep(deadline.pause(time.monotonic()))

    def launch(self, *, empty: bool = False) -> None:
        """Start it on the ports it had, without waiting; with `empty`, on an etcd that came back empty-handed.

        In the main thread: the kernel ends a process when the thread that started it ends.
        """
        assert self._process is None, "kube-apiserver runs already"
        if empty:
            self.etcd.forget()
        if not self.etcd.running:
            self.etcd.start()
        self._process = Child((binaries.kube_apiserver(), *self._options()), self.folder / "kube-apiserver.log")

    def _options(self) -> tuple[str, ...]:
        pem, front = self.folder / "serving.pem", self.folder / "front.pem"
        return (
            f"--etcd-servers={self.etcd.url}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self._port}",
            # It refuses to write its own loopback address into the endpoints of the Service `kubernetes`.
            "--endpoint-reconciler-type=none",
            f"--tls-cert-file={pem}",
            f"--tls-private-key-file={pem}",
            f"--cert-dir={self.folder}",
            "--authorization-mode=RBAC",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pem}",
            f"--service-account-signing-key-file={pem}",
            "--service-cluster-ip-range=10.202.0.0/16",
            # The aggregation layer: API servers behind an APIService believe who has a certificate of this authority.
            f"--requestheader-client-ca-file={self.folder / 'front-ca.pem'}",
            f"--requestheader-allowed-names={FRONT_PROXY}",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={front}",
            f"--proxy-client-key-file={front}",
            # Without a controller there is no service account `default`, and no Pod could be written.
            "--disable-admission-plugins=ServiceAccount",
        )

    def stop(self) -> None:
        """Kill it, whatever it is doing; its etcd goes on."""
        if self._process:
            self._process.kill()
            self._process = None

    @property
    def launched(self) -> bool:
        """Whether it was started, and not stopped since."""
        return self._process is not None

    def pause(self) -> None:
        """Make it silent: connections stay open and are still taken, nothing is answered."""
        assert self._process is not None
        self._process.send(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send(signal.SIGCONT)

    def ready(self) -> bool:
        """Whether it says that it is."""
        with self.client(timeout=1.0) as client:
            return _says_ready(client)


def _says_ready(client: httpx.Client) -> bool:
    with suppress(httpx.TransportError):
        return client.get("/readyz").status_code == httpx.codes.OK
    return False


def servers_of(folder: Path) -> list[str]:
    """The command lines of every etcd and kube-apiserver that runs in this folder, or in one below."""
    programs = (str(binaries.etcd()), str(binaries.kube_apiserver()))
    return [command for command in processes_of(folder).values() if command.startswith(programs)]
