"""What the chart renders, on a real API server: it is taken, and the programs work with its arguments and rights."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from controller.gateway.bootstrap import HostPort
from tests.support.beamlit import beamlit
from tests.support.chart import EVERYTHING, INSTALL, NAMESPACE, Chart, Object, named, pods
from tests.support.kube.api_server import ApiServer
from tests.support.kube.cluster import Cluster
from tests.support.kube.program import Program
from tests.support.kube.site import Site
from tests.support.network import unused_port
from tests.support.objects import a_slice

FOREIGN = ("ServiceMonitor", "PrometheusRule")
"""Of the Prometheus Operator: this API server does not know them."""
PREFIX = "trial"


def rendered(chart: Chart, namespace: str, *values: str) -> list[Object]:
    """Render a release that has a namespace to itself, and names in the cluster that no other test has."""
    own = (f"allowedNamespaces={{{namespace}}}", f"config.namespaces={namespace}", f"namePrefix={PREFIX}-{namespace}")
    return chart.objects(*values, *own, options=[f"--namespace={namespace}"])


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
    own_api_server.kubectl("apply", f"--filename={INSTALL}")
    ca = {"data": {"ca.crt": base64.b64encode(b"kept").decode()}}
    own_api_server.kubectl("-n", NAMESPACE, "patch", "secret", "beamlit-ca", f"--patch={json.dumps(ca)}")
    own_api_server.kubectl("apply", f"--filename={INSTALL}")
    assert own_api_server.kubectl("diff", f"--filename={INSTALL}").stdout == ""
    kept = own_api_server.kubectl("-n", NAMESPACE, "get", "secret", "beamlit-ca", "-o", "jsonpath={.data.ca\\.crt}")
    assert base64.b64decode(kept.stdout) == b"kept"


def as_list(objects: Iterable[Object]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})


class Release:
    """A release whose pods are processes: with the arguments, the files and the rights that pods would have."""

    def __init__(self, site: Site, chart: Chart, *values: str) -> None:
        self.site = site
        self.prefix = f"{PREFIX}-{site.namespace}"
        self.objects = rendered(chart, site.namespace, "crds.install=false", *values)
        site.cluster.apply(*self.objects, namespace=site.namespace)

    def started(self, deployment: str, *options: object, probe: HostPort, within: list[Program]) -> Program:
        """Start the one container of a Deployment; the options come after its own, and say where it listens."""
        pod = named(self.objects, "Deployment", f"{self.prefix}-{deployment}")["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        root = self.site.folder / deployment
        for mount in container["volumeMounts"]:
            volume = next(one for one in pod["volumes"] if one["name"] == mount["name"])
            self._mount(volume, root / mount["mountPath"].lstrip("/"), root)
        arguments = [one.replace("/etc/", f"{root}/etc/") for one in container["args"]]
        assert container["command"] == ["beamlit"]
        if deployment != "gateway":
            account = self.site.cluster.service_account(self.site.namespace, pod["serviceAccountName"])
            options = ("--kubeconfig", account.kubeconfig, *options)
        program = Program(deployment, self.site.folder, (*arguments, *options), str(probe))
        within.append(program)
        program.start()
        return program

    def _mount(self, volume: Object, folder: Path, root: Path) -> None:
        folder.mkdir(parents=True)
        if "configMap" in volume:
            for name, text in self._read("configmap", volume["configMap"]["name"])["data"].items():
                (folder / name).write_text(text.replace("/etc/", f"{root}/etc/"))
        elif "secret" in volume:
            data = self._read("secret", volume["secret"]["secretName"])["data"]
            for item in volume["secret"]["items"]:
                (folder / item["path"]).write_bytes(base64.b64decode(data[item["key"]]))

    def _read(self, kind: str, name: str) -> dict[str, Any]:
        read: dict[str, Any] = json.loads(self.site.kubectl("get", kind, name, "--output=json"))
        return read


async def test_the_programs_work_with_the_arguments_files_and_rights_of_the_chart(chart: Chart, site: Site) -> None:
    oauth = "config.defaultRemoteBackend.authConfig.oauthConfig"
    release = Release(site, chart, f"{oauth}.clientId=me", f"{oauth}.clientSecret=hush-hush")
    local = (HostPort("127.0.0.1", unused_port()) for _ in range(10))
    # The certificates first: the others wait for them, as pods do.
    probe = next(local)
    certs = release.started("certs", "--admin-address", probe, probe=probe, within=site.controllers)
    await certs.ready()
    assert await certs.metric("beamlit_kept_certificate_expiry_timestamp_seconds") > 5 * 1.7e9
    xds, admin, reports = (HostPort(site.host, unused_port()) for _ in range(3))
    site.write(
        a_slice(f"{release.prefix}-xds", "xds")
        .port(xds.port, "grpc-xds")
        .and_port(reports.port, "reports")
        .ready(site.host)
    )
    where = ("--xds-address", xds, "--admin-address", admin, "--reports-address", reports)
    xds_server = release.started(
        "xds-server", *where, "--gateway-address", site.gateway, probe=admin, within=site.xds_servers
    )
    probe = next(local)
    listens = ("--metrics-addr", next(local), "--probe-addr", probe)
    controller = release.started("controller", *listens, probe=probe, within=site.controllers)
    await xds_server.ready()
    await controller.ready()
    probe = next(local)
    name = f"{release.prefix}-xds.{site.namespace}.svc"
    joins = ("--xds-address", xds, "--xds-server-name", name, "--admin-address", probe)
    gateway = release.started("gateway", *joins, probe=probe, within=site.controllers)
    await gateway.ready()
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
    release = Release(site, chart)
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
