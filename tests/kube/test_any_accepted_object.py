"""Any object that the API server accepts becomes configuration that a real Envoy acknowledges.

All parts are real: an API server, the store on it, the controller, the xDS server and one Envoy. The
objects are drawn from the schema of the custom resource, the same ones each time.
"""

from __future__ import annotations

import asyncio
import contextlib
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
import yaml
from prometheus_client import CollectorRegistry

from controller.api.contract.credentials import CREDENTIAL, SENT, SERVING
from controller.api.contract.route import RouteKey
from controller.api.registry import MODEL_DEPLOYMENT
from controller.api.resources.model import ModelDeployment
from controller.api.schema.values import parse
from controller.frontend.ports import AllocatedPorts
from controller.gateway.bootstrap import HostPort
from controller.reconcile.controller import Controller
from controller.reconcile.dependencies import Dependencies
from controller.store.kube.client import KubeClient
from controller.store.kube.store import KubeStore
from tests.support.entrance import TokenIssuer
from tests.support.envoy import Envoy
from tests.support.kube.addresses import own_address
from tests.support.kube.cluster import Cluster
from tests.support.kube.generated import objects_of
from tests.support.network import Network, unused_port
from tests.support.processes import ROOT
from tests.support.proxies import AllProgrammed
from tests.support.waiting import until
from xds_server.control_plane import ControlPlane, ControlPlaneOptions

COUNT = 300
TOKEN = "the-token-of-these-tests"
KINDS = (MODEL_DEPLOYMENT.kind, "Service", "EndpointSlice", "Deployment", "StatefulSet", "Secret")
WITHIN = 120.0
"""Seconds for all of them together; it takes a few."""
LOOKS_EVERY = 0.5
"""Seconds: to look at hundreds of models is work, of the process that is looked at."""

LET_IN = {
    "frontend": "Gateway",
    "tls": {
        "certificateRefs": [{"name": "serving"}],
        "alpnProtocols": ["h2", "http/1.1"],
        "clientValidation": {"caCertificateRefs": [{"name": "serving"}], "optional": True},
    },
    "jwt": {
        "providers": [
            {
                "name": "issuer",
                "issuer": "https://issuer.example.com",
                "audiences": ["models"],
                "localJWKS": {"type": "Inline", "inline": TokenIssuer().jwks},
            }
        ]
    },
    "rateLimit": {"local": {"rules": [{"limit": {"requests": 5, "unit": "Second"}, "per": "ClientAddress"}]}},
}
"""Who may come in to a model, as a user would write it."""


def specs() -> list[dict[str, Any]]:
    """Draw the specs, with a model and a Service of its own for each: of two that claim one, the younger is refused."""
    definition = yaml.load((ROOT / "deploy" / "crds" / "modeldeployment.yaml").read_text(), yaml.CSafeLoader)
    (version,) = definition["spec"]["versions"]
    drawn = objects_of(version["schema"]["openAPIV3Schema"]["properties"]["spec"], COUNT)
    return [own(index, spec) for index, spec in enumerate(drawn)]


def own(index: int, spec: dict[str, Any]) -> dict[str, Any]:
    """Give a spec its own names; now and then, leave out what all drawn ones have.

    Who is let in is seldom accepted as it is drawn: its fields have to agree. One in ten has it so, another as a user
    would write it.
    """
    left_out = {8: {"offloadingConfig"}, 9: {"serviceRef"}}.get(index % 20, set())
    if index % 10 != 3:
        left_out |= LET_IN.keys() - {"frontend"}
    kept = {field: value for field, value in spec.items() if field not in left_out}
    if index % 10 == 7:
        kept |= LET_IN
    if "serviceRef" in kept:
        kept["serviceRef"] = {**spec["serviceRef"], "name": f"m{index}"}
    return {**kept, "model": f"{spec['model']}{index}"}


def model(index: int, spec: dict[str, Any]) -> dict[str, Any]:
    split = {"annotations": {"beamlit.com/override": f"remote={index % 101}"}} if index % 3 == 0 else {}
    return {
        "apiVersion": MODEL_DEPLOYMENT.api_version,
        "kind": MODEL_DEPLOYMENT.kind,
        "metadata": {"name": f"m{index}", **split},
        "spec": spec,
    }


def service(index: int) -> dict[str, Any]:
    ports = [{"name": "http", "port": 80, "targetPort": 8080}, {"name": "metrics", "port": 9090}]
    return {"metadata": {"name": f"m{index}"}, "spec": {"ports": ports if index % 4 == 0 else ports[:1]}}


def endpoints(index: int) -> dict[str, Any]:
    """Two replicas, at ports where nobody answers; of every fifth model none is ready."""
    ports = [{"name": name, "port": unused_port()} for name in ("http", "metrics")]
    endpoint = {"addresses": [own_address()], "conditions": {"ready": index % 5 > 0}}
    return {
        "metadata": {"name": f"m{index}-1", "labels": {"kubernetes.io/service-name": f"m{index}"}},
        "addressType": "IPv4",
        "endpoints": [endpoint],
        "ports": ports,
    }


def secrets() -> Iterator[dict[str, Any]]:
    """A Secret with whatever a credential may be looked for, and one to serve with."""
    authority = trustme.CA()
    certificate = authority.issue_cert("models.example.com")
    data = {
        "clientSecret": b"hush",
        "apiKey": b"Bearer hush",
        "ca.crt": authority.cert_pem.bytes(),
        "tls.crt": certificate.cert_chain_pems[0].bytes(),
        "tls.key": certificate.private_key_pem.bytes(),
    }
    encoded = {key: b64encode(value).decode() for key, value in data.items()}
    yield {"metadata": {"name": "present", "labels": {CREDENTIAL: SENT}}, "data": encoded}
    labels = {CREDENTIAL: SERVING}
    yield {"metadata": {"name": "serving", "labels": labels}, "type": "kubernetes.io/tls", "data": encoded}


@dataclass(frozen=True)
class Api:
    """The API server, as far as the objects of one namespace go."""

    client: httpx.Client
    namespace: str

    def create(self, group: str, plural: str, raw: dict[str, Any]) -> httpx.Response:
        return self.client.post(f"/{group}/namespaces/{self.namespace}/{plural}", json=raw)

    def models(self) -> list[dict[str, Any]]:
        listed = self.client.get(f"/apis/{MODEL_DEPLOYMENT.api_version}/namespaces/{self.namespace}/modeldeployments")
        items: list[dict[str, Any]] = listed.raise_for_status().json()["items"]
        return items


@pytest.fixture
def api(api_server: Cluster, namespace: str, crds: None) -> Iterator[Api]:
    with api_server.client() as client:
        yield Api(client, namespace)


def create_everything(api: Api) -> int:
    """Create all objects; return how many models the API server accepted."""
    for secret in secrets():
        api.create("api/v1", "secrets", secret).raise_for_status()
    accepted = 0
    for index, spec in enumerate(specs()):
        answer = api.create(f"apis/{MODEL_DEPLOYMENT.api_version}", "modeldeployments", model(index, spec))
        if answer.status_code == 422:
            continue
        answer.raise_for_status()
        accepted += 1
        # What the API server accepts, the program accepts.
        parse(ModelDeployment, answer.json())
        if "serviceRef" in spec:
            api.create("api/v1", "services", service(index)).raise_for_status()
            api.create("apis/discovery.k8s.io/v1", "endpointslices", endpoints(index)).raise_for_status()
    return accepted


@dataclass(frozen=True)
class Running:
    """The control plane, and the one Envoy that it serves."""

    control_plane: ControlPlane
    address: str

    def refused(self) -> dict[str, str]:
        return {
            one.key.name: one.message for client in self.control_plane.server.clients() for one in client.rejections
        }

    def holds(self, name: str, namespace: str) -> bool:
        """Whether Envoy acknowledged everything that a model has."""
        versions = self.control_plane.publisher.versions(RouteKey.of_model(namespace, name))
        holdings = self.control_plane.server.holds(versions)
        return [holding.complete for holding in holdings] == [True]

    async def listens(self, port: int) -> bool:
        try:
            _, writer = await asyncio.open_connection(self.address, port)
        except OSError:
            return False
        writer.close()
        return True


@contextlib.asynccontextmanager
async def running(api_server: Cluster, namespace: str, folder: Path) -> AsyncIterator[Running]:
    network = Network.unused()
    async with (
        KubeClient.from_environment(api_server.kubeconfig) as client,
        KubeStore(client, KINDS, (namespace,)) as store,
    ):
        around = Dependencies(
            proxies=AllProgrammed(),
            clock=lambda: datetime.now(UTC),
            ports=AllocatedPorts(),
        )
        options = ControlPlaneOptions(node_token=TOKEN, gateway_address=network.host(1), health_checks=False)
        control_plane = ControlPlane(store, options, CollectorRegistry())
        tasks = [asyncio.create_task(Controller(store, around).run()), asyncio.create_task(control_plane.run())]
        xds = HostPort("127.0.0.1", await control_plane.start("127.0.0.1:0"))
        envoy = Envoy.joining("envoy", TOKEN, xds, folder, asks_nobody_for_names)
        try:
            await envoy.started()
            yield Running(control_plane, network.host(1))
            assert [task.exception() for task in tasks if task.done()] == []
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await envoy.stop()
            await control_plane.stop(0)


def asks_nobody_for_names(bootstrap: dict[str, Any]) -> None:
    """Let Envoy ask a name server on loopback that does not exist: the names of backends are drawn at random."""
    nobody = {"socket_address": {"address": "127.0.0.1", "port_value": unused_port(), "protocol": "UDP"}}
    bootstrap["typed_dns_resolver_config"] = {
        "name": "envoy.network.dns_resolver.cares",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
            "resolvers": [nobody],
            "dns_resolver_options": {"no_default_search_domain": True},
        },
    }


@pytest.mark.timeout(480)
async def test_any_accepted_object_becomes_configuration_that_envoy_acknowledges(
    api: Api, api_server: Cluster, tmp_path: Path
) -> None:
    accepted = await asyncio.to_thread(create_everything, api)
    # The test is worth something only if most are accepted, and some refused.
    assert COUNT / 2 < accepted < COUNT
    async with running(api_server, api.namespace, tmp_path) as plane:
        found: list[dict[str, Any]] = []

        async def all_decided() -> bool:
            await asyncio.sleep(LOOKS_EVERY)
            found[:] = await asyncio.to_thread(api.models)
            return all("observedGeneration" in one.get("status", {}) for one in found)

        await until(all_decided, "every model has a status", WITHIN)
        served = {one["metadata"]["name"]: one["status"]["route"] for one in found if "route" in one["status"]}

        async def all_held() -> bool:
            await asyncio.sleep(LOOKS_EVERY)
            return bool(plane.refused()) or all(plane.holds(name, api.namespace) for name in served)

        with contextlib.suppress(AssertionError):
            await until(all_held, "Envoy acknowledges everything", WITHIN)
        assert plane.refused() == {}
        assert [name for name in served if not plane.holds(name, api.namespace)] == []
        # It acknowledges a listener before its threads have it, which begin when all clusters have.
        silent: list[str] = []

        async def all_listen() -> bool:
            may_come = {name: route["port"] for name, route in served.items() if is_open(name, route)}
            silent[:] = [name for name, port in may_come.items() if not await plane.listens(port)]
            return not silent

        with contextlib.suppress(AssertionError):
            await until(all_listen, "Envoy listens for everything", WITHIN)
        assert silent == []
        check_variety(list(served.values()))
        for one in found:
            if one["metadata"]["name"] not in served:
                assert says_why(one)


def is_open(name: str, route: dict[str, Any]) -> bool:
    """Whether anybody is let in: an entrance that is as it was drawn names no Secrets that there are, and is closed."""
    return "tls" not in route or int(name.removeprefix("m")) % 10 == 7


def check_variety(routes: list[dict[str, Any]]) -> None:
    """Fail if what was drawn is not worth the test: most are served, and of each kind there are some."""
    remotes = [route["remote"] for route in routes if "remote" in route]
    assert len(routes) >= COUNT / 3
    assert len(remotes) >= COUNT / 4
    for part in ("tls", "auth", "healthCheck", "pathPrefix", "headersToAdd"):
        assert sum(bool(remote.get(part)) for remote in remotes) >= 5, part
    assert len({route["split"]["remote"] for route in routes}) > 10
    for part in ("tls", "jwt", "rateLimits"):
        assert sum(bool(route.get(part)) for route in routes) >= 5, part


def says_why(found: dict[str, Any]) -> bool:
    """Whether a model that is not served says which reference leads nowhere, or whose the port is that it asks for."""
    return any(
        one["type"] in ("ResolvedRefs", "Accepted") and one["status"] == "False" and one["message"]
        for one in found["status"]["conditions"]
    )
