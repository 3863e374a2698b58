"""`beamlit run DIR` as a process of its own, over a folder of YAML that says what the backends are."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import yaml

from controller.cli.bootstrap import HostPort
from controller.cli.state import State
from tests.data_plane.support.backends import Backend, Backends
from tests.data_plane.support.children import Child
from tests.data_plane.support.envoy import Envoy
from tests.data_plane.support.loopback import unused_port
from tests.data_plane.support.waiting import until
from xds_server.resources import names
from xds_server.resources.names import ModelKey

MODEL = "chat"
LOCAL_CLUSTER = names.local_cluster(ModelKey("default", MODEL))


class Product:
    """The control plane and the folder that it watches."""

    def __init__(self, backends: Backends, folder: Path) -> None:
        self.backends = backends
        self.front = unused_port()
        self.url = f"http://127.0.0.1:{self.front}/v1/chat"
        self.envoys: list[Envoy] = []
        self._folder = folder
        self._objects = folder / "objects"
        self._objects.mkdir()
        self._state = State(folder / "state")
        self._xds = HostPort("127.0.0.1", unused_port())
        self._admin = HostPort("127.0.0.1", unused_port())
        self._process: Child | None = None
        self._save("model", _model(f"{backends.remote.host}:{backends.remote.port}"), _service(self.front))
        self.list_replicas(backends.local)

    def list_replicas(self, replicas: Sequence[Backend], *, ready: bool = True) -> None:
        """Write the EndpointSlice, as the endpoint controller of a cluster would."""
        self._save("endpoints", _slice(replicas, ready))

    async def start(self) -> None:
        """Start the control plane and wait until it is ready."""
        command = [sys.executable, "-m", "controller.cli.main", "run", self._objects, "--log-level", "warning"]
        command += ["--xds-address", self._xds, "--admin-address", self._admin, "--state-dir", self._state.directory]
        self._process = Child(command, self._folder / "control-plane.log")

        async def is_ready() -> bool:
            assert self._process is not None
            assert self._process.alive, f"beamlit run ended:\n{self._process.last_words()}"
            try:
                async with httpx.AsyncClient() as client:
                    return (await client.get(f"http://{self._admin}/readyz")).status_code == 200
            except httpx.HTTPError:
                return False

        await until(is_ready, "beamlit run is ready", within=20)

    async def join(self, node_id: str) -> Envoy:
        """Start an Envoy that joins, and wait until it serves the model."""
        envoy = Envoy(node_id, self._state.node_token(), self._xds, self._folder)
        self.envoys.append(envoy)
        await envoy.started()

        async def serves() -> bool:
            assert self._process is not None
            assert self._process.alive, f"beamlit run ended:\n{self._process.last_words()}"
            listeners = await envoy.stats("^listener_manager.total_listeners_")
            hosts = await envoy.hosts(LOCAL_CLUSTER)
            healthy = sum(not troubles for troubles in hosts.values())
            return listeners.get("listener_manager.total_listeners_active", 0) >= 2 and healthy >= 1

        await until(serves, f"{node_id} serves the model", within=20)
        return envoy

    def kill(self) -> None:
        """SIGKILL the control plane."""
        assert self._process is not None
        self._process.kill()

    async def stop(self) -> None:
        for envoy in self.envoys:
            await envoy.stop()
        if self._process is not None:
            self._process.terminate()

    def _save(self, name: str, *documents: dict[str, Any]) -> None:
        partial = self._objects / f".{name}.partial"
        partial.write_text(yaml.safe_dump_all(documents))
        partial.replace(self._objects / f"{name}.yaml")


def _model(remote: str) -> dict[str, Any]:
    return {
        "apiVersion": "deployment.beamlit.com/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": MODEL, "namespace": "default"},
        "spec": {
            "model": MODEL,
            "environment": "production",
            "modelSourceRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": MODEL},
            "serviceRef": {"name": MODEL, "targetPort": 8000},
            "offloadingConfig": {
                "behavior": {"percentage": 50},
                "remoteBackend": {"host": remote, "scheme": "http", "pathPrefix": "/$workspace/models/$model"},
            },
        },
    }


def _service(port: int) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": MODEL, "namespace": "default"},
        "spec": {"ports": [{"name": "http", "port": 8000, "targetPort": 8000, "nodePort": port}]},
    }


def _slice(replicas: Sequence[Backend], ready: bool) -> dict[str, Any]:
    conditions = {"ready": ready, "serving": ready, "terminating": False}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{MODEL}-1",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": MODEL},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8000}],
        "endpoints": [{"addresses": [one.host], "conditions": conditions} for one in replicas],
    }
