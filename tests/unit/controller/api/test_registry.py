"""The registry is the whole truth about kinds: what it lists is used, and what is used is listed."""

from __future__ import annotations

import ast
import asyncio
import re
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from controller.api.contract.route import RouteKind
from controller.api.registry import (
    KINDS,
    LEASE,
    MODEL_DEPLOYMENT,
    POLICY,
    SERVICE,
    TOOL_DEPLOYMENT,
    VALIDATION,
    Kind,
    Program,
    watched_by,
)
from tests.support.controlled import controlled
from tests.support.processes import ROOT
from tests.support.store import MemoryStore, settled
from xds_server.control_plane import ControlPlane, ControlPlaneOptions

OURS = (MODEL_DEPLOYMENT, TOOL_DEPLOYMENT, POLICY)
SOURCES = [file for package in ("controller", "xds_server") for file in sorted((ROOT / package).rglob("*.py"))]
QUOTED_KIND = re.compile(rf"""["']({"|".join(KINDS)})["']""")


class Recording(MemoryStore):
    """Keeps which kinds were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds: set[str] = set()

    def watch(self, kinds: Collection[str]):
        self.kinds |= set(kinds)
        return super().watch(kinds)


async def test_the_controller_watches_what_the_registry_grants_it():
    store = Recording()
    async with controlled(store):
        assert store.kinds == set(watched_by(Program.CONTROLLER))


async def test_the_xds_server_watches_what_the_registry_grants_it():
    store = Recording()
    control_plane = ControlPlane(store, ControlPlaneOptions(health_checks=False), CollectorRegistry())
    task = asyncio.create_task(control_plane.run())
    await settled()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert store.kinds == set(watched_by(Program.XDS_SERVER))


def test_what_is_watched():
    assert watched_by(Program.CONTROLLER) == (
        "ModelDeployment",
        "Service",
        "EndpointSlice",
        "Deployment",
        "StatefulSet",
        "ReferenceGrant",
    )
    assert watched_by(Program.XDS_SERVER) == (
        "ModelDeployment",
        "Service",
        "EndpointSlice",
        "ReferenceGrant",
        "Secret",
    )


def test_only_kinds_that_are_not_served_yet_have_rights_that_nobody_uses():
    reserved = [one for one in KINDS.values() if any(grant.reserved for grant in one.grants)]
    assert reserved == [TOOL_DEPLOYMENT, POLICY]


def test_a_cluster_may_lack_the_kinds_of_the_gateway_api_alone():
    assert [one.group for one in KINDS.values() if one.optional] == ["gateway.networking.k8s.io"]
    assert [one.kind for one in KINDS.values() if one.earlier_versions and not one.optional] == []


def test_every_kind_is_of_use_to_a_program():
    assert [one.kind for one in KINDS.values() if not one.grants] == []


def test_what_is_watched_can_be_read():
    watched = {kind for program in Program for kind in watched_by(program)}
    assert [kind for kind in watched if KINDS[kind].schema is None] == []


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.kind)
def test_the_models_of_our_kinds_say_the_same(kind: Kind):
    fields = kind.schema.model_fields
    assert fields["apiVersion" if "apiVersion" in fields else "api_version"].default == kind.api_version
    assert fields["kind"].default == kind.kind
    assert fields["spec"].annotation is kind.definition.spec


def test_kinds_of_ours_alone_have_a_definition():
    assert [one for one in KINDS.values() if one.definition] == list(OURS)


def test_words_on_the_wire_are_short_and_of_kinds_that_there_are():
    words = {kind.value: kind.word for kind in RouteKind}
    assert words == {"ModelDeployment": "model", "ToolDeployment": "tool"}
    assert words.keys() <= set(KINDS)


def test_kinds_of_one_group_and_plural_are_one_kind():
    assert len({one.resource for one in KINDS.values()}) == len(KINDS)
    assert {one.kind for one in KINDS.values()} == set(KINDS)


def test_every_kind_that_a_manifest_may_hold_is_checked():
    assert set(VALIDATION) == {(one.api_version, one.kind) for one in KINDS.values() if one.schema and not one.optional}
    assert VALIDATION["v1", "Service"]({"metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}]}}) == ()
    (fault,) = VALIDATION["v1", "Service"]({"metadata": {"name": "a"}, "spec": 7})
    assert fault.path == ("spec",)


@pytest.mark.parametrize(
    ("kind", "resource", "path"),
    [
        (SERVICE, "services", "/api/v1/namespaces/a/services/b"),
        (LEASE, "leases.coordination.k8s.io", "/apis/coordination.k8s.io/v1/namespaces/a/leases/b"),
    ],
)
def test_names_in_the_api_of_kubernetes(kind: Kind, resource: str, path: str):
    assert kind.resource == resource
    assert kind.path("a", "b") == path
    assert kind.path("a", "b", "status") == f"{path}/status"
    assert kind.path("a") == path.removesuffix("/b")
    assert kind.path() == path.replace("/namespaces/a", "").removesuffix("/b")


def test_no_other_module_spells_the_name_of_a_kind():
    spelled = [
        f"{file.relative_to(ROOT)}:{constant.lineno}: {constant.value}"
        for file in SOURCES
        if QUOTED_KIND.search(file.read_text())
        for constant in spelled_kinds(file)
    ]
    assert spelled == []


def spelled_kinds(file: Path) -> Iterator[ast.Constant]:
    """Find texts in a module that are the name of a kind."""
    if file == ROOT / "controller/api/registry.py":
        return
    # The model of a kind says its own, a route the kind it is of, and a credential's source is called as the kind is.
    other = set()
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        match node:
            case (
                ast.Subscript(value=ast.Name(id="Literal"))
                | ast.AnnAssign(target=ast.Name(id="kind"))
                | ast.ClassDef(name="RouteKind")
                | ast.keyword(arg="source")
                | ast.Compare(left=ast.Attribute(attr="source"))
                | ast.MatchValue()
            ):
                other |= set(ast.walk(node))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node not in other and node.value in KINDS:
            yield node
