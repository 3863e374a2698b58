"""What the chart renders, on a real API server: it is taken, and the programs work with its arguments and rights."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable

import yaml

from controller.gateway.bootstrap import HostPort
from tests.support.beamlit import beamlit
from tests.support.chart import CHART, EVERYTHING, INSTALL, NAMESPACE, RELEASE, Chart, Object, pods
from tests.support.kube.api_server import ApiServer
from tests.support.kube.cluster import Cluster
from tests.support.kube.crds import knows_field_paths
from tests.support.kube.release import ProcessRelease, rendered
from tests.support.kube.site import Site
from tests.support.network import unused_port
from tests.support.node.helm import helm

FOREIGN = ("ServiceMonitor", "PrometheusRule")
"""Of the Prometheus Operator: this API server does not know them."""


def test_everything_is_taken_by_a_namespace_that_warns_of_what_is_not_restricted(
    chart: Chart, api_server: Cluster, namespace: str
) -> None:
    levels = (f"pod-security.kubernetes.io/{mode}=restricted" for mode in ("warn", "enforce"))
    api_server.kubectl("label", "namespace", namespace, *levels)
    every = rendered(chart, namespace, "crds.install=false", *EVERYTHING)
    objects = [one for one in every if one["kind"] not in FOREIGN]
    said = api_server.kubectl("apply", "--dry-run=server", "--filename=-", input=as_list(objects))
    assert len(said.stdout.splitlines()) == len(objects)
    assert not said.stderr
    # What is enforced is enforced on pods alone, which need their service account.
    accounts = [one for one in objects if one["kind"] == "ServiceAccount"]
    api_server.apply(*accounts, namespace=namespace)
    made = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"pod-{number}", "namespace": namespace}, "spec": pod}
        for number, (_, pod) in enumerate(pods(objects))
    ]
    taken = api_server.kubectl("create", "--dry-run=server", "--filename=-", input=as_list(made))
    assert len(taken.stdout.splitlines()) == len(made)


def test_install_yaml_is_applied_at_once_and_a_second_time_changes_nothing(own_api_server: ApiServer) -> None:
    validation = () if knows_field_paths(own_api_server) else ("--validate=warn",)
    own_api_server.kubectl("apply", *validation, f"--filename={INSTALL}")
    ca = {"data": {"ca.crt": base64.b64encode(b"kept").decode()}}
    own_api_server.kubectl("-n", NAMESPACE, "patch", "secret", "beamlit-ca", f"--patch={json.dumps(ca)}")
    own_api_server.kubectl("apply", *validation, f"--filename={INSTALL}")
    assert own_api_server.kubectl("diff", f"--filename={INSTALL}").stdout == ""
    kept = own_api_server.kubectl("-n", NAMESPACE, "get", "secret", "beamlit-ca", "-o", "jsonpath={.data.ca\\.crt}")
    assert base64.b64decode(kept.stdout) == b"kept"


def test_the_notes_say_where_no_gateway_is_known(api_server: Cluster, namespace: str) -> None:
    def notes(*values: str) -> str:
        sets = (f"--set={one}" for one in ("crds.install=false", *values))
        options = (f"--namespace={namespace}", "--dry-run=client", *sets)
        return helm(api_server, "install", RELEASE, CHART, *options).partition("NOTES:")[2]

    assert "There is no gateway: " in notes("installBeamlitGateway=false")
    for values in ((), ("installBeamlitGateway=false", "config.proxyService.name=mine")):
        said = notes(*values)
        assert f"is installed as {RELEASE} in the namespace {namespace}" in said
        assert "There is no gateway: " not in said


def as_list(objects: Iterable[Object]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})


async def test_the_programs_work_with_the_arguments_files_and_rights_of_the_chart(chart: Chart, site: Site) -> None:
    oauth = "config.defaultRemoteBackend.authConfig.oauthConfig"
    release = ProcessRelease(site, chart, f"{oauth}.clientId=me", f"{oauth}.clientSecret=hush-hush")
    # The certificates first: the others wait for them, as pods do.
    probe = HostPort("127.0.0.1", unused_port())
    certs = release.started("certs", "--admin-address", probe, probe=probe, within=site.controllers)
    await certs.ready()
    assert await certs.metric("beamlit_kept_certificate_expiry_timestamp_seconds") > 5 * 1.7e9
    xds_server, controller, gateway = await release.all_ready()
    replica = site.backend("local-1")
    site.write(site.served("chat", [replica]).offloading(percentage=50))
    await site.until_condition("chat", "Programmed", "True")
    assert (await site.status("chat"))["remote"]["host"] == "run.beamlit.com"
    await site.until_answered(await site.port("chat"), "local-1")
    for program in (certs, xds_server, controller, gateway):
        assert "forbidden" not in program.log.lower(), program.log
        assert "hush" not in program.log
    assert gateway.end() == 0


async def test_the_keeper_of_certificates_makes_none_that_the_chart_does_not_have(chart: Chart, site: Site) -> None:
    release = ProcessRelease(site, chart)
    site.kubectl("delete", "secret", f"{release.prefix}-reader-tls")
    probe = HostPort("127.0.0.1", unused_port())
    certs = release.started("certs", "--admin-address", probe, probe=probe, within=site.controllers)
    await certs.unready("secrets", "forbidden")


async def test_certificates_can_be_made_by_hand_in_any_cluster(site: Site) -> None:
    command = ("certs", "--secrets", f"{site.namespace}/mine", "--kubeconfig", site.cluster.kubeconfig)
    first = await beamlit(*command)
    assert (first.code, first.errors) == (0, "")
    assert "mine-gateway-tls: spiffe://beamlit/gateway, until " in first.output
    secret = json.loads(site.kubectl("get", "secret", "mine-gateway-tls", "--output=json"))
    assert sorted(secret["data"]) == ["ca.crt", "tls.crt", "tls.key"]
    denied = site.cluster.user(site.namespace, "nobody")
    refused = await beamlit(*command[:3], "--kubeconfig", denied.kubeconfig)
    assert refused.code == 1
    assert "secrets" in refused.errors
    assert "Traceback" not in refused.errors


def test_the_restricted_namespace_would_say_no(api_server: Cluster, namespace: str) -> None:
    """The check above can fail."""
    api_server.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/warn=restricted")
    spec = {"containers": [{"name": "a", "image": "a"}]}
    template = {"metadata": {"labels": {"a": "b"}}, "spec": spec}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "a", "namespace": namespace},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template},
    }
    said = api_server.kubectl("apply", "--dry-run=server", "--filename=-", input=yaml.safe_dump(deployment))
    assert "would violate PodSecurity" in said.stderr
