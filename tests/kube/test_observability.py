"""What an operator sees: queries of the dashboard have answers, alerts fire for their causes and for nothing else.

A real Prometheus scrapes a controller, an xDS server, a gateway and a `beamlit run` while one thing after the other
breaks. The rules are those of deploy/observability, with shorter times; that they wait as long as they say is in
tests/observability.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path

import grpc
import httpx
import pytest
import trustme
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.rpc import status_pb2

from controller.api.timing import ReportTiming
from tests.support.beamlit import Product
from tests.support.forked import Forked
from tests.support.http import plain_http
from tests.support.kube.cluster import User
from tests.support.kube.program import Program
from tests.support.kube.reading_xds import METHOD
from tests.support.kube.site import Site, endpoints, model, options_of, rules_of
from tests.support.load import Traffic, open_loop
from tests.support.network import unused_port
from tests.support.processes import ROOT
from tests.support.prometheus import Prometheus, Target
from tests.support.timing import PATIENT
from tests.support.waiting import PATIENCE, eventually
from xds_server.snapshot.snapshot import CLUSTER

pytestmark = pytest.mark.timeout(600)

FOLDER = ROOT / "deploy" / "observability"
EVERY, WINDOW = 1.0, "5s"
GATEWAY_PORT = 8080
"""Of all models: --gateway-port of the xDS server."""
SHORT = replace(PATIENT, reports=ReportTiming(window=3.0))
MEASURED = {"type": "Requests", "requests": {"target": {"type": "AverageValue", "averageValue": "100"}}}
UNMEASURED = {
    "type": "External",
    "external": {"metric": {"name": "absent"}, "target": {"type": "Value", "value": "1"}},
}


def rules_in_a_hurry(folder: Path) -> Path:
    """The alert rules, with windows of seconds, that wait for nothing."""
    text = (FOLDER / "rules.yaml").read_text()
    text = re.sub(r"for: \d+m", "for: 0s", re.sub(r"\[\d+m\]", f"[{WINDOW}]", text))
    file = folder / "rules.yaml"
    file.write_text(text)
    return file


def queries_of_the_dashboard() -> dict[str, str]:
    """Every query of every panel, as Grafana would send it, with the title of its panel."""
    panels = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    queries = {}
    for panel in panels:
        for target in panel.get("targets", ()):
            query = target["expr"].replace("$__rate_interval", WINDOW)
            queries[re.sub(r"\$(namespace|model)\b", ".*", query)] = panel["title"]
    assert not any("$" in query for query in queries)
    return queries


class Operator:
    """Somebody who looks at the whole dashboard again and again, and gets the alerts. `unseen` had no answer so far."""

    def __init__(self, prometheus: Prometheus) -> None:
        self._prometheus = prometheus
        self.unseen = queries_of_the_dashboard()
        self._looks_at_it_at = time.monotonic()

    async def gets(self, *alerts: str, beside: tuple[str, ...] = ()) -> None:
        """Wait until these alerts fire and no other; those `beside` them may."""
        await eventually(self._look, lambda firing: firing - set(beside) == set(alerts), within=4 * PATIENCE)
        # What there is to see now may not be there any more after what breaks next.
        await asyncio.to_thread(self._look_at_the_dashboard)

    async def sees(self, query: str) -> None:
        """Wait until a query has an answer."""

        async def answer() -> object:
            return (await asyncio.to_thread(self._prometheus.query, query))["result"]

        await eventually(answer, bool)

    async def _look(self) -> frozenset[str]:
        return await asyncio.to_thread(self._look_now)

    def _look_now(self) -> frozenset[str]:
        # Alerts fire between two looks at all else, which is new once in EVERY second.
        if time.monotonic() >= self._looks_at_it_at:
            self._look_at_the_dashboard()
        firing = self._prometheus.query('ALERTS{alertstate="firing"}')["result"]
        return frozenset(one["metric"]["alertname"] for one in firing)

    def _look_at_the_dashboard(self) -> None:
        for query in tuple(self.unseen):
            if self._prometheus.query(query)["result"]:
                del self.unseen[query]
        self._looks_at_it_at = time.monotonic() + EVERY / 2


class Stage:
    """Programs, an Envoy, two models and their clients; and a place in front of Prometheus for one more controller."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.site = site
        self.replicas = [site.backend(f"local-{number}") for number in (1, 2)]
        self.remote = site.backend("remote")
        self.run = Product(folder, partial(Forked, context=SHORT))
        self._folder = folder
        self._gateways: list[Program] = []

    async def start(self) -> None:
        site, start = self.site, partial(Forked, context=SHORT)
        site.xds_server(start=start)
        site.controller(start=start)
        await self.gateway()
        site.write(
            # For so long as restoreAfter a warning stays.
            site.served("chat", self.replicas, self.remote)
            .offloading(percentage=50, maxRequestsPerReplica=4, restoreAfter="1s")
            .measuring(MEASURED)
            .overridden("remote=20"),
            # They share the remote backend, which has no credential.
            site.served("code", self.replicas[:1], self.remote).offloading(restoreAfter="1s").overridden("remote=20"),
        )
        for name in ("chat", "code"):
            await site.until_condition(name, "Ready", "True", within=60)

    async def gateway(self) -> None:
        """Start `beamlit envoy`."""
        assert self.site.certificates
        files = options_of("xds", self.site.certificates.files("gateway"))
        where = ("--xds-address", self.site.replicas[0], "--xds-server-name", self.site.server_name)
        admin = f"127.0.0.1:{unused_port()}"
        drain = ("--drain-delay-seconds", 0, "--drain-seconds", 1)
        command = ("envoy", "--node-id", "gateway-0", *where, *files, "--admin-address", admin, *drain)
        start = partial(Forked, environment={"TMPDIR": str(self._folder)})
        gateway = Program("gateway-0", self._folder, (*command, "--", "--concurrency", "2"), admin, start)
        self._gateways.append(gateway)
        gateway.start()
        await gateway.ready()

    @property
    def scraped(self) -> dict[str, str]:
        """Where each program has its metrics."""
        (xds_server,), (controller,), (gateway,) = self.site.xds_servers, self.site.controllers, self._gateways
        programs = {"xds": xds_server.probe, "controller": controller.probe, "gateway": gateway.probe}
        return {**programs, "run": self.run.admin}

    async def ask_by_host(self, name: str) -> None:
        """Send a request to the port that all models share."""
        async with plain_http() as client:
            headers = {"host": f"{name}.{self.site.namespace}"}
            answer = await client.get(f"http://{self.site.gateway}:{GATEWAY_PORT}/", headers=headers, timeout=60)
        assert answer.status_code == 200, answer.text

    def stop_gateway(self) -> None:
        self._gateways[0].end()

    def ready(self, *, ready: bool) -> None:
        """Have the endpoints of chat be ready, or not."""
        self.site.write(*(endpoints("chat", replica, ready=ready) for replica in self.replicas))

    def user_without(self, resource: str) -> User:
        """Somebody who may do what a controller may, but for one kind of object."""
        rules = [
            {**rule, "resources": [one for one in rule["resources"] if one != resource]}
            for rule in rules_of("controller")
        ]
        name = f"without-{resource.replace('/', '-')}"
        return self.site.cluster.user(self.site.namespace, name, *(rule for rule in rules if rule["resources"]))

    @contextlib.asynccontextmanager
    async def clients(self) -> AsyncIterator[None]:
        """Send 20 requests a second to each model, whatever becomes of them."""
        urls = [f"http://{self.site.gateway}:{await self.site.port(name)}/" for name in ("chat", "code")]
        stop = asyncio.Event()

        def arrivals() -> Iterator[float]:
            for number in count():
                if stop.is_set():
                    return
                yield number / 40

        load = asyncio.create_task(open_loop(urls, arrivals(), Traffic(keepalive=False)))
        try:
            yield
        finally:
            stop.set()
            await load

    @contextlib.asynccontextmanager
    async def one_more(self, spare: Target, user: User) -> AsyncIterator[Program]:
        """Start a controller with rights of its own, and show its metrics in place of those of the spare target."""
        program = self.site.controller(user=user)

        async def mirror() -> None:
            while program.alive:
                with contextlib.suppress(httpx.TransportError):  # Nobody answers there yet, or any more.
                    spare.text = (await program.look("/metrics")).text
                await asyncio.sleep(0.5)

        task = asyncio.create_task(mirror())
        try:
            yield program
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            program.end()
            spare.text = ""

    @contextlib.asynccontextmanager
    async def an_envoy_that_refuses(self) -> AsyncIterator[None]:
        """Have one join that takes the first clusters that it is sent, and none that come later."""
        assert self.site.certificates
        credentials = self.site.certificates.channel_credentials("gateway")
        named = [("grpc.ssl_target_name_override", "localhost")]
        request = partial(discovery_pb2.DeltaDiscoveryRequest, type_url=CLUSTER)
        async with grpc.aio.secure_channel(str(self.site.replicas[0]), credentials, named) as channel:
            call = channel.stream_stream(
                METHOD, lambda one: one.SerializeToString(), discovery_pb2.DeltaDiscoveryResponse.FromString
            )()
            await call.write(request(node=base_pb2.Node(id="refuses", cluster="test"), resource_names_subscribe=["*"]))
            await call.write(request(response_nonce=(await call.read()).nonce))

            async def refuse() -> None:
                while (answer := await call.read()) is not grpc.aio.EOF:
                    no = status_pb2.Status(code=13, message="too new for me")
                    await call.write(request(response_nonce=answer.nonce, error_detail=no))

            refusing = asyncio.create_task(refuse())
            try:
                yield
            finally:
                refusing.cancel()
                await asyncio.gather(refusing, return_exceptions=True)
                call.cancel()


def a_certificate_that_ends() -> bytes:
    """One that is good for a tenth of a day more, of twenty days."""
    now = datetime.now(UTC)
    one = trustme.CA().issue_cert("old", not_before=now - timedelta(days=20), not_after=now + timedelta(hours=2))
    return b"".join(pem.bytes() for pem in one.cert_chain_pems)


@pytest.fixture
async def stage(site: Site, tmp_path: Path) -> AsyncIterator[Stage]:
    folder = tmp_path / "stage"
    folder.mkdir()
    stage = Stage(site, folder)
    try:
        yield stage
    finally:
        for gateway in stage._gateways:
            gateway.kill()


async def test_what_breaks_is_seen_and_nothing_else(stage: Stage, tmp_path: Path) -> None:
    await stage.start()
    with Target.running() as spare:
        async with stage.run.running(), stage.clients():
            targets: dict[str, Target | str] = {**stage.scraped, "spare": spare}
            with Prometheus.running(tmp_path, targets, interval=EVERY, rules=rules_in_a_hurry(tmp_path)) as prometheus:
                operator = Operator(prometheus)
                await requests_break(stage, operator)
                await objects_break(stage, operator)
                await programs_break(stage, operator, spare)
                assert operator.unseen == {}, "queries of the dashboard that never had an answer"


async def requests_break(stage: Stage, operator: Operator) -> None:
    await operator.gets()
    await stage.ask_by_host("chat")
    await operator.sees('beamlit_gateway_requests_total{namespace="",name="",code="2xx"} > 0')

    for replica in stage.replicas:
        replica.kill()
    # A side that Envoy asks no more fails nothing.
    await operator.gets("BeamlitFailingOver", beside=("BeamlitSideFails",))

    stage.remote.kill()
    beside = ("BeamlitFailingOver", "BeamlitSideFails")
    await operator.gets("BeamlitRemoteDown", "BeamlitRequestsFail", beside=beside)

    stage.ready(ready=False)
    await operator.gets("BeamlitNothingAnswers", "BeamlitRemoteDown", "BeamlitRequestsFail", beside=beside)

    for server in (*stage.replicas, stage.remote):
        server.revive()
    stage.ready(ready=True)
    await operator.gets()


async def objects_break(stage: Stage, operator: Operator) -> None:
    site = stage.site
    lost = model("lost", stage.remote)  # its Service is nowhere
    site.write(lost)
    await operator.gets("BeamlitModelNotReady")
    await site.remove(lost)

    site.write(unmeasured := site.served("unmeasured", stage.replicas).measuring(UNMEASURED))
    await operator.gets("BeamlitSignalsUnknown", beside=("BeamlitModelNotReady",))
    await site.remove(unmeasured)

    stage.run.save("mistaken.yaml", "kind: ModelDeployment\napiVersion: deployment.beamlit.com/v1alpha1\n")
    await operator.gets("BeamlitFolderMistakes")
    stage.run.remove("mistaken.yaml")
    await operator.gets()


async def programs_break(stage: Stage, operator: Operator, spare: Target) -> None:
    site = stage.site
    assert site.certificates
    (controller,) = site.controllers

    async with stage.an_envoy_that_refuses():
        # With another time to connect, a remote backend has a cluster of its own: that is the one which is refused.
        remote = f"{stage.remote.host}:{stage.remote.port}"
        site.write(model("code", stage.remote).with_remote(remote, pathPrefix="/v2", timeouts={"connect": "7s"}))
        # What it refuses, it does not have: so the model is not served as it asks to be. Nor does it report its load.
        beside = ("BeamlitModelNotReady", "BeamlitSignalsUnknown")
        await operator.gets("BeamlitEnvoysBehind", "BeamlitEnvoysSilent", beside=beside)
        # It refuses once, and that may be longer ago than a window.
        await operator.sees('increase(beamlit_xds_nacks_total{type="CDS"}[10m]) > 0')
    await operator.gets()

    certificate = site.certificates.files("controller")[0]
    good = certificate.read_bytes()
    certificate.write_bytes(a_certificate_that_ends())
    await operator.gets("BeamlitCertificateEnds")
    certificate.write_bytes(good)

    async with stage.one_more(spare, stage.user_without("services")):
        await operator.gets("BeamlitStoreTrouble")
    await operator.gets()

    assert controller.end() == 0
    async with stage.one_more(spare, stage.user_without("modeldeployments/status")):
        # The splits by hand are in force; one that is new cannot be told to anybody.
        site.write(model("code", stage.remote).overridden("remote=40"))
        await operator.gets("BeamlitReconcileErrors", beside=("BeamlitModelNotReady",))
    await operator.gets("BeamlitNobodyDecides")

    stage.stop_gateway()
    await operator.gets("BeamlitNobodyDecides", "BeamlitNoEnvoy")
