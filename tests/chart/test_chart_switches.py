"""Budgets and network policies of the chart: whose pods they are for, and who gets to which port."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.chart import Chart, named, pods


def selected(objects: list[dict[str, Any]], selector: dict[str, Any]) -> list[str]:
    """Name what makes the pods that a selector finds."""
    wanted = selector["matchLabels"].items()
    return [
        f"{one['kind']}/{one['metadata']['name']}"
        for one in objects
        if one["kind"] in ("Deployment", "Job") and wanted <= one["spec"]["template"]["metadata"]["labels"].items()
    ]


def test_a_budget_is_for_the_pods_of_one_program_that_has_several(chart: Chart) -> None:
    def budgets(*values: str) -> list[list[str]]:
        objects = chart.objects(*values)
        found = [one["spec"] for one in objects if one["kind"] == "PodDisruptionBudget"]
        assert all(one["maxUnavailable"] == 1 for one in found)
        return [selected(objects, one["selector"]) for one in found]

    several = [[f"Deployment/beamlit-{name}"] for name in ("controller", "gateway", "xds-server")]
    assert sorted(budgets()) == several
    assert sorted(budgets("gateway.replicas=1")) == [several[0], several[2]]
    assert budgets("podDisruptionBudgets.enabled=false") == []


@pytest.mark.parametrize("values", [(), ("config.probeAddr=:9000", "xdsServer.tokens.enabled=true")], ids=str)
def test_a_network_policy_is_for_one_program_and_lets_others_get_to_each_of_its_ports(
    chart: Chart, values: tuple[str, ...]
) -> None:
    objects = chart.objects("networkPolicy.enabled=true", *values)
    policies = [one["spec"] for one in objects if one["kind"] == "NetworkPolicy"]
    limited = [one for policy in policies for one in selected(objects, policy["podSelector"])]
    assert sorted(limited) == sorted(name for name, _ in pods(objects))
    for policy in policies:
        (name,) = selected(objects, policy["podSelector"])
        assert policy["policyTypes"] == ["Ingress"]
        let_in = [port for rule in policy["ingress"] for port in rule["ports"]]
        for port in dict(pods(objects))[name]["containers"][0].get("ports", ()):
            number = port["containerPort"]
            assert any(one["port"] <= number <= one.get("endPort", one["port"]) for one in let_in), (name, number)
    peers = [peer for policy in policies for rule in policy["ingress"] for peer in rule.get("from", ())]
    assert peers
    assert all(selected(objects, peer["podSelector"]) for peer in peers)


def test_further_clients_get_to_the_xds_servers_from_wherever_they_are(chart: Chart) -> None:
    def peers(*values: str) -> object:
        policy = named(chart.objects("networkPolicy.enabled=true", *values), "NetworkPolicy", "beamlit-xds-server")
        (rule,) = [one for one in policy["spec"]["ingress"] if one["ports"][0]["port"] == 18000]
        return rule.get("from")

    assert peers()
    assert peers("certificates.clients={sidecar/team-a}") is None
