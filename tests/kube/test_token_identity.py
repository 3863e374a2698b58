"""Tokens of ServiceAccounts as the real API server makes and knows them, and a day on which it is away."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest
from envoy.service.discovery.v3 import discovery_pb2

from controller.api.contract.reports import PATH
from controller.api.timing import StreamTiming, Timing
from controller.gateway.bootstrap import HostPort
from controller.programs import xds_server as program
from tests.support.kube.cluster import Cluster
from tests.support.kube.proxy import Proxy
from tests.support.network import unused_port
from tests.support.protocol.calls import ADS, OK, bearer, outcome
from tests.support.tls import Certificates
from tests.support.xds_program import xds_options
from xds_server.snapshot.snapshot import CLUSTER

AUDIENCE = "beamlit-xds"
METHOD = f"/{ADS}/DeltaAggregatedResources"
SOON = StreamTiming(token_rest=0.1)
DENIED, UNKNOWN = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED


@dataclass(frozen=True)
class Serving:
    """An xDS server with the namespace of its clients."""

    cluster: Cluster
    namespace: str
    certificates: Certificates
    port: int
    reports: int

    def token(self, account: str, pod: str = "", audience: str = AUDIENCE) -> str:
        """Have the API server make a token, as the kubelet does for a projected volume."""
        spec: dict[str, object] = {"audiences": [audience], "expirationSeconds": 3600}
        with self.cluster.client() as client:
            if pod:
                uid = client.get(f"/api/v1/namespaces/{self.namespace}/pods/{pod}").json()["metadata"]["uid"]
                spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid}
            path = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/{account}/token"
            answer = client.post(path, json={"spec": spec}).raise_for_status()
        return str(answer.json()["status"]["token"])

    async def joins(self, token: str, node: str = "envoy-0") -> tuple[grpc.StatusCode, str]:
        said = discovery_pb2.DeltaDiscoveryRequest(type_url=CLUSTER)
        said.node.id = node
        code, why = await outcome(self.port, bearer(self.certificates, token), METHOD, said)
        return code, why

    async def reads_reports(self, token: str = "", name: str = "") -> int:
        """The status with which who shows a token, or the certificate of this name, is answered."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        certified = self.certificates.client(name).context if name else None
        verify = certified() if certified else ssl.create_default_context(cafile=self.certificates.files("reader")[2])
        async with (
            httpx.AsyncClient(trust_env=False, verify=verify, timeout=60, headers=headers) as client,
            client.stream("GET", f"https://localhost:{self.reports}{PATH}") as answer,
        ):
            return answer.status_code


@pytest.fixture
async def serving(
    api_server: Cluster, crds: None, namespace: str, proxy: Proxy, tmp_path: Path
) -> AsyncIterator[Serving]:
    """The program itself, whose API server is behind the proxy."""
    certificates, metadata = Certificates.make(tmp_path / "tls"), {"namespace": namespace}
    accounts = [{"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {**metadata, "name": name}}
                for name in ("gateway", "controller", "nobody")]  # fmt: skip
    pods = [{"kind": "Pod", "apiVersion": "v1", "metadata": {**metadata, "name": name},
             "spec": {"serviceAccountName": "gateway", "containers": [{"name": "envoy", "image": "envoy"}]}}
            for name in ("envoy-0", "envoy-1")]  # fmt: skip
    api_server.apply(*accounts, *pods, namespace=namespace)
    certificate, key, ca = certificates.files("xds-server")
    tokens, reports = HostPort("127.0.0.1", unused_port()), HostPort("127.0.0.1", unused_port())
    account = f"system:serviceaccount:{namespace}"
    bound = (f"{account}:gateway=gateway/@pod", f"{account}:controller=controller")
    tls = program.XdsServerTls(certificate, key, ca, clients=bound, token_address=tokens)
    options = xds_options(
        tmp_path,
        kubeconfig=proxy.kubeconfig,
        overrides={"namespaces": namespace},
        reports_address=reports,
        tls=tls,
        timing=Timing(streams=SOON),
    )
    async with program._programs(options) as tasks:
        yield Serving(api_server, namespace, certificates, tokens.port, reports.port)
        for task in tasks:
            assert not task.done()


def reviews(proxy: Proxy) -> int:
    return sum(one.resource == "tokenreviews" for one in proxy.requests)


async def test_a_pod_is_by_its_token_what_its_account_may_be_and_no_other_pod(serving, proxy):
    ours = serving.token("gateway", "envoy-0")
    assert await serving.joins(ours) == OK
    assert await serving.joins(ours) == OK
    assert reviews(proxy) == 1, "asked once"
    code, why = await serving.joins(ours, "envoy-1")
    assert (code, why) == (DENIED, "the client is gateway/envoy-0, and not the gateway 'envoy-1'")
    for refused, words in (
        (serving.token("gateway"), f"no client of this server is system:serviceaccount:{serving.namespace}:gateway"),
        (serving.token("nobody"), f"no client of this server is system:serviceaccount:{serving.namespace}:nobody"),
        (serving.token("controller"), "the client is controller, which is nobody for xDS"),
    ):
        code, why = await serving.joins(refused)
        assert (code, words in why) == (DENIED, True), why

    asked = reviews(proxy)
    assert (await serving.joins(serving.token("gateway", "envoy-0", "https://kubernetes.default.svc")))[0] is UNKNOWN
    assert reviews(proxy) == asked, "a token for the API server is not even sent there"
    head, claims, signature = ours.split(".")
    forged = f"{head}.{claims}.{signature[:-8]}AAAAAAAA"
    for _ in range(3):
        code, why = await serving.joins(forged)
        assert (code, "the API server does not know the token" in why) == (UNKNOWN, True)
    assert reviews(proxy) == asked + 1

    assert await serving.reads_reports(serving.token("controller")) == 200
    assert await serving.reads_reports(ours) == 403
    assert await serving.reads_reports(forged) == await serving.reads_reports() == 401
    assert await serving.reads_reports(name="controller") == 200
    assert await serving.reads_reports(name="gateway") == 403


async def test_while_the_api_server_is_away_who_is_known_comes_in_and_others_hear_that_they_may_come_again(
    serving, proxy
):
    known, new = serving.token("gateway", "envoy-0"), serving.token("gateway", "envoy-1")
    assert await serving.joins(known) == OK
    async with proxy.away():
        assert await serving.joins(known) == OK
        code, why = await serving.joins(new, "envoy-1")
        assert (code, "the API server" in why) == (grpc.StatusCode.UNAVAILABLE, True), why
    await asyncio.sleep(SOON.token_rest)
    proxy.fail(lambda request: request.resource == "tokenreviews", 403)
    code, why = await serving.joins(new, "envoy-1")
    assert (code, "has no right to ask" in why) == (grpc.StatusCode.UNAVAILABLE, True), why
    await asyncio.sleep(SOON.token_rest)
    assert await serving.joins(new, "envoy-1") == OK


async def test_the_token_of_a_pod_that_is_gone_is_nobodys(serving, proxy):
    gone = serving.token("gateway", "envoy-1")
    with serving.cluster.client() as client:
        path = f"/api/v1/namespaces/{serving.namespace}/pods/envoy-1"
        client.request("DELETE", path, content=json.dumps({"gracePeriodSeconds": 0})).raise_for_status()
    code, _ = await serving.joins(gone, "envoy-1")
    assert code is UNKNOWN
