"""The pods of a program: whether they are ready, why not, and what they say when they are asked for it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

from controller.api.registry import POD, Program
from controller.check.cluster import ClusterReader, Unread, right_to
from controller.check.installation import ENVOY, RunningProgram
from controller.check.report import Finding, Topic, TopicFindings
from controller.store.kube.answers import FORBIDDEN, RawAnswer

TOPICS = {
    Program.CONTROLLER.value: TopicFindings(Topic.CONTROLLER),
    Program.XDS_SERVER.value: TopicFindings(Topic.XDS),
    ENVOY: TopicFindings(Topic.GATEWAY),
}
_PROBE_PORT, _ADMIN_PORT = 8081, 19000
_MOST_PODS = 20
_LONGEST_WORDS = 300
_SAMPLE = re.compile(r"^(\w+)(?:\{([^}]*)\})? (\S+)", re.MULTILINE)


def admin_port(program: RunningProgram) -> int:
    """Find the port at which a program says how it is."""
    if program.program == Program.CONTROLLER:
        return program.port("--probe-addr", _PROBE_PORT)
    return program.port("--admin-address", _ADMIN_PORT)


async def pods_ready(reader: ClusterReader, program: RunningProgram) -> list[Finding]:
    """Say whether the pods of a Deployment are ready and, of those that are not, why."""
    says = TOPICS[program.program]
    name = f"Deployment {program.namespace}/{program.name}"
    if program.wanted == 0:
        remedy = f"kubectl -n {program.namespace} scale --replicas=2 deployment {program.name}"
        return [says.failed("pods", f"{name} is scaled to 0", remedy)]
    if program.ready >= program.wanted:
        return [says.ok("pods", f"{program.ready} of {program.wanted} pods of {name} are ready")]
    why = await _why_not_ready(reader, program)
    words = f"{program.ready} of {program.wanted} pods of {name} are ready{f': {why}' if why else ''}"
    remedy = f"kubectl -n {program.namespace} describe pods -l {program.selector}; kubectl logs says more"
    return [says.warning("pods", words, remedy) if program.ready else says.failed("pods", words, remedy)]


async def _why_not_ready(reader: ClusterReader, program: RunningProgram) -> str:
    pods = await _pods(reader, program)
    if isinstance(pods, Unread):
        return ""
    for pod in pods:
        status = pod.get("status") or {}
        if any(one.get("type") == "Ready" and one.get("status") == "True" for one in status.get("conditions") or ()):
            continue
        name = (pod.get("metadata") or {}).get("name")
        for container in status.get("containerStatuses") or ():
            state = (container.get("state") or {}).get("waiting") or {}
            if state.get("reason"):
                return f"{name} waits: {state['reason']} {state.get('message') or ''}".strip()
        said = await _ask_pod(reader, program.namespace, f"{name}:{admin_port(program)}", "readyz")
        if isinstance(said, RawAnswer) and not _is_of_the_server(said) and said.body.strip():
            return f"{name} says: {said.body.decode(errors='replace').strip()[:_LONGEST_WORDS]}"
        for one in status.get("conditions") or ():
            if one.get("status") != "True" and one.get("message"):
                return f"{name}: {one['message']}"
    return ""


async def _pods(reader: ClusterReader, program: RunningProgram) -> tuple[Mapping[str, Any], ...] | Unread:
    listed = await reader.list(POD.path(program.namespace), _MOST_PODS, labelSelector=program.selector)
    if isinstance(listed, Unread):
        needed = right_to("list", POD, program.namespace)
        return Unread("denied", needed) if listed.why == "denied" else listed
    return listed.items


async def pages_of_pods(reader: ClusterReader, program: RunningProgram, port: int, path: str) -> list[str | Unread]:
    """Ask the ready pods of a program for a page, through the API server."""
    pods = await _pods(reader, program)
    if isinstance(pods, Unread):
        return [pods]
    names = [str((one.get("metadata") or {}).get("name")) for one in pods if _is_ready(one)]
    asked = (_ask_pod(reader, program.namespace, f"{name}:{port}", path) for name in names)
    return [_page(one, program.namespace) for one in await asyncio.gather(*asked)]


def _page(answer: RawAnswer | Unread, namespace: str) -> str | Unread:
    if isinstance(answer, Unread):
        return answer
    if answer.status == FORBIDDEN:
        return Unread("denied", right_to("get", "pods/proxy", namespace))
    if answer.status >= 300:
        return Unread("unanswered", f"the API server does not reach the pod (HTTP {answer.status})")
    return answer.body.decode(errors="replace")


def _is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


async def _ask_pod(reader: ClusterReader, namespace: str, pod_and_port: str, path: str) -> RawAnswer | Unread:
    return await reader.look(POD.path(namespace, pod_and_port, f"proxy/{path}"), accept="text/plain, */*")


def _is_of_the_server(answer: RawAnswer) -> bool:
    """Whether the API server answered by itself, and not the pod: with an object of the kind Status."""
    return answer.status >= 300 and answer.body.lstrip().startswith(b"{")


def sample_values(page: str, name: str, label: str = "") -> list[float]:
    """Find the values of the samples of one metric on a page of `/metrics`, those with a label alone."""
    found = []
    for said, labels, value in _SAMPLE.findall(page):
        if said == name and label in labels:
            try:
                found.append(float(value))
            except ValueError:
                continue
    return found
