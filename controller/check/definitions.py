"""Our custom resources: whether their definitions are applied, established, and those of this version."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

from controller.check.cluster import ClusterReader, Unread, right_to
from controller.check.report import Finding, Topic, TopicFindings
from controller.install.crd import definitions

_SAYS = TopicFindings(Topic.DEFINITIONS)
_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_APPLY = "kubectl apply --server-side -f deploy/crds, of this version"
_MOST_NAMED = 5


async def check_definitions(reader: ClusterReader, *, before: bool) -> tuple[Finding, ...]:
    """Look at every definition; `before` an install there may be none."""
    found = []
    # To write them takes a while, in which answers to others would be late.
    for name, ours in (await asyncio.to_thread(definitions)).items():
        theirs = await reader.read(f"{_PATH}/{name}")
        if not isinstance(theirs, Unread):
            found.append(judge(name, ours, theirs))
        elif theirs.is_absent:
            if before:
                found.append(_SAYS.ok("applied", f"{name} is not there yet"))
            else:
                found.append(_SAYS.failed("applied", f"{name} is not applied", _APPLY))
        else:
            found.append(await _by_discovery(reader, name, ours, theirs))
    return tuple(found)


async def _by_discovery(reader: ClusterReader, name: str, ours: Mapping[str, Any], unread: Unread) -> Finding:
    """Say what those can see who may not read definitions: whether the kind is served."""
    spec = ours["spec"]
    listed = await reader.read(f"/apis/{spec['group']}/{spec['versions'][0]['name']}")
    resources = [] if isinstance(listed, Unread) else [one.get("name") for one in listed.get("resources") or ()]
    if spec["names"]["plural"] not in resources and (not isinstance(listed, Unread) or listed.is_absent):
        return _SAYS.failed("applied", f"{name} is not applied", _APPLY)
    if unread.why != "denied":
        return _SAYS.unseen("current", f"{name}: {unread.words}")
    needed = right_to("get", "customresourcedefinitions.apiextensions.k8s.io")
    return _SAYS.unseen("current", f"{name} is served; whether it is that of this version is not seen: {needed}")


def judge(name: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Finding:
    """Compare a definition as it is in a cluster with that of this version."""
    for one in (theirs.get("status") or {}).get("conditions") or ():
        if one.get("type") in ("Established", "NamesAccepted") and one.get("status") != "True":
            words = f"{name} is not served: {one.get('reason')}: {one.get('message')}"
            return _SAYS.failed("established", words, f"kubectl describe customresourcedefinition {name}")
    (mine,) = ours["spec"]["versions"]
    served = [one for one in theirs["spec"].get("versions") or () if one.get("served")]
    other = next((one for one in served if one.get("name") == mine["name"]), None)
    if other is None:
        names = ", ".join(str(one.get("name")) for one in served) or "none"
        return _SAYS.failed("applied", f"{name} does not serve {mine['name']}; it serves {names}", _APPLY)
    wanted, there = mine["schema"]["openAPIV3Schema"], (other.get("schema") or {}).get("openAPIV3Schema") or {}
    fields, others = set(_fields(wanted)), set(_fields(there))
    if missing := sorted(fields - others):
        words = f"{name} is older than this version: it lacks {_listed(missing)}, and drops what is written there"
        return _SAYS.failed("current", words, _APPLY)
    if extra := sorted(others - fields):
        words = f"{name} is newer than this version: it has {_listed(extra)}"
        return _SAYS.warning("current", words, "use the beamlit of the version that is installed")
    if there not in (wanted, _without_fields_at_fault(wanted)) or mine["additionalPrinterColumns"] != other.get(
        "additionalPrinterColumns"
    ):
        words = f"{name} has every field, with other bounds, words or columns than those of this version"
        return _SAYS.warning("current", words, _APPLY)
    return _SAYS.ok("current", f"{name} is that of this version")


def _without_fields_at_fault(schema: Any) -> Any:
    """Write a schema as Kubernetes 1.27 keeps it, which knows no `fieldPath` in a rule."""
    if isinstance(schema, list):
        return [_without_fields_at_fault(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {name: _without_fields_at_fault(one) for name, one in schema.items()}
    if rules := schema.get("x-kubernetes-validations"):
        kept["x-kubernetes-validations"] = [
            {name: one for name, one in rule.items() if name != "fieldPath"} for rule in rules
        ]
    return kept


def _fields(schema: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """Name the fields of a schema by their paths."""
    for name, one in (schema.get("properties") or {}).items():
        path = f"{at}.{name}" if at else name
        yield path
        yield from _fields(one, path)
    if isinstance(schema.get("items"), Mapping):
        yield from _fields(schema["items"], f"{at}[]")


def _listed(names: list[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
