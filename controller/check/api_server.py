"""The API server: whether it answers, in which version, by which clock, and with the APIs that the programs use."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from controller.api.registry import KINDS, REFERENCE_GRANT, Kind
from controller.check.cluster import ClusterReader, Unread
from controller.check.report import Finding, Topic, TopicFindings
from controller.store.kube.answers import UNAUTHORIZED, RawAnswer

_OLDEST = (1, 27)
_AGREES = timedelta(seconds=2)
_MISLEADS = timedelta(seconds=30)
_SAYS = TopicFindings(Topic.API_SERVER)

Clock = Callable[[], datetime]
"""Gives the time (UTC)."""
ANSWERS = "answers"
"""The check that all others stand on."""
REFUSES = "credentials"
"""The check that fails when the API server does not know who asks."""

_METRICS_GROUPS = {
    "Resource": "metrics.k8s.io",
    "ContainerResource": "metrics.k8s.io",
    "Pods": "custom.metrics.k8s.io",
    "Object": "custom.metrics.k8s.io",
    "External": "external.metrics.k8s.io",
}
_FROM = {
    "metrics.k8s.io": "install metrics-server (the chart does with installMetricServer=true)",
    "custom.metrics.k8s.io": "install an adapter for custom metrics, such as prometheus-adapter",
    "external.metrics.k8s.io": "install an adapter for external metrics, or set metricInformer.type: prometheus",
}


async def check_api_server(reader: ClusterReader, clock: Clock) -> tuple[tuple[Finding, ...], datetime | None]:
    """Look whether it answers, and in which version; give its time as well, if it tells. `clock` is ours."""
    asked = clock()
    answer = await reader.look("/version")
    answered = clock()
    if isinstance(answer, Unread):
        remedy = "look at the kubeconfig, --context and the network: kubectl cluster-info must answer"
        return (_SAYS.failed(ANSWERS, f"{reader.server} gives no answer: {answer.words}", remedy),), None
    if answer.status == UNAUTHORIZED:
        remedy = "renew the credentials of the kubeconfig: kubectl auth whoami must answer"
        return (_SAYS.failed(REFUSES, f"{reader.server} does not know who asks (HTTP 401)", remedy),), None
    return (*judge_version(reader.server, answer), *_clock(answer.at, asked, answered)), answer.at


def judge_version(server: str, answer: RawAnswer) -> Iterator[Finding]:
    """Say that it answers, and whether its version is one that we know to work with."""
    try:
        read = json.loads(answer.body)
        version = tuple(int(re.sub(r"\D.*", "", str(read[part]))) for part in ("major", "minor"))
        words = f"{server} answers, with Kubernetes {read.get('gitVersion')}"
    except (ValueError, TypeError, LookupError, AttributeError):
        yield _SAYS.ok(ANSWERS, f"{server} answers")
        yield _SAYS.unseen("version", f"GET /version gives no version (HTTP {answer.status})")
        return
    yield _SAYS.ok(ANSWERS, words)
    if version < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        yield _SAYS.failed("version", f"it is older than Kubernetes {oldest}", f"upgrade it to {oldest} or newer")


def _clock(at: datetime | None, asked: datetime, answered: datetime) -> Iterator[Finding]:
    """Compare its clock with ours: its time lies between that of the question and that of the answer."""
    if at is None:
        yield _SAYS.unseen("clock", "its answers do not say the time")
        return
    # The header has whole seconds.
    ahead = max(asked - timedelta(seconds=1) - at, timedelta(0)) or min(answered - at, timedelta(0))
    seconds = ahead.total_seconds()
    words = f"the clock of this machine is {abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} it"
    remedy = "set the clock (NTP): `beamlit explain` says by it how old things are, and what is over"
    if abs(ahead) <= _AGREES:
        yield _SAYS.ok("clock", "the clock of this machine agrees with it")
    elif abs(ahead) < _MISLEADS:
        yield _SAYS.warning("clock", words, remedy)
    else:
        yield _SAYS.failed("clock", words, remedy)


async def check_apis(reader: ClusterReader) -> tuple[Finding, ...]:
    """Look whether it serves the kinds of Kubernetes that the programs use, in their versions."""
    answer = await reader.read("/apis")
    if isinstance(answer, Unread):
        return (_SAYS.unseen("apis", f"its APIs cannot be listed: {answer.words}"),)
    groups = answer.get("groups") or ()
    served = {str(version.get("groupVersion")) for group in groups for version in group.get("versions") or ()}
    needed = {one.api_version: one for one in KINDS.values() if one.group and _is_of_kubernetes(one)}
    missing = [version for version in needed if version not in served]
    found = []
    if missing:
        words = f"it does not serve {', '.join(missing)}"
        found.append(_SAYS.failed("apis", words, "enable these APIs (--runtime-config of the API server)"))
    else:
        found.append(_SAYS.ok("apis", f"it serves {', '.join(needed)}"))
    versions = (REFERENCE_GRANT.version, *REFERENCE_GRANT.earlier_versions)
    if not any(f"{REFERENCE_GRANT.group}/{version}" in served for version in versions):
        words = "it has no Gateway API: references into other namespaces are permitted by annotations alone"
        found.append(_SAYS.ok("gateway-api", words))
    return tuple(found)


def _is_of_kubernetes(kind: Kind) -> bool:
    """Whether every cluster has it: it is not ours, not optional, and not measured by an add-on."""
    return kind.definition is None and not kind.optional and not kind.group.endswith("metrics.k8s.io")


async def check_metrics(
    reader: ClusterReader, models: Iterable[Mapping[str, Any]], *, prometheus: bool
) -> tuple[Finding, ...]:
    """Look whether the metrics APIs answer that models use; External ones may come from a Prometheus instead."""
    users: dict[str, list[str]] = {group: [] for group in dict.fromkeys(_METRICS_GROUPS.values())}
    for model in models:
        for kind in _metric_types(model):
            group = _METRICS_GROUPS.get(kind)
            if group and not (prometheus and kind == "External"):
                users[group].append("/".join(str(model["metadata"].get(one)) for one in ("namespace", "name")))
    found = []
    for group, names in users.items():
        if not names:
            continue
        distinct = list(dict.fromkeys(names))
        by = f"{distinct[0]} needs it" if len(distinct) == 1 else f"{distinct[0]} and {len(distinct) - 1} more need it"
        found.append(await _metrics_api(reader, group, by))
    return tuple(found)


async def _metrics_api(reader: ClusterReader, group: str, by: str) -> Finding:
    version = next(one.version for one in KINDS.values() if one.group == group)
    answer = await reader.read(f"/apis/{group}/{version}")
    if not isinstance(answer, Unread):
        return _SAYS.ok("metrics", f"{group} answers ({by})")
    if answer.is_absent:
        # An adapter may serve an earlier version alone.
        if not isinstance(await reader.read(f"/apis/{group}"), Unread):
            return _SAYS.ok("metrics", f"{group} answers, in another version than {version} ({by})")
        return _SAYS.failed("metrics", f"{group} is not served ({by})", _FROM[group])
    if answer.status:
        remedy = f"kubectl get apiservice {version}.{group}: its condition Available says why"
        return _SAYS.failed("metrics", f"{group} does not answer ({by}): {answer.words}", remedy)
    return _SAYS.unseen("metrics", f"{group}: {answer.words}")


def _metric_types(model: Mapping[str, Any]) -> Iterator[str]:
    offloading = (model.get("spec") or {}).get("offloadingConfig") or {}
    for metric in offloading.get("metrics") or ():
        yield str(metric.get("type"))
