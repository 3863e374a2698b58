"""`beamlit restore` where Kubernetes itself writes endpoints: Services are given back without a controller."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from controller.api.kubernetes.fronting import FINALIZER, FRONTED_KEY
from controller.api.timing import REAL, LeaseTiming, TakeoverTiming, Timing
from controller.store.objects import micro_time
from tests.support.beamlit import beamlit
from tests.support.forked import Forked
from tests.support.kube.cluster import Cluster
from tests.support.kube.crds import install_crds
from tests.support.kube.definitions import delete_definitions
from tests.support.kube.endpoint_controllers import ServiceHand, cluster_with_endpoints
from tests.support.kube.proxy import Proxy
from tests.support.kube.request import Request
from tests.support.kube.taking_over import QUICK, taking_over
from tests.support.kube.user import UserHand
from tests.support.objects import a_model
from tests.support.timing import PATIENT
from tests.support.waiting import eventually, until_now

SOON = replace(PATIENT, takeover=QUICK)
SLOW = replace(PATIENT, takeover=TakeoverTiming(kube_proxy_within=60.0))
"""kube-proxy is waited for until the test is over, unless the command ends before."""
LEASE = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"
MERGE = {"Content-Type": "application/merge-patch+json"}


@pytest.fixture(scope="module")
def endpoint_controllers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One of the module's own: a restore looks at all controllers of a cluster, and needs no custom resources."""
    with cluster_with_endpoints(tmp_path_factory.mktemp("endpoint_controllers")) as cluster:
        yield cluster


def write_models(hand: ServiceHand, *names: str, controller_class: str = "") -> None:
    """A Service with two pods and a model in front of it, for each name."""
    for number, name in enumerate(names):
        spec = {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}
        hand.service(spec, name)
        for pod in (1, 2):
            hand.pod(f"{name}-{pod}", f"10.1.{number}.{pod}", labels={"app": name})
        model = a_model(name).fronting(name, 80).in_namespace(hand.namespace).raw
        UserHand(hand.server).apply_now({**model, "spec": {**model["spec"], "controllerClass": controller_class}})


@asynccontextmanager
async def taken_over(hand: ServiceHand, *names: str) -> AsyncIterator[dict[str, dict[str, Any]]]:
    """Services that a controller took over, which runs while the block does; yields what their owners had written."""
    hand.gateways("10.2.0.1")
    write_models(hand, *names)
    before = {name: hand.written_by_owners(name) for name in names}
    async with taking_over(hand.server.kubeconfig, hand.namespace):
        for name in names:
            await until_taken_over(hand, name)
        yield before


async def until_taken_over(hand: ServiceHand, name: str) -> None:
    async def led_to_gateway() -> bool:
        ways = await asyncio.to_thread(hand.ways, name)
        return FRONTED_KEY in hand.selector(name) and {one.partition(":")[0] for one in ways} == {"10.2.0.1"}

    await eventually(led_to_gateway, bool, within=60)


async def orphaned(hand: ServiceHand, *names: str) -> dict[str, dict[str, Any]]:
    """Services that were taken over by a controller that is gone."""
    async with taken_over(hand, *names) as before:
        pass
    return before


async def restore(hand: ServiceHand, *options: object, kubeconfig: Path | None = None, timing: Timing = SOON) -> Any:
    return await beamlit("restore", "--kubeconfig", kubeconfig or hand.server.kubeconfig, *options, timing=timing)


def everything(hand: ServiceHand) -> tuple[object, ...]:
    return ("--all", "--namespaces", hand.namespace)


def assert_restored(hand: ServiceHand, before: dict[str, dict[str, Any]]) -> None:
    for number, (name, written) in enumerate(before.items()):
        assert hand.written_by_owners(name) == written
        assert "beamlit-controller" not in hand.managers(name)
        assert hand.read("services", f"{name}-beamlit") is None
        managers = {one["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] for one in hand.slices(name)}
        assert managers == {"endpointslice-controller.k8s.io"}
        assert hand.ways(name) == {f"10.1.{number}.1:8080", f"10.1.{number}.2:8080"}


def model_of(hand: ServiceHand, name: str) -> dict[str, Any]:
    found = hand.read("modeldeployments", name)
    assert found
    return found


async def test_everything_is_as_it_was_and_done_again_nothing_is_to_be_done(hand: ServiceHand) -> None:
    before = await orphaned(hand, "chat", "code")
    assert FINALIZER in model_of(hand, "chat")["metadata"]["finalizers"]
    seen = await restore(hand, *everything(hand), "--dry-run")
    assert (seen.code, "would be as its owner wrote it" in seen.output) == (0, True)
    assert FRONTED_KEY in hand.selector("chat")
    ended = await restore(hand, *everything(hand), timing=REAL)
    assert ended.code == 0, ended
    assert_restored(hand, before)
    steps = [line for line in ended.output.splitlines() if line.startswith(f"{hand.namespace}/chat")]
    assert steps[0].endswith("its selector is as its owner wrote it")
    assert steps[-1].endswith("chat is as its owner wrote it")
    model = model_of(hand, "chat")
    assert "finalizers" not in model["metadata"]
    local = model["status"]["route"]["local"]
    assert (local["service"], local.get("fronted"), model["status"].get("takeover")) == ("chat", None, None)
    again = await restore(hand, *everything(hand))
    assert (again.code, again.output) == (0, "nothing is taken over\n")


async def test_one_service_is_restored_and_the_others_stay(hand: ServiceHand) -> None:
    before = await orphaned(hand, "chat", "code")
    with hand.server.client() as client:
        path = f"/apis/deployment.beamlit.com/v1alpha1/namespaces/{hand.namespace}/modeldeployments/chat"
        client.delete(path).raise_for_status()
    assert "deletionTimestamp" in model_of(hand, "chat")["metadata"]
    ended = await restore(hand, f"{hand.namespace}/chat")
    assert ended.code == 0, ended
    assert_restored(hand, {"chat": before["chat"]})
    assert hand.read("modeldeployments", "chat") is None
    assert FRONTED_KEY in hand.selector("code")
    assert FINALIZER in model_of(hand, "code")["metadata"]["finalizers"]
    absent = await restore(hand, "absent", "-n", hand.namespace)
    assert (absent.code, absent.output) == (0, f"{hand.namespace}/absent is not taken over\nnothing is taken over\n")


async def test_interrupted_after_any_write_it_goes_on_from_there(hand: ServiceHand, tmp_path: Path) -> None:
    names = [f"chat-{number}" for number in range(1, 9)]
    before = await orphaned(hand, *names)
    most = 0
    async with Proxy(hand.server, tmp_path).running() as proxy:
        for number, name in enumerate(names, start=1):
            done = await interrupted(hand, proxy, name, number, tmp_path)
            most = max(most, done)
            ended = await restore(hand, f"{hand.namespace}/{name}")
            assert ended.code == 0, ended
    assert_restored(hand, before)
    assert 5 <= most < len(names), f"with {most} writes of one Service there is none after which it was not interrupted"


async def interrupted(hand: ServiceHand, proxy: Proxy, name: str, after: int, folder: Path) -> int:
    """Kill a restore right after its write of this number; return how many it did."""
    seen = 0

    def is_last(request: Request) -> bool:
        nonlocal seen
        seen += request.writes
        return request.writes and seen == after

    with proxy.answers_held(is_last) as gate:
        command = ("restore", f"{hand.namespace}/{name}", "--kubeconfig", proxy.kubeconfig)
        process = Forked(command, folder / f"{name}.log", context=SOON)

        async def stands() -> bool:
            return bool(gate.waiting) or not process.alive

        await eventually(stands, bool, within=60)
        process.kill()
    return seen


async def test_ctrl_c_says_how_to_go_on(hand: ServiceHand, tmp_path: Path) -> None:
    before = await orphaned(hand, "chat")
    command = ("restore", f"{hand.namespace}/chat", "--kubeconfig", hand.server.kubeconfig)
    process = Forked(command, tmp_path / "log", context=SLOW)
    try:

        async def widened() -> bool:
            return FRONTED_KEY not in hand.selector("chat")

        await eventually(widened, bool, within=30)
        process.send(signal.SIGINT)

        async def alive() -> bool:
            return process.alive

        await eventually(alive, lambda alive: not alive, within=30)
        assert process.terminate() == 130
        assert "beamlit: run it again to go on from here\nbeamlit: interrupted\n" in (tmp_path / "log").read_text()
    finally:
        process.kill()
    assert (await restore(hand, *everything(hand))).code == 0
    assert_restored(hand, before)


async def test_what_is_left_is_said_with_what_it_waits_for(hand: ServiceHand) -> None:
    before = await orphaned(hand, "chat")
    late = await restore(hand, *everything(hand), "--timeout", "1s", timing=SLOW)
    assert late.code == 1
    assert f"Service {hand.namespace}/chat is not restored yet: " in late.output
    assert "run it again to go on from here" in late.output
    assert FINALIZER in model_of(hand, "chat")["metadata"]["finalizers"]
    assert (await restore(hand, *everything(hand))).code == 0
    assert_restored(hand, before)


async def test_rights_that_are_missing_are_named(hand: ServiceHand) -> None:
    before = await orphaned(hand, "chat")
    nobody = await restore(hand, *everything(hand), kubeconfig=hand.server.user(hand.namespace, "nobody").kubeconfig)
    assert (nobody.code, "cannot list resource" in nobody.errors) == (4, True)
    read = [
        {"apiGroups": [group], "resources": [resource], "verbs": ["get", "list"]}
        for group, resource in (("", "services"), ("discovery.k8s.io", "endpointslices"))
    ]
    reader = hand.server.user(hand.namespace, "reader", *read)
    hand.server.until_granted(hand.namespace, "reader", read[-1])
    ended = await restore(hand, *everything(hand), kubeconfig=reader.kubeconfig)
    assert ended.code == 1
    assert "models are not seen, so finalizers stay where they are" in ended.output
    assert 'cannot patch resource "services"' in ended.output
    assert FRONTED_KEY in hand.selector("chat")
    assert (await restore(hand, *everything(hand))).code == 0
    assert_restored(hand, before)


async def test_neither_controller_nor_custom_resources_are_needed(hand: ServiceHand) -> None:
    before = await orphaned(hand, "chat")
    kind = "modeldeployments.deployment.beamlit.com"
    try:
        # It waits for the finalizer of the model, and for who takes it off.
        hand.server.kubectl("delete", "--wait=false", f"crd/{kind}")
        first = await restore(hand, *everything(hand))
        assert first.code == 0, first
        assert_restored(hand, before)
        until_now(lambda: hand.read("modeldeployments", "chat") is None, "the models are gone", within=30)
        delete_definitions(hand.server, (kind,))
        # What a controller left behind that nobody remembers.
        hand.patch_service({"spec": {"selector": {FRONTED_KEY: "true"}}})
        await hand.until_ways()
        second = await restore(hand, *everything(hand))
        assert second.code == 0, second
        await hand.until_ways("10.1.0.1:8080", "10.1.0.2:8080")
        assert hand.written_by_owners() == before["chat"]
        assert "beamlit-controller" not in hand.managers()
    finally:
        install_crds(hand.server)


def deployment(replicas: int, ready: int) -> dict[str, Any]:
    labels = {"app": "controller"}
    container = {"name": "beamlit", "image": "beamlit", "args": ["controller"]}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"metadata": {"name": "controller"}, "spec": spec, "status": {"replicas": ready, "readyReplicas": ready}}


async def test_while_a_controller_runs_nothing_is_done_unless_it_is_stopped(hand: ServiceHand) -> None:
    before = await orphaned(hand, "chat")
    deployments = f"/apis/apps/v1/namespaces/{hand.namespace}/deployments"
    raw = deployment(2, 2)
    with hand.server.client() as client:
        client.post(deployments, json=raw).raise_for_status()
        ready = json.dumps({"status": raw["status"]})
        client.patch(f"{deployments}/controller/status", content=ready, headers=MERGE).raise_for_status()
        refused = await restore(hand, *everything(hand))
        assert refused.code == 5
        assert f"the controller runs (Deployment {hand.namespace}/controller)" in refused.output
        assert "--stop-controller" in refused.output
        assert FRONTED_KEY in hand.selector("chat")
        stopped = await restore(hand, *everything(hand), "--stop-controller")
        assert stopped.code == 0, stopped
        back = f"kubectl -n {hand.namespace} scale --replicas=2 deployment controller"
        assert f"Deployment {hand.namespace}/controller is stopped; it is started by: {back}" in stopped.output
        assert client.get(f"{deployments}/controller").json()["spec"]["replicas"] == 0
        client.delete(f"{deployments}/controller").raise_for_status()
    assert_restored(hand, before)


@asynccontextmanager
async def renewing(hand: ServiceHand, lease: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """A controller that holds a Lease, whoever and wherever it is; yields what ends it."""
    path, over = LEASE.format(hand.namespace), asyncio.Event()

    def renew() -> None:
        spec = {"holderIdentity": "somebody", "leaseDurationSeconds": 15, "renewTime": micro_time(datetime.now(UTC))}
        with hand.server.client() as client:
            client.patch(f"{path}/{lease}", content=json.dumps({"spec": spec}), headers=MERGE).raise_for_status()

    async def renew_until_over() -> None:
        while not over.is_set():
            await asyncio.to_thread(renew)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await over.wait()

    async def end() -> None:
        """Let a renewal that is on its way arrive: afterwards it would be one of a controller that goes on."""
        over.set()
        await task

    with hand.server.client() as client:
        client.post(path, json={"metadata": {"name": lease}}).raise_for_status()
    renew()
    task = asyncio.create_task(renew_until_over())
    try:
        yield end
    finally:
        await end()


async def test_a_controller_that_is_no_deployment_is_known_by_its_lease(hand: ServiceHand) -> None:
    before = await orphaned(hand, "chat")
    lease = ("--lease", f"{hand.namespace}/beamlit-controller")
    async with renewing(hand, "beamlit-controller") as end:
        refused = await restore(hand, *everything(hand), *lease)
        assert refused.code == 5
        assert f"somebody renews the Lease {hand.namespace}/beamlit-controller" in refused.output
        assert FRONTED_KEY in hand.selector("chat")
        await end()
        # It is not over yet, and nobody renews it.
        soon = replace(SOON, lease=LeaseTiming(renewed_within=0.1))
        assert (await restore(hand, *everything(hand), *lease, timing=soon)).code == 0
    assert_restored(hand, before)


async def test_what_a_controller_of_another_class_has_stays(hand: ServiceHand) -> None:
    await orphaned(hand, "chat")
    ended = await restore(hand, *everything(hand), "--controller-class", "blue")
    assert (ended.code, ended.output) == (0, "nothing is taken over\n")
    assert FRONTED_KEY in hand.selector("chat")
    config = hand.server.folder / "config.yaml"
    config.write_text(json.dumps({"namespaces": [hand.namespace], "controllerClass": ""}))
    assert (await restore(hand, "--all", "--config", config)).code == 0
    assert FRONTED_KEY not in hand.selector("chat")
