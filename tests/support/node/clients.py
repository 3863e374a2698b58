"""Clients in pods of their own, who call a Service through DNS and kube-proxy with a new connection for each request.

Several of them, since each has an address: one address alone runs out of ports that no connection of the last minutes
had (conntrack keeps them in TIME_WAIT), and what then times out is the load and not what is measured.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tests.support.kube.cluster import Cluster
from tests.support.node.images import LOAD_IMAGE
from tests.support.processes import ends_with_me
from tests.support.waiting import until_now
from tests.tools import binaries


@dataclass(frozen=True, slots=True)
class Second:
    """What became of the requests that were sent in one second: answered by a local pod through the gateway, remotely,
    by a pod that no gateway stood before, or not at all."""

    local: int = 0
    remote: int = 0
    direct: int = 0
    failed: int = 0

    def __add__(self, other: Second) -> Second:
        return Second(
            self.local + other.local,
            self.remote + other.remote,
            self.direct + other.direct,
            self.failed + other.failed,
        )

    @property
    def requests(self) -> int:
        """All of them."""
        return self.local + self.remote + self.direct + self.failed


@dataclass(frozen=True, slots=True)
class Calls:
    """What all clients saw of one load. `seconds` are by the clock; latencies in milliseconds, of the worst client."""

    seconds: dict[datetime, Second]
    failures: tuple[tuple[datetime, str], ...]
    p50: float
    p99: float
    longest: float

    @property
    def total(self) -> Second:
        """The whole load."""
        return sum(self.seconds.values(), Second())

    @property
    def requests(self) -> int:
        """How many requests were sent."""
        return self.total.requests

    def between(self, begin: datetime, end: datetime) -> Second:
        """What was sent in the seconds that lie within."""
        return sum((one for at, one in self.seconds.items() if begin <= at < end), Second())

    def __str__(self) -> str:
        kinds = Counter(error for _, error in self.failures)
        words = "".join(f"\n  {number} x {error}" for error, number in kinds.most_common(10))
        words += "".join(f"\n  {at:%H:%M:%S}: {one}" for at, one in self.seconds.items() if one.failed)
        return (
            f"{self.requests:,} requests, {self.total.failed} failed; local {self.total.local:,}, remote "
            f"{self.total.remote:,}, direct {self.total.direct:,}; p50 {self.p50:.1f} ms, p99 {self.p99:.1f} ms, "
            f"longest {self.longest:.0f} ms{words}"
        )


@dataclass(slots=True)
class Calling:
    """Clients that call at this moment. What they saw is there when the block that they call in has ended."""

    calls: Calls | None = field(default=None)

    @property
    def seen(self) -> Calls:
        """What they saw."""
        assert self.calls is not None, "they still call"
        return self.calls


@dataclass(frozen=True, slots=True)
class Clients:
    """Pods from which load is sent."""

    cluster: Cluster
    namespace: str
    pods: tuple[str, ...]

    @classmethod
    @contextlib.contextmanager
    def running(cls, cluster: Cluster, namespace: str, count: int = 4) -> Iterator[Clients]:
        """So many clients, in a namespace that somebody else removes."""
        pods = tuple(f"client-{number}" for number in range(count))
        cluster.apply(*map(_pod, pods), namespace=namespace)
        clients = cls(cluster, namespace, pods)
        until_now(clients._ready, f"the clients in {namespace} run", within=120)
        try:
            yield clients
        finally:
            cluster.kubectl("delete", "pod", *pods, f"--namespace={namespace}", "--wait=false", "--ignore-not-found")

    @contextlib.contextmanager
    def calling(self, url: str, rate: float, host: str = "") -> Iterator[Calling]:
        """Call a URL so often a second, all clients together, as long as the block lasts."""
        with _calling([self._command(pod, url, rate / len(self.pods), host) for pod in self.pods]) as calling:
            yield calling

    def _command(self, pod: str, url: str, rate: float, host: str) -> list[str]:
        kubectl = (str(binaries.kubectl()), f"--kubeconfig={self.cluster.kubeconfig}", f"--namespace={self.namespace}")
        return [*kubectl, "exec", "--stdin", pod, "--", "/load", f"--rate={rate}", f"--host={host}", url]

    def _ready(self) -> bool:
        said = self.cluster.kubectl(
            "get", "pods", *self.pods, f"--namespace={self.namespace}", "--output=jsonpath={.items[*].status.phase}"
        )
        return said.stdout.split() == ["Running"] * len(self.pods)


@contextlib.contextmanager
def calling_from_outside(url: str, rate: float) -> Iterator[Calling]:
    """Call a URL from this machine, which is no part of the cluster."""
    with _calling([[str(binaries.pod_load()), f"--rate={rate}", url]]) as calling:
        yield calling


@contextlib.contextmanager
def _calling(commands: Iterable[list[str]]) -> Iterator[Calling]:
    calling = Calling()
    started: list[subprocess.Popen[str]] = []
    try:
        started.extend(map(_started, commands))
        for process in started:
            assert process.stderr
            said = process.stderr.readline()
            assert said == "ready\n", f"a client does not start: {said}{process.stderr.read()}"
        yield calling
        reports = []
        for process in started:
            assert process.stdin
            process.stdin.close()
        for process in started:
            process.stdin = None
            out, said = process.communicate(timeout=60)
            assert process.returncode == 0, f"a client ended with {process.returncode}: {said}"
            reports.append(json.loads(out))
        calling.calls = _calls_of(reports)
    finally:
        for process in started:
            process.kill()
            process.communicate()


def _started(command: list[str]) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(ends_with_me(command), stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def _pod(name: str) -> dict[str, object]:
    # Without a request for CPU a busy machine gives it nothing, and what was measured would be itself.
    resources = {"requests": {"cpu": "50m"}}
    container = {"name": "load", "image": LOAD_IMAGE, "imagePullPolicy": "IfNotPresent", "resources": resources}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": False}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "client"}}, "spec": spec}


def _calls_of(reports: list[dict[str, object]]) -> Calls:
    seconds: dict[datetime, Second] = {}
    failures: list[tuple[datetime, str]] = []
    for report in reports:
        started = _time(str(report["started"])).replace(microsecond=0)
        counted = report["seconds"] or []
        assert isinstance(counted, list)
        for number, one in enumerate(counted):
            at = started + timedelta(seconds=number)
            seconds[at] = seconds.get(at, Second()) + Second(**one)
        failed = report["failures"] or []
        assert isinstance(failed, list)
        failures += [(_time(one["at"]), str(one["error"])) for one in failed]
    worst = {key: max(float(str(report[key])) for report in reports) for key in ("p50", "p99", "longest")}
    return Calls(dict(sorted(seconds.items())), tuple(sorted(failures)), **worst)


def _time(text: str) -> datetime:
    """A time as Go writes it, with nanoseconds."""
    head, _, rest = text.partition(".")
    return datetime.fromisoformat(f"{head}.{rest.rstrip('Z')[:6]:0<6}+00:00")
