"""`beamlit run`: requests follow what the replicas show of themselves, and what a Prometheus says."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import pytest_asyncio
import yaml

from controller.api.timing import FolderTiming, PollTiming, ReportTiming, SignalTiming
from tests.support.answers import Answers, saying
from tests.support.beamlit import Product, ask, eventually
from tests.support.data_plane.backends import Backends
from tests.support.e2e_manifests import endpoints, model, service, text_of
from tests.support.forked import Forked
from tests.support.network import unused_port
from tests.support.timing import PATIENT

pytestmark = pytest.mark.asyncio(loop_scope="module")

OFTEN = PollTiming(every=0.1, answer=10.0, longest_pause=0.2, old_after=1.0)
TIMING = replace(
    PATIENT,
    folder=FolderTiming(relist=3600.0),
    signals=SignalTiming(prometheus=OFTEN, scrape=OFTEN),
    # Until the rate of requests is known again after a split: nothing returns before.
    reports=ReportTiming(reported_every=0.1, window=3.0),
)
TARGET = {"type": "AverageValue", "averageValue": "4"}
# With `restoreAfter: 0s` a tenth may stay at once to find out what the demand is: it hangs on when a report comes.
LEFT = ("0/100 Overloaded", "10/90 Overloaded")


def page(number: float) -> str:
    return f'# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{{engine="0"}} {number}\n'


def answer(number: float) -> str:
    return json.dumps({"status": "success", "data": {"resultType": "scalar", "result": [1, str(number)]}})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def prometheus() -> AsyncIterator[Answers]:
    async with Answers(saying(answer(0))).listening() as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def product(prometheus: Answers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Product]:
    home = tmp_path_factory.mktemp("run")
    informer = {"type": "prometheus", "prometheus": {"address": f"127.0.0.1:{prometheus.port}"}}
    (home / "config.yaml").write_text(yaml.safe_dump({"metricInformer": informer}))
    product = Product(home, partial(Forked, context=TIMING))
    async with product.running("--envoy", "--config", home / "config.yaml"):
        yield product


class Measured:
    """A model with one metric, in front of one replica; it comes back as soon as the metric is clear."""

    def __init__(self, name: str, product: Product, backends: Backends) -> None:
        self.name, self.port = name, unused_port()
        self._product = product
        self._backends = backends

    async def save(self, metric: dict[str, Any], *, named_port: int = 0) -> None:
        asked = model(self.name, self._backends.remote)
        asked["spec"]["offloadingConfig"] |= {
            "behavior": {"percentage": 100, "restoreAfter": "0s"},
            "metrics": [metric],
        }
        front = service(self.name, self.port)
        front["spec"]["ports"][0]["targetPort"] = self._backends.local[0].port
        workload = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": self.name, "namespace": "default"},
            "spec": {
                "selector": {"matchLabels": {"app": self.name}},
                "template": {
                    "metadata": {"labels": {"app": self.name}},
                    "spec": {"containers": [{"name": "a", "ports": [{"name": "m", "containerPort": named_port}]}]},
                },
            },
        }
        others = [workload] if named_port else []
        text = text_of(asked, front, endpoints(self.name, self._backends.local[0]), *others)
        self._product.save(f"{self.name}.yaml", text)
        await self._product.programmed(self.name)

    async def split(self, *wanted: str) -> None:
        await eventually(lambda: self._product.split(self.name), lambda seen: seen in wanted)

    async def side(self, wanted: str) -> None:
        await eventually(lambda: ask(self.port), lambda reply: reply.side == wanted)

    async def signal(self, state: str, **wanted: str) -> None:
        """Wait until its one signal has a state, and these fields: one that is not measured yet is Unknown, too."""

        async def look() -> dict[str, Any]:
            return next(iter((await self._product.status(self.name)).get("signals", ())), {})

        await eventually(look, lambda seen: seen.items() >= {"state": state, **wanted}.items())


async def test_requests_follow_the_queue_that_the_replica_shows(product: Product, backends: Backends) -> None:
    host = backends.local[0].host
    async with Answers(saying(page(1))).listening(host) as metrics:
        one = Measured("scraped", product, backends)
        scrape = {"port": "m", "metric": {"name": "queue"}, "target": TARGET}
        await one.save({"type": "Scrape", "scrape": scrape}, named_port=metrics.port)
        await one.split("100/0 Steady")
        await one.side("local")
        metrics.behaviour = saying(page(4))
        await one.split(*LEFT)
        await one.side("remote")
        await one.signal("Breached", current="4")
        # A replica that says nothing brings nothing back, and sends nothing away.
        metrics.behaviour = saying("", 500)
        await one.signal("Unknown", message="no replica shows its metrics: the answer is 500")
        await one.split("0/100 SignalsUnknown", "10/90 SignalsUnknown")
        metrics.behaviour = saying(page(0))
        await one.split("100/0 Steady")
        await one.side("local")


async def test_requests_follow_what_a_prometheus_says(
    product: Product, backends: Backends, prometheus: Answers
) -> None:
    one = Measured("external", product, backends)
    # Of an expression it is not known when that was measured: a minute would be waited for before requests return.
    external = {"metric": {"name": "sum(queue)"}, "window": "0s", "target": TARGET}
    await one.save({"type": "External", "external": external})
    await one.split("100/0 Steady")
    prometheus.behaviour = saying(answer(9.5))
    await one.split(*LEFT)
    await one.side("remote")
    await one.signal("Breached", current="9.5")
    prometheus.behaviour = saying(answer(0))
    await one.split("100/0 Steady")
    await one.side("local")


async def test_a_port_that_no_container_has_is_told(product: Product, backends: Backends) -> None:
    one = Measured("nameless", product, backends)
    scrape = {"port": "m", "metric": {"name": "queue"}, "target": TARGET}
    await one.save({"type": "Scrape", "scrape": scrape})
    await one.signal("Unknown", message="no container of the workload has a port named m")


async def test_the_cpu_of_pods_cannot_be_known_in_a_folder(product: Product, backends: Backends) -> None:
    one = Measured("cpu", product, backends)
    resource = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 90}}
    await one.save({"type": "Resource", "resource": resource})
    words = "there is no metrics API in a folder: use Requests, Scrape, or External with metricInformer prometheus"
    await one.signal("Unknown", message=words)
    await one.side("local")
