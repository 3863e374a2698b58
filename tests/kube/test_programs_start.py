"""How the programs start where something is missing: what they wait for they say, what they cannot do without, too."""

from __future__ import annotations

import socket
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.api.registry import LEASE
from controller.api.timing import KubeTiming
from tests.support.beamlit import beamlit, eventually
from tests.support.forked import Forked
from tests.support.kube.api_server import ApiServer
from tests.support.kube.cluster import Cluster, User
from tests.support.kube.crds import install_crds
from tests.support.kube.lease import lease_of
from tests.support.kube.namespaces import fresh_namespace
from tests.support.kube.program import Program
from tests.support.kube.site import Site, rules_of
from tests.support.network import unused_port
from tests.support.timing import PATIENT

PROGRAMS = ("controller", "xds-server")
ANYWHERE = {
    "controller": ("--metrics-addr", "0", "--probe-addr", "127.0.0.1:0", "--no-leader-election"),
    "xds-server": ("--xds-address", "127.0.0.1:0", "--admin-address", "127.0.0.1:0"),
}
EAGER = partial(
    Forked,
    context=replace(PATIENT, kube=KubeTiming(longest_relist=1.0), gateway=replace(PATIENT.gateway, first_snapshot=1.0)),
)
"""Starts programs that soon look again for what was missing."""


async def test_without_the_custom_resources_they_wait_and_say_so(own_api_server: ApiServer, tmp_path: Path) -> None:
    with fresh_namespace(own_api_server) as namespace:
        async with Site(own_api_server, namespace, tmp_path).running() as site:
            xds_server, controller = site.xds_server(start=EAGER), site.controller(start=EAGER)
            for program in (xds_server, controller):
                await program.unready(
                    "modeldeployments.deployment.beamlit.com", "CustomResourceDefinition is not applied"
                )
            asked = await beamlit("explain", "chat", "--kubeconfig", own_api_server.kubeconfig)
            assert (asked.code, "its CustomResourceDefinition is not applied" in asked.errors) == (3, True)
            install_crds(own_api_server)
            for program in (xds_server, controller):
                await program.ready()
            site.write(site.served("chat", [site.backend("local-1")]))
            await site.envoy()
            await site.until_condition("chat", "Programmed", "True")


async def test_what_they_may_not_read_they_name(site: Site) -> None:
    nobody = site.cluster.user(site.namespace, "nobody")
    xds_server, controller = site.xds_server(user=nobody, start=EAGER), site.controller(user=nobody, start=EAGER)
    for program, kind in ((xds_server, "secrets"), (controller, "services")):
        await program.unready("forbidden", f'cannot list resource "{kind}"', f'in the namespace "{site.namespace}"')
    # Somebody gives them the right: they go on by themselves.
    site.user("controller")
    rules = "beamlit-controller"
    site.kubectl("create", "rolebinding", "late", f"--role={rules}", f"--serviceaccount={site.namespace}:nobody")
    await controller.ready()


@pytest.mark.parametrize("program", PROGRAMS)
async def test_a_mistake_is_told_in_one_line(api_server: Cluster, tmp_path: Path, program: str) -> None:
    missing, not_yaml, wrong_key = tmp_path / "missing", tmp_path / "not-yaml", tmp_path / "config.yaml"
    not_yaml.write_text("clusters: [")
    wrong_key.write_text("metricsAddr: 127.0.0.1:0\nnamespace: default\n")
    wrong_value = tmp_path / "wrong.yaml"
    wrong_value.write_text("namespaces: [Default]\n")
    known = ("--kubeconfig", api_server.kubeconfig, *ANYWHERE[program])
    cases = {
        (f"{missing}",): ("--kubeconfig", missing, *ANYWHERE[program]),
        (f"{not_yaml}", "line 1"): ("--kubeconfig", not_yaml, *ANYWHERE[program]),
        (f"{api_server.kubeconfig}", "elsewhere"): (*known, "--context", "elsewhere"),
        (f"{wrong_key}:2", "namespace", "namespaces"): (*known, "--config", wrong_key),
        (f"{wrong_value}:1", "namespaces"): (*known, "--config", wrong_value),
    }
    for words, options in cases.items():
        ended = await beamlit(program, *options)
        assert ended.code == 1, (options, ended)
        said = [line for line in ended.errors.splitlines() if " warning " not in line and " info " not in line]
        assert len(said) == 1, (options, ended)
        assert said[0].startswith("Error: ")
        assert all(word in said[0] for word in words), (options, said)
    # What is wrong with an option itself is wrong usage, which its words follow.
    ended = await beamlit(program, *known, "--namespaces", "a,B")
    assert ended.code == 2, ended
    assert ended.errors.splitlines()[-1].startswith("Error: Invalid value for '--namespaces'")


@pytest.mark.parametrize(
    ("program", "option"),
    [
        ("controller", "--probe-addr"),
        ("controller", "--metrics-addr"),
        ("xds-server", "--xds-address"),
        ("xds-server", "--admin-address"),
    ],
)
async def test_a_port_that_is_taken_is_named_with_its_option(api_server: Cluster, program: str, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = await beamlit(program, "--kubeconfig", api_server.kubeconfig, *ANYWHERE[program], option, address)
    assert ended.code == 1, ended
    assert ended.errors.splitlines()[-1].startswith("Error: ")
    assert option in ended.errors.splitlines()[-1]
    assert address in ended.errors.splitlines()[-1]
    assert "Traceback" not in ended.errors


def without(verb: str, resource: str, rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rules of a role but for one verb."""
    return [
        {**one, "verbs": [other for other in one["verbs"] if other != verb or resource not in one["resources"]]}
        for one in rules
    ]


@pytest.mark.parametrize("verb", ["get", "create", "update"])
async def test_a_lease_that_is_forbidden_is_named_with_the_verb(site: Site, verb: str) -> None:
    if verb == "update":
        # As the chart brings it: nobody holds it.
        lease = {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": {"name": "beamlit-controller"}}
        site.cluster.apply(lease, namespace=site.namespace)
    user = site.cluster.user(site.namespace, "candidate", *without(verb, "leases", rules_of("controller")))
    controller = site.controller(user=user, start=EAGER)
    await controller.unready(
        "lease: ", f'cannot {verb} resource "leases"', 'API group "coordination.k8s.io"', f'"{site.namespace}"'
    )
    # Somebody gives it the right: it goes on by itself.
    site.cluster.user(site.namespace, "candidate", *rules_of("controller"))
    await controller.ready()
    await eventually(lambda: controller.metric("beamlit_leader"), lambda leads: leads == 1)


async def test_a_lease_in_a_namespace_that_is_not_there_is_told(site: Site) -> None:
    everybody = User("", site.cluster.kubeconfig)
    controller = site.controller("--lease", "nowhere-at-all/beamlit-controller", user=everybody, start=EAGER)
    await controller.unready("lease: ", 'namespaces "nowhere-at-all" not found')


async def test_outside_of_a_pod_the_lease_is_in_the_namespace_of_the_context(site: Site, tmp_path: Path) -> None:
    raw = yaml.safe_load(site.user("controller").kubeconfig.read_text())
    for one in raw["contexts"]:
        one["context"]["namespace"] = site.namespace
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(raw))
    address = f"127.0.0.1:{unused_port()}"
    options = ("--metrics-addr", "0", "--probe-addr", address, "--namespaces", site.namespace)
    program = Program("alone", tmp_path, ("controller", *options, "--kubeconfig", kubeconfig), address, EAGER)
    site.controllers.append(program)
    program.start()
    await program.ready()
    await eventually(lambda: program.metric("beamlit_leader"), lambda leads: leads == 1)
    assert (await lease_of(site.cluster, site.namespace))["spec"]["holderIdentity"]


async def test_a_service_of_xds_servers_that_is_mistyped_is_named(site: Site) -> None:
    site.write(site.served("chat", [site.backend("local-1")]))
    site.controller("--xds-service", f"{site.namespace}/beamlit-xdss")
    await site.until_condition("chat", "Programmed", "Unknown", "NotReported")
    words = f"the Service {site.namespace}/beamlit-xdss (--xds-service) has no endpoint"
    await site.until_message("chat", "Programmed", words)
