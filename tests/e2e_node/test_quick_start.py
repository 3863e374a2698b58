"""The README's quick start in a cluster, word for word, but for where the chart is and who the client is.

One story, told from beginning to end, as a user lives it. What it printed is kept beside the logs of the run.
"""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from tests.support.kube.audit import granted, refused, unused, used
from tests.support.kube.cluster import Cluster
from tests.support.kube.crds import remove_crds
from tests.support.node import errand, helm, platform, seed
from tests.support.node.clients import Calls, Clients
from tests.support.node.helm import Release
from tests.support.node.node import Node
from tests.support.node.our_images import CHART, have_our_images
from tests.support.processes import ROOT, ends_with_me
from tests.support.waiting import until_now

DOCUMENT = ROOT / "README.md"
CHAPTER = re.compile(r"^## Quick start in a cluster$(.*?)^## ", re.MULTILINE | re.DOTALL)
PUBLISHED = "oci://ghcr.io/beamlit/beamlit-controller-chart"
NAMESPACE = "default"
URL = f"http://{seed.NAME}"
CALM, LOADED = 40.0, 200.0
"""Requests a second. Each takes 1.4 to 2 ms of CPU: at most 40 %, at least 140 % of the 200m that the pod requests."""
AFTERWARDS = 100.0
"""What the pod can answer alone: 500m at most."""
LEAST = 20_000
"""Requests over all of it."""
ACCOUNTS = frozenset({helm.CONTROLLER, helm.XDS, "beamlit-certs"})
# What is granted and not used in this story, with the reason. Whoever may list may read each, so `get` adds no right to
# see; it is for commands that read one object, and for a second look after a conflict.
NOT_USED_HERE = {
    "beamlit-controller: create leases.coordination.k8s.io": "the chart brings the lease",
    "beamlit-controller: get *.custom.metrics.k8s.io": "metrics of type Pods and Object",
    "beamlit-controller: list *.external.metrics.k8s.io": "metrics of type External",
    "beamlit-controller: get deployments.apps": "get beside list",
    "beamlit-controller: get statefulsets.apps": "get beside list",
    "beamlit-controller: get modeldeployments.deployment.beamlit.com": "get beside list",
    "beamlit-controller: get referencegrants.gateway.networking.k8s.io": "get beside list",
    "beamlit-controller: watch referencegrants.gateway.networking.k8s.io": "the Gateway API is not installed here",
    "beamlit-controller: get tooldeployments.deployment.beamlit.com": "tools are not served yet",
    "beamlit-controller: list tooldeployments.deployment.beamlit.com": "tools are not served yet",
    "beamlit-controller: watch tooldeployments.deployment.beamlit.com": "tools are not served yet",
    "beamlit-controller: get policies.authorization.beamlit.com": "policies are not enforced yet",
    "beamlit-controller: list policies.authorization.beamlit.com": "policies are not enforced yet",
    "beamlit-controller: watch policies.authorization.beamlit.com": "policies are not enforced yet",
    "beamlit-controller: patch endpointslices.discovery.k8s.io": "a gateway that comes or goes meanwhile",
    "beamlit-controller: patch events.events.k8s.io": "an event that is repeated",
    "beamlit-controller: update modeldeployments/status.deployment.beamlit.com": "fields that another manager left",
    "beamlit-xds-server: get endpointslices.discovery.k8s.io": "get beside list",
    "beamlit-xds-server: get modeldeployments.deployment.beamlit.com": "get beside list",
    "beamlit-xds-server: get referencegrants.gateway.networking.k8s.io": "get beside list",
    "beamlit-xds-server: watch referencegrants.gateway.networking.k8s.io": "the Gateway API is not installed here",
    "beamlit-xds-server: get secrets": "get beside list",
    "beamlit-xds-server: get services": "get beside list",
}
ROUTE = re.compile(r"^Route: (\w+)", re.MULTILINE)
NEXT = re.compile(r"^ {5}(kubectl .+)$", re.MULTILINE)
"""A command of what helm prints after an install: the notes of the chart."""


class Terminal:
    """A terminal in which one command of the chapter runs: some of them ask for one."""

    def __init__(self, cluster: Cluster, command: str) -> None:
        environment = helm.surroundings(cluster)
        ours, theirs = pty.openpty()
        self._process = subprocess.Popen(
            ends_with_me(("bash", "-c", command)),
            env=environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        os.set_blocking(ours, False)
        self._terminal = ours
        self.said = ""

    def read(self) -> str:
        """All that it has shown so far."""
        with suppress(BlockingIOError, OSError):
            while data := os.read(self._terminal, 65536):
                self.said += data.decode(errors="replace").replace("\r", "")
        return self.said

    def routes(self, since: int = 0) -> list[str]:
        """By which way the answers came that it showed after so many characters."""
        return ROUTE.findall(self.read()[since:])

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)


@contextmanager
def terminal(cluster: Cluster, command: str) -> Iterator[Terminal]:
    opened = Terminal(cluster, command)
    try:
        yield opened
    finally:
        opened.close()


def blocks() -> dict[str, str]:
    """The commands of the chapter, by what they begin with."""
    chapter = CHAPTER.search(DOCUMENT.read_text())
    assert chapter
    found = re.findall(r"^```(?:sh|bash)\n(.*?)^```", chapter[1], re.MULTILINE | re.DOTALL)
    names = (
        "install",
        "deploy",
        "create",
        "get",
        "curl-check",
        "scale down",
        "scale up",
        "get again",
        "delete",
        "uninstall",
    )
    assert len(found) == len(names), found
    return dict(zip(names, found, strict=True))


class Story:
    """What a user does, and what was printed."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.record = folder / "quick-start.txt"

    def do(self, command: str) -> str:
        """Run a command of the chapter in a shell."""
        said = helm.run(self.cluster, "bash", "-e", "-c", command)
        with self.record.open("a") as record:
            record.write(f"$ {command}\n{said}\n")
        return said

    def status(self) -> dict[str, object]:
        raw = self.cluster.kubectl("get", "modeldeployment", seed.NAME, "--output=json").stdout
        status: dict[str, object] = json.loads(raw).get("status", {})
        return status

    def split(self) -> str:
        """The split in force, as `kubectl get` shows it, with its reason."""
        split = self.status().get("split")
        assert isinstance(split, dict)
        return f"{split.get('local')}/{split.get('remote')} {split.get('reason')}"

    def until(self, split: str, what: str, within: float) -> None:
        """Wait until the split in force begins so."""
        try:
            until_now(lambda: self.split().startswith(split), what, within)
        except AssertionError as error:
            error.add_note(json.dumps(self.status(), indent=1))
            error.add_note(self.cluster.kubectl("top", "pods", "--all-namespaces").stdout)
            raise

    def condition(self, name: str) -> str:
        conditions = self.status().get("conditions") or []
        assert isinstance(conditions, list)
        return next(
            (f"{one['status']}/{one['reason']}: {one['message']}" for one in conditions if one["type"] == name), ""
        )


def service(cluster: Cluster) -> dict[str, object]:
    """The Service of the seed, but for what Kubernetes itself writes."""
    raw: dict[str, dict[str, object]] = json.loads(
        cluster.kubectl("get", "service", seed.NAME, f"--namespace={NAMESPACE}", "--output=json").stdout
    )
    for key in ("resourceVersion", "managedFields"):
        raw["metadata"].pop(key, None)
    return dict(raw)


@pytest.fixture
def story(node: Node, tmp_path: Path) -> Iterator[Story]:
    """A node with the images and the platform, on which nothing is installed yet; and nothing is afterwards."""
    have_our_images(node)
    platform.install(node)
    try:
        yield Story(node, tmp_path)
    finally:
        with suppress(subprocess.CalledProcessError):
            node.kubectl("delete", "modeldeployment", seed.NAME, "--ignore-not-found", "--timeout=3m")
        with suppress(subprocess.CalledProcessError):
            helm.helm(node, "uninstall", helm.RELEASE, "--ignore-not-found", "--no-hooks")
        remove_crds(node)
        node.kubectl("delete", "deployment,service", seed.NAME, "--ignore-not-found", f"--namespace={NAMESPACE}")
        node.kubectl("delete", "pod", "curl-check", "--ignore-not-found", "--grace-period=0", "--force")


@pytest.mark.timeout(1500)
def test_the_quick_start_word_for_word(story: Story, node: Node) -> None:
    commands, others = blocks(), of_the_cluster(node)
    shown, why = install(story, commands["install"])
    story.do(commands["deploy"])
    node.await_rollout(f"deployment/{seed.NAME}")
    # That the pod is ready is known to kube-proxy within a second.
    answers = partial(errand.run, node, NAMESPACE, "--silent", "--fail", URL)
    until_now(lambda: answers().code == 0, "the pod answers behind its Service")
    before = service(node)
    with Clients.running(node, NAMESPACE, count=4) as clients:
        sent = clients_notice_nothing_of_the_takeover(story, clients, commands)
        assert re.search(rf"^{seed.NAME} .*100/0", story.do(shown), re.MULTILINE)
        assert re.search(r"^ +Type: +Fronted$", story.do(why.replace("NAME", seed.NAME)), re.MULTILINE)
        sent += every_pod_is_taken_away(story, clients, commands)
        sent += half_leaves_under_load_and_returns(story, clients, commands)
        with clients.calling(URL, AFTERWARDS) as calling:
            story.do(commands["delete"])
            until_now(lambda: service(node) == before, "the Service is as it was", within=60)
            call_for(max(5, (LEAST - sent) / AFTERWARDS))
            rights = granted(node, ACCOUNTS)
            story.do(commands["uninstall"])
        sent += none_failed(calling.seen)
        assert calling.seen.total.direct, "the pods themselves answer again"
    assert sent >= LEAST
    assert sorted(map(str, refused(node.audit_log, ACCOUNTS))) == []
    assert sorted(set(map(str, unused(rights, used(node.audit_log, ACCOUNTS)))) - NOT_USED_HERE.keys()) == []
    assert sorted(NOT_USED_HERE.keys() - set(map(str, rights))) == [], "reviewed, and not granted any more"
    assert service(node) == before
    kinds = "deployment,service,secret,configmap,serviceaccount,role,rolebinding,job,lease,endpointslice"
    left = node.kubectl("get", kinds, f"--namespace={NAMESPACE}", "--output=name").stdout.split()
    assert [name for name in left if "beamlit" in name] == []
    assert of_the_cluster(node) == others, "of metrics-server too"


def of_the_cluster(node: Node) -> set[str]:
    """What stands in no namespace or in that of the system, but for what the definitions bring, which stay."""
    listed = ("clusterrole,clusterrolebinding,apiservice", "rolebinding,service,deployment --namespace=kube-system")
    names = [name for kinds in listed for name in node.kubectl("get", *kinds.split(), "--output=name").stdout.split()]
    return {name for name in names if not name.endswith(".beamlit.com")}


def install(story: Story, command: str) -> tuple[str, str]:
    """Install it as its chapter says, wait as its notes say; return their other commands: what there is, why."""
    command = command.replace(PUBLISHED, str(CHART)).replace('CLIENT_ID="..."', f"CLIENT_ID={platform.CLIENT_ID}")
    said = story.do(command.replace('CLIENT_SECRET="..."', f"CLIENT_SECRET={platform.CLIENT_SECRET}"))
    assert "STATUS: deployed" in said
    wait, shown, why = NEXT.findall(said)
    story.do(wait)
    release = Release(story.cluster, NAMESPACE)
    for name in (helm.XDS, helm.CONTROLLER, helm.GATEWAY, "beamlit-metrics-server"):
        release.await_rollout(name)
    return shown, why


def clients_notice_nothing_of_the_takeover(story: Story, clients: Clients, commands: dict[str, str]) -> int:
    with clients.calling(URL, CALM) as calling:
        story.do(commands["create"])
        until_now(lambda: story.condition("Fronted").startswith("True"), "the Service is taken over", within=120)
        story.until("100/0 Steady", "the metric is known", within=180)
    assert calling.seen.total.direct, "clients were answered by the pods themselves before"
    assert calling.seen.total.local, "and through the gateway afterwards"
    assert re.search(r"php-apache +php-apache .*100/0 +Steady", story.do(commands["get"]))
    return none_failed(calling.seen)


def every_pod_is_taken_away(story: Story, clients: Clients, commands: dict[str, str]) -> int:
    with terminal(story.cluster, commands["curl-check"]) as first, clients.calling(URL, CALM) as calling:
        until_now(lambda: first.routes().count("local") >= 5, "the loop calls", within=120)
        assert set(first.routes()) == {"local"}, first.said
        story.do(commands["scale down"])
        until_now(lambda: first.routes()[-5:] == ["beamlit"] * 5, "the route is beamlit", within=120)
        story.do(commands["scale up"])
        until_now(lambda: first.routes()[-20:] == ["local"] * 20, "the route is local again", within=240)
    assert set(re.findall(r"^HTTP/1.1 (\d+)", first.said, re.MULTILINE)) == {"200"}
    assert "curl: (" not in first.said
    with story.record.open("a") as record:
        record.write(first.said)
    story.cluster.kubectl("delete", "pod", "curl-check", "--ignore-not-found", "--grace-period=0", "--force")
    return none_failed(calling.seen)


def half_leaves_under_load_and_returns(story: Story, clients: Clients, commands: dict[str, str]) -> int:
    """The load takes more than 90 % of the CPU that the pod requests, until half of it is answered remotely."""
    with clients.calling(URL, LOADED) as calling:
        story.until("50/50", "half of the requests leave", within=240)
        story.do(commands["get again"])
        call_for(20)
    last = tuple(calling.seen.seconds.values())[-15:-2]
    remote, requests = sum(one.remote for one in last), sum(one.requests for one in last)
    assert abs(remote / requests - 0.5) < max(0.1, 4.5 * (0.25 / requests) ** 0.5), calling.seen
    sent = none_failed(calling.seen)
    with clients.calling(URL, CALM) as calling:
        story.until("100/0 Steady", "all requests return", within=300)
    return sent + none_failed(calling.seen)


def none_failed(calls: Calls) -> int:
    """How many requests were sent, none of which failed."""
    assert calls.total.failed == 0, str(calls)
    return calls.requests


def call_for(seconds: float) -> None:
    """Let clients call for so many seconds: how many requests that are is counted afterwards."""
    time.sleep(seconds)
