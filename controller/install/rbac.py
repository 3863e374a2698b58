"""The roles of the programs, written from the registry: least privilege, with the reason beside each rule."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from controller.api.registry import KINDS, Grant, Program


@dataclass(frozen=True, slots=True)
class RbacRole:
    """One ClusterRole; the sentence says where to bind it."""

    name: str
    program: Program
    at_home: bool
    sentence: str
    for_takeover: bool = False


ROLES = (
    RbacRole(
        "beamlit-controller",
        Program.CONTROLLER,
        at_home=False,
        sentence="What `beamlit controller` may do in the namespaces that it watches. For all of them bind it with a "
        "ClusterRoleBinding, for single ones with a RoleBinding in each.",
    ),
    RbacRole(
        "beamlit-controller-home",
        Program.CONTROLLER,
        at_home=True,
        sentence="What `beamlit controller` may do in the namespace that it runs in: bind it there with a RoleBinding.",
    ),
    RbacRole(
        "beamlit-controller-takeover",
        Program.CONTROLLER,
        at_home=False,
        sentence="What `beamlit controller` needs besides to take over Services (frontend: Takeover). Bind it with a "
        "RoleBinding in each namespace whose Services may be taken over, with a ClusterRoleBinding for all of them.",
        for_takeover=True,
    ),
    RbacRole(
        "beamlit-xds-server",
        Program.XDS_SERVER,
        at_home=False,
        sentence="What `beamlit xds-server` may do in the namespaces that it watches: read. For all of them bind it "
        "with a ClusterRoleBinding, for single ones with a RoleBinding in each.",
    ),
    RbacRole(
        "beamlit-xds-server-home",
        Program.XDS_SERVER,
        at_home=True,
        sentence="What `beamlit xds-server` may do in the namespace of the gateway: bind it there with a RoleBinding.",
    ),
)


@dataclass(frozen=True, slots=True)
class _Rule:
    """One rule of a role: resources of one group that are granted the same for the same reason."""

    group: str
    resources: tuple[str, ...]
    grant: Grant

    def text(self) -> str:
        """The rule as YAML, with its reason as a comment."""
        group = self.group or '""'
        return (
            f"{_comment(self.grant.why, indent='  ')}"
            f"  - apiGroups: [{group}]\n"
            f"    resources: [{', '.join(map(_quoted, self.resources))}]\n"
            f"    verbs: [{', '.join(self.grant.verbs)}]\n"
        )


def _quoted(resource: str) -> str:
    return f'"{resource}"' if resource == "*" else resource


def role_files() -> Mapping[str, str]:
    """Write the roles of each program into a file, by its name."""
    return {f"{program}.yaml": _file(role for role in ROLES if role.program == program) for program in Program}


def _file(roles: Iterable[RbacRole]) -> str:
    head = "# Written by `make manifests` from controller/api/registry.py; do not edit.\n"
    return head + "---\n".join(map(role_text, roles))


def role_text(role: RbacRole) -> str:
    """Write one role as YAML."""
    return (
        f"{_comment(role.sentence)}"
        "apiVersion: rbac.authorization.k8s.io/v1\n"
        "kind: ClusterRole\n"
        "metadata:\n"
        f"  name: {role.name}\n"
        "rules:\n"
        f"{''.join(rule.text() for rule in _rules(role))}"
    )


def _rules(role: RbacRole) -> Iterator[_Rule]:
    """Go through the grants of a role; what follows each other and differs in the resource alone is one rule."""
    last: _Rule | None = None
    for kind in KINDS.values():
        for grant in kind.grants:
            asked = (role.program, role.at_home, role.for_takeover)
            if (grant.program, grant.at_home, grant.for_takeover) != asked:
                continue
            resource = f"{kind.plural}/{grant.subresource}" if grant.subresource else kind.plural
            if last and (last.group, last.grant) == (kind.group, grant):
                last = replace(last, resources=(*last.resources, resource))
                continue
            if last:
                yield last
            last = _Rule(kind.group, (resource,), grant)
    if last:
        yield last


def _comment(sentence: str, indent: str = "") -> str:
    lead = f"{indent}# "
    lines = textwrap.wrap(sentence, 120, initial_indent=lead, subsequent_indent=lead, break_on_hyphens=False)
    return "".join(f"{line}\n" for line in lines)
