"""Rights: whether the accounts of the programs may do what the registry of kinds says, and whether we may install."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

from controller.api.registry import KINDS, POD, Grant, Kind, Program
from controller.check.cluster import ClusterReader, ServiceAccount, Unread
from controller.check.installation import Installation
from controller.check.report import Finding, Topic, TopicFindings

_SAYS = TopicFindings(Topic.RIGHTS)
_MAY_INSTALL = TopicFindings(Topic.INSTALL)
_MOST_NAMESPACES = 20
_MOST_NAMED = 8

# What an install writes: everywhere, and in its namespace.
_CLUSTER_WIDE = (
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    ("rbac.authorization.k8s.io", "clusterroles"),
    ("rbac.authorization.k8s.io", "clusterrolebindings"),
)
_IN_NAMESPACE = (
    ("", "serviceaccounts"),
    ("", "services"),
    ("", "secrets"),
    ("", "configmaps"),
    ("apps", "deployments"),
    ("rbac.authorization.k8s.io", "roles"),
    ("rbac.authorization.k8s.io", "rolebindings"),
)


@dataclass(frozen=True, slots=True)
class NeededRight:
    """One thing that a program has to be allowed: a verb on the objects of a kind, in a namespace or (empty) in all."""

    kind: Kind
    grant: Grant
    verb: str
    namespace: str

    @property
    def attributes(self) -> Mapping[str, str]:
        """As an access review asks for it."""
        given = {
            "verb": self.verb,
            "group": self.kind.group,
            "version": self.kind.version,
            "resource": self.kind.plural,
            "subresource": self.grant.subresource,
            "namespace": self.namespace,
        }
        return {name: value for name, value in given.items() if value}

    @property
    def resource(self) -> str:
        """As kubectl calls it."""
        return f"{self.kind.resource}/{self.grant.subresource}" if self.grant.subresource else self.kind.resource

    @property
    def is_for_metrics(self) -> bool:
        """Whether only models with metrics need it."""
        return self.kind.group.endswith("metrics.k8s.io") or self.kind is POD

    @property
    def only_for(self) -> str:
        """Which models alone need it; empty where all do."""
        if self.grant.for_takeover:
            return "models with frontend: Takeover, the default, or gatewayService"
        return "models with such metrics" if self.is_for_metrics else ""


def needed_rights(program: Program, namespaces: Iterable[str], home: str) -> Iterator[NeededRight]:
    """List what a program needs in the namespaces that it watches (none for all), and at home."""
    for kind in KINDS.values():
        for grant in kind.grants:
            if grant.program is not program or grant.reserved:
                continue
            places = (home,) if grant.at_home else (tuple(namespaces) or ("",))
            for place in places:
                for verb in grant.verbs:
                    yield NeededRight(kind, grant, verb, place)


async def check_rights(reader: ClusterReader, installation: Installation) -> tuple[Finding, ...]:
    """Look whether the programs may do what they need, as the API server itself judges it."""
    me = await reader.whoami()
    found: list[Finding] = []
    for program, account in installation.accounts.items():
        running = installation.of(program)
        namespaces = next((one.namespaces for one in running), installation.namespaces)
        found += await _of_program(reader, program, account, namespaces, is_me=account.user == me)
    return tuple(found)


async def _of_program(
    reader: ClusterReader, program: Program, account: ServiceAccount, namespaces: tuple[str, ...], *, is_me: bool
) -> list[Finding]:
    found = []
    there = await reader.read(f"/api/v1/namespaces/{account.namespace}/serviceaccounts/{account.name}")
    if isinstance(there, Unread) and there.is_absent:
        words = f"there is no ServiceAccount {account}, which the {program} shall run as"
        remedy = f"install it, or say which one it is: --{program}-account NAMESPACE/NAME"
        return [_SAYS.failed(program, words, remedy)]
    asked = namespaces[:_MOST_NAMESPACES]
    needed = tuple(needed_rights(program, asked, account.namespace))
    answers = await asyncio.gather(*(reader.may(None if is_me else account, one.attributes) for one in needed))
    unread = next((one for one in answers if isinstance(one, Unread)), None)
    missing = [one for one, answer in zip(needed, answers, strict=True) if answer is False]
    for who in dict.fromkeys(one.only_for for one in missing):
        some = [one for one in missing if one.only_for == who]
        words, remedy = f"{account} may not {in_words(some)}", _binding(program, account, some)
        if who:
            found.append(_SAYS.warning(program, f"{words}: {who} need it", remedy))
        else:
            found.append(_SAYS.failed(program, words, remedy))
    if unread and unread.why == "denied":
        needs = "it needs the right to create subjectaccessreviews.authorization.k8s.io"
        found.append(_SAYS.unseen(program, f"the rights of {account} are not seen: {needs}"))
    elif unread:
        found.append(_SAYS.unseen(program, f"not all rights of {account} are seen: {unread.words}"))
    elif not missing:
        where = f"in {', '.join(asked)}" if asked else "in all namespaces"
        found.append(_SAYS.ok(program, f"{account} may do all that the {program} needs {where}"))
    if len(namespaces) > len(asked):
        words = f"the rights of {account} in {len(namespaces) - len(asked)} more namespaces were not asked for"
        found.append(_SAYS.unseen(program, words, "name them with --namespaces"))
    return found


def in_words(rights: Iterable[NeededRight]) -> str:
    """Say rights in few words: verbs of one kind in one place together."""
    said = []
    for (resource, namespace), group in groupby(rights, key=lambda one: (one.resource, one.namespace)):
        verbs = ", ".join(dict.fromkeys(one.verb for one in group))
        said.append(f"{verbs} {resource} in {namespace or 'all namespaces'}")
    more = len(said) - _MOST_NAMED
    return "; ".join(said[:_MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")


def _binding(program: Program, account: ServiceAccount, missing: Iterable[NeededRight]) -> str:
    """Say the commands that give these rights."""
    commands = ["kubectl apply -f deploy/rbac"]
    for ending, namespace in dict.fromkeys((_role_ending(one.grant), one.namespace) for one in missing):
        role = f"beamlit-{program}{ending}"
        bound = f"--clusterrole={role} --serviceaccount={account.namespace}:{account.name}"
        if namespace:
            commands.append(f"kubectl -n {namespace} create rolebinding {role} {bound}")
        else:
            commands.append(f"kubectl create clusterrolebinding {role} {bound}")
    return "; ".join(commands[:_MOST_NAMED])


def _role_ending(grant: Grant) -> str:
    """Say how the name of the role ends that has a grant (`controller.install.rbac`)."""
    if grant.for_takeover:
        return "-takeover"
    return "-home" if grant.at_home else ""


async def check_may_install(reader: ClusterReader, namespace: str) -> tuple[Finding, ...]:
    """Look whether we ourselves may write what an install writes."""
    wanted = [{"verb": "create", "group": group, "resource": resource} for group, resource in _CLUSTER_WIDE]
    wanted += [
        {"verb": "create", "group": group, "resource": resource, "namespace": namespace}
        for group, resource in _IN_NAMESPACE
    ]
    there = await reader.read(f"/api/v1/namespaces/{namespace}")
    if isinstance(there, Unread) and there.is_absent:
        wanted.append({"verb": "create", "group": "", "resource": "namespaces"})
    answers = await asyncio.gather(*(reader.may(None, one) for one in wanted))
    unread = next((one for one in answers if isinstance(one, Unread)), None)
    missing = [_named(one) for one, answer in zip(wanted, answers, strict=True) if answer is False]
    remedy = "ask an administrator of the cluster to install, or for these rights"
    if missing:
        return (_MAY_INSTALL.failed("create", f"you may not create {', '.join(missing)}", remedy),)
    if unread:
        return (_MAY_INSTALL.unseen("create", f"your rights are not seen: {unread.words}"),)
    return (
        _MAY_INSTALL.ok("create", f"you may create all that an install in {namespace} writes"),
        await _may_grant(reader),
    )


async def _may_grant(reader: ClusterReader) -> Finding:
    """RBAC lets nobody grant what he does not have, unless he may `escalate` ("Privilege escalation prevention")."""
    escalate = {"verb": "escalate", "group": "rbac.authorization.k8s.io", "resource": "clusterroles"}
    answer = await reader.may(None, escalate)
    if answer is True:
        return _MAY_INSTALL.ok("grant", "you may grant the programs what they need")
    needed = [one for program in Program for one in needed_rights(program, (), "")]
    answers = await asyncio.gather(*(reader.may(None, one.attributes) for one in needed))
    missing = [one for one, may in zip(needed, answers, strict=True) if may is False]
    if missing:
        remedy = "ask an administrator of the cluster to install"
        return _MAY_INSTALL.failed("grant", f"you may not grant what you may not do: {in_words(missing)}", remedy)
    return _MAY_INSTALL.ok("grant", "you may do, and so grant, all that the programs need")


def _named(attributes: Mapping[str, str]) -> str:
    group, namespace = attributes.get("group"), attributes.get("namespace")
    resource = f"{attributes['resource']}.{group}" if group else attributes["resource"]
    return f"{resource} in {namespace}" if namespace else resource
