"""`beamlit run DIR` as a process of its own, over a folder of YAML that says what the backends are."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import yaml

from controller.api.contract.route import RouteKey
from controller.api.timing import FolderTiming, Timing
from controller.gateway.bootstrap import HostPort
from controller.programs.state import StateDirectory
from tests.support.data_plane.backends import Backend, Backends
from tests.support.envoy import Envoy
from tests.support.forked import Forked
from tests.support.http import plain_http
from tests.support.network import unused_port
from tests.support.timing import PATIENT
from tests.support.waiting import until
from xds_server.resources import names

MODEL = "chat"
PROMPT = FolderTiming(quiet=0.02, together=0.1, losing=0.1, emptied=0.1)
"""For a folder whose files are written whole, as `Product.save` does: each change is believed soon."""
LOCAL_CLUSTER = names.local_cluster(RouteKey.of_model("default", MODEL))


class Product:
    """The control plane and the folder that it watches.

    `remote` is `spec.offloadingConfig.remoteBackend`, by default the one of the backends over plain HTTP; `timing` are
    the product's own times.
    """

    def __init__(
        self, backends: Backends, folder: Path, remote: dict[str, Any] | None = None, timing: Timing = PATIENT
    ) -> None:
        self.backends = backends
        self.front = unused_port()
        self.url = f"http://127.0.0.1:{self.front}/v1/chat"
        self.envoys: list[Envoy] = []
        self._folder = folder
        self._timing = timing
        self._objects = folder / "objects"
        self._objects.mkdir()
        self._state = StateDirectory(folder / "state")
        self._xds = HostPort("127.0.0.1", unused_port())
        self._admin = HostPort("127.0.0.1", unused_port())
        self._process: Forked | None = None
        self._written: dict[str, Any] = {}
        plain = {"host": f"{backends.remote.host}:{backends.remote.port}", "scheme": "http"}
        self.offload_to(remote or plain)
        self.save("service", _service(self.front))
        self.list_replicas(backends.local)

    def offload_to(self, remote: dict[str, Any], away: int | None = None, **spec: Any) -> None:
        """Write the model with this remote backend, and more fields of its spec.

        `away` sends so many percent there whatever happens.
        """
        self._written = _model({"pathPrefix": "/$workspace/models/$model", **remote})
        self._written["spec"].update(spec)
        if away is not None:
            self._written["metadata"]["annotations"] = {"beamlit.com/override": f"remote={away}"}
        self.save("model", self._written)

    async def model(self) -> dict[str, Any]:
        """Return the model as the control plane reports it."""
        (model,) = await self._models()
        return dict(model)

    async def _models(self) -> list[dict[str, Any]]:
        """Return what there is of it: nothing before the folder was read, which is ready, too, if that takes long."""
        return list((await self.asked("/status")).json()["items"])

    async def says(self, **conditions: str) -> str:
        """Wait until the model as it was written last has these reasons; return the message of the first."""
        status = await self.shows(lambda _: True, **conditions)
        return message_of(status, next(iter(conditions)))

    async def shows(self, good: Callable[[dict[str, Any]], object], **conditions: str) -> dict[str, Any]:
        """Wait until the model as it was written last has these reasons, and the rest of its status is good as well.

        Return that very status: the next one may say something else.
        """
        seen: dict[str, Any] = {}

        async def is_so() -> bool:
            models = await self._models()
            if not models or not models[0].get("status"):
                return False
            (model,) = models
            if model["metadata"].get("annotations") != self._written["metadata"].get("annotations"):
                return False
            now = model["metadata"]["generation"]
            if _known(model["spec"]) != _known(self._written["spec"]) or model["status"]["observedGeneration"] != now:
                return False
            seen.clear()
            seen.update(model["status"])
            reasons = {one["type"]: one["reason"] for one in seen["conditions"]}
            return all(reasons.get(type_) == reason for type_, reason in conditions.items()) and bool(good(seen))

        await until(is_so, f"the model says {conditions}", within=60)
        return seen

    async def all_go(self, side: str) -> None:
        """Wait until requests go to one side, "local" or "remote": ten in a row, each on a connection of its own.

        Envoy acknowledges on its main thread what its workers learn a moment later.
        """

        async def goes_there() -> bool:
            async with plain_http() as client:
                return (await client.get(self.url)).headers.get(names.ROUTE_HEADER) == side

        async def all_do() -> bool:
            return all([await goes_there() for _ in range(10)])

        await until(all_do, f"requests go to the {side} side", within=60)

    async def asked(self, path: str) -> httpx.Response:
        """Ask the control plane at its admin address."""
        async with plain_http() as client:
            return await client.get(f"http://{self._admin}{path}")

    @property
    def log(self) -> str:
        """What the control plane logged."""
        return (self._folder / "control-plane.log").read_text()

    def list_replicas(self, replicas: Sequence[Backend], *, ready: bool = True) -> bool:
        """Write the EndpointSlice, as the endpoint controller of a cluster would; tell whether it says anything new."""
        return self.save("endpoints", _slice(replicas, ready))

    async def start(self, log_level: str = "warning", *options: str) -> None:
        """Start the control plane and wait until it is ready."""
        command = ["run", self._objects, "--log-level", log_level, *options]
        command += ["--xds-address", self._xds, "--admin-address", self._admin, "--state-dir", self._state.path]
        self._process = Forked(command, self._folder / "control-plane.log", context=self._timing)

        async def is_ready() -> bool:
            assert self._process is not None
            assert self._process.alive, f"beamlit run ended:\n{self._process.last_words()}"
            try:
                async with plain_http() as client:
                    return (await client.get(f"http://{self._admin}/readyz")).status_code == 200
            except httpx.HTTPError:
                return False

        await until(is_ready, "beamlit run is ready", within=60)

    async def join(self, node_id: str, token: str | None = None) -> Envoy:
        """Start an Envoy that joins, and wait until it serves the model."""
        envoy = Envoy.joining(node_id, token or self._state.node_token(), self._xds, self._folder)
        self.envoys.append(envoy)
        await envoy.started()

        async def serves() -> bool:
            assert self._process is not None
            assert self._process.alive, f"beamlit run ended:\n{self._process.last_words()}"
            hosts = await envoy.hosts(LOCAL_CLUSTER)
            return any(not troubles for troubles in hosts.values()) and await envoy.has_begun()

        await until(serves, f"{node_id} serves the model", within=60)
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

    def save(self, name: str, *documents: dict[str, Any]) -> bool:
        """Write a file of the folder, whole at once; tell whether that changes anything."""
        file, partial = self._objects / f"{name}.yaml", self._objects / f".{name}.partial"
        text = yaml.safe_dump_all(documents)
        is_new = not file.exists() or file.read_text() != text
        partial.write_text(text)
        partial.replace(file)
        return is_new


def message_of(status: dict[str, Any], condition: str) -> str:
    """Return what a condition of a status says."""
    (message,) = (one["message"] for one in status["conditions"] if one["type"] == condition)
    return str(message)


def _known(spec: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is never reported."""
    known = copy.deepcopy(spec)
    auth = known["offloadingConfig"]["remoteBackend"].get("authConfig", {})
    auth.get("oauthConfig", {}).pop("clientSecret", None)
    return known


def _model(remote: dict[str, Any]) -> dict[str, Any]:
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
                "remoteBackend": remote,
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
