"""What service accounts did, as the audit log of an API server has it, beside what roles let them do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.kube.cluster import Cluster

POLICY: Mapping[str, Any] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "userGroups": ["system:nodes", "system:masters", "system:serviceaccounts:kube-system"]},
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
    ],
}
"""Who did what, without what it was."""


class Right(NamedTuple):
    """To do something with objects of one kind; a resource may have a subresource, as `modeldeployments/status`."""

    account: str
    group: str
    resource: str
    verb: str

    def __str__(self) -> str:
        return f"{self.account}: {self.verb} {self.resource}{'.' if self.group else ''}{self.group}"


def used(log: Path, accounts: frozenset[str]) -> frozenset[Right]:
    """What these accounts did, also where there was nothing."""
    return frozenset(right for right, code in _asked(log, accounts) if code < 400 or code in {404, 409})


def refused(log: Path, accounts: frozenset[str]) -> frozenset[Right]:
    """What these accounts asked for and never had a right to: just after an install a role may not be known yet."""
    return frozenset(right for right, code in _asked(log, accounts) if code == 403) - used(log, accounts)


def granted(cluster: Cluster, accounts: frozenset[str]) -> frozenset[Right]:
    """What roles let these accounts do, wherever; a `*` stands for itself."""
    listed = ("get", "clusterrolebindings,rolebindings,clusterroles,roles", "--all-namespaces", "--output=json")
    items: list[dict[str, Any]] = json.loads(cluster.kubectl(*listed).stdout)["items"]
    rules = {_name(item): item.get("rules") or () for item in items if "Binding" not in item["kind"]}
    return frozenset(
        Right(subject["name"], group, resource, verb)
        for item in items
        if "Binding" in item["kind"]
        for subject in item.get("subjects") or ()
        if subject["kind"] == "ServiceAccount" and subject["name"] in accounts
        for rule in rules[_role_of(item)]
        for group in rule.get("apiGroups") or ()
        for resource in rule.get("resources") or ()
        for verb in rule["verbs"]
    )


def unused(given: frozenset[Right], taken: frozenset[Right]) -> frozenset[Right]:
    """What was given and not taken; what is given for every resource is taken with any."""
    return frozenset(one for one in given if not any(_covers(one, other) for other in taken))


def _covers(given: Right, taken: Right) -> bool:
    pairs = zip(given, taken, strict=True)
    return all(one in ("*", other) for one, other in pairs)


def _asked(log: Path, accounts: frozenset[str]) -> Iterator[tuple[Right, int]]:
    with log.open() as lines:
        for line in lines:
            if not line.endswith("\n"):
                break  # It is being written.
            event = json.loads(line)
            account = event["user"]["username"].rpartition(":")[2]
            what = event.get("objectRef")
            if account in accounts and what:
                resource = "/".join(filter(None, (what["resource"], what.get("subresource"))))
                code = event.get("responseStatus", {}).get("code", 0)
                yield Right(account, what.get("apiGroup", ""), resource, event["verb"]), code


def _name(role: dict[str, Any]) -> tuple[str, str, str]:
    return role["kind"], role["metadata"].get("namespace", ""), role["metadata"]["name"]


def _role_of(binding: dict[str, Any]) -> tuple[str, str, str]:
    role = binding["roleRef"]
    namespace = binding["metadata"].get("namespace", "") if role["kind"] == "Role" else ""
    return role["kind"], namespace, role["name"]
