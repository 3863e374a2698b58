"""The manifests of docs/autoscaling.md, as they stand there, with what brings the numbers of a real Prometheus.

Half of the requests in flight are at the remote backend. The autoscaler of Kubernetes has to read all of them: by what
is local alone it would want half of the replicas.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import yaml

from controller.api.resources.model import OVERRIDE
from tests.support.documents import yaml_of
from tests.support.kube.metrics_apis import autoscaler, register_metrics_api, start_metrics_api
from tests.support.kube.site import Site, deployment
from tests.support.load import Traffic, closed_loop
from tests.support.processes import ROOT, Children
from tests.support.prometheus import Prometheus
from tests.support.waiting import eventually
from tests.tools import binaries

DOCUMENT = ROOT / "docs" / "autoscaling.md"
MODEL = "php-apache"
CLIENTS, EACH, WANTED = 21, 3, 7
"""The manifests want three requests for each replica. So many are hardly ever all at one side by chance."""


async def test_by_the_rule_for_prometheus_adapter_the_autoscaler_reads_what_stays_and_what_left(
    scaling: Site, tmp_path: Path
) -> None:
    await serve(scaling)
    (xds_server,), (controller,) = scaling.xds_servers, scaling.controllers
    scraped = {"xds-server": xds_server.probe, "controller": controller.probe}
    with Prometheus.running(tmp_path, scraped) as prometheus, adapted(scaling, prometheus):
        autoscaled = yaml.safe_load(yaml_of(DOCUMENT, "HorizontalPodAutoscaler"))
        scaling.cluster.apply(autoscaled, namespace=scaling.namespace)
        async with demanding(scaling):
            await eventually(lambda: replicas(scaling), lambda wanted: wanted == WANTED, within=120)
            asked = keda_query().replace('namespace="default"', f'namespace="{scaling.namespace}"')
            await eventually(lambda: total(prometheus, asked), lambda seen: seen > (WANTED - 1) * EACH)
            # What nobody knows is no lull: the Deployment stays as it is.
            xds_server.kill()
            unknown = ("False", "FailedGetExternalMetric")
            await eventually(lambda: scaling_active(scaling), lambda said: said == unknown, within=60)
            assert await replicas(scaling) == WANTED


def test_keda_takes_its_manifest(scaling: Site) -> None:
    server = scaling.cluster
    server.kubectl("apply", "--server-side", f"--filename={binaries.keda_definitions()}")
    server.kubectl("wait", "--for=condition=Established", "crds", "--all", "--timeout=3m")
    told = ("apply", "--server-side", "--validate=strict", "--filename=-", f"--namespace={scaling.namespace}")
    server.kubectl(*told, input=yaml_of(DOCUMENT, "ScaledObject"))


def keda_query() -> str:
    """What KEDA asks Prometheus for by its manifest."""
    (trigger,) = yaml.safe_load(yaml_of(DOCUMENT, "ScaledObject"))["spec"]["triggers"]
    return str(trigger["metadata"]["query"])


async def total(prometheus: Prometheus, asked: str) -> float:
    """The answer to a query, as KEDA reads it: the only series, and 0 without one."""
    result = (await asyncio.to_thread(prometheus.query, asked))["result"]
    return sum(float(one["value"][1]) for one in result) if len(result) <= 1 else -1.0


async def serve(site: Site) -> None:
    """A model of which half is sent to the remote backend, and a Deployment that has one replica."""
    served = site.served(MODEL, [site.backend("local-1")], site.backend("remote"))
    site.write(served.annotated(**{OVERRIDE: "remote=50"}), deployment(MODEL))
    site.kubectl(
        "patch", "deployment", MODEL, "--subresource=status", "--type=merge", '--patch={"status":{"replicas":1}}'
    )
    await site.start()


@asynccontextmanager
async def demanding(site: Site) -> AsyncIterator[None]:
    """So many requests are in flight while the block lasts, and the autoscaler judges. None of them fails."""
    url, stop = f"http://{site.gateway}:{await site.port(MODEL)}/", asyncio.Event()
    traffic = Traffic(headers=lambda _: {"on-local": "delay=0.5", "on-remote": "delay=0.5"})
    load = asyncio.create_task(closed_loop(url, CLIENTS, 100_000, traffic, stop))
    try:
        with autoscaler(site.cluster):
            yield
    finally:
        stop.set()
        report = await load
    assert report.errors == {}


@contextmanager
def adapted(site: Site, prometheus: Prometheus) -> Iterator[None]:
    """prometheus-adapter with the rule of the document serves the external metrics of the cluster."""
    cluster = site.cluster
    rules = site.folder / "rules.yaml"
    rules.write_text(yaml_of(DOCUMENT, "externalRules"))
    command = (
        binaries.prometheus_adapter(),
        f"--lister-kubeconfig={cluster.kubeconfig}",
        f"--prometheus-url={prometheus.url}",
        f"--config={rules}",
        "--metrics-relist-interval=2s",
    )
    with Children(site.folder) as children, cluster.client() as client:
        port = start_metrics_api(cluster, children, "prometheus-adapter", command)
        register_metrics_api(client, "prometheus-adapter", port, {"external.metrics.k8s.io": ("v1beta1",)})
        yield


async def replicas(site: Site) -> int:
    """How many the Deployment shall have."""
    return int((await read(site, f"/apis/apps/v1/namespaces/{site.namespace}/deployments/{MODEL}"))["spec"]["replicas"])


async def scaling_active(site: Site) -> tuple[str, str]:
    """Status and reason of what the only autoscaler says of its metrics."""
    listed = await read(site, f"/apis/autoscaling/v2/namespaces/{site.namespace}/horizontalpodautoscalers")
    (one,) = listed["items"]
    conditions = one.get("status", {}).get("conditions", ())
    found = [(said["status"], said["reason"]) for said in conditions if said["type"] == "ScalingActive"]
    return found[0] if found else ("", "")


async def read(site: Site, path: str) -> dict[str, Any]:
    def ask() -> dict[str, Any]:
        with site.cluster.client() as client:
            return dict(client.get(path).raise_for_status().json())

    return await asyncio.to_thread(ask)
