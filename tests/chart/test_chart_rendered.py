"""What helm makes of the chart: for the values of the original, for each switch, and for what is mistyped."""

from __future__ import annotations

import base64
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.api.resources.configuration import Configuration
from controller.api.schema.values import parse
from controller.cli.main import main
from controller.install.rbac import ROLES, role_text
from tests.support.chart import (
    CHART,
    CLIENT,
    EVERYTHING,
    INSTALL,
    NAMESPACE,
    Chart,
    configuration_of,
    container_of,
    copies,
    install_manifest,
    named,
    pods,
)

DEPLOYMENTS = ("beamlit-controller", "beamlit-xds-server", "beamlit-gateway")
"""Of the three programs."""

TUTORIAL = ("installMetricServer=true", "beamlitApiToken=YS1jbGllbnQ6aHVzaC1odXNo", *CLIENT)
"""What the original's README has everybody type."""


@pytest.mark.parametrize("values", [(), TUTORIAL, EVERYTHING], ids=["defaults", "tutorial", "everything"])
def test_helm_finds_nothing_to_complain_of(chart: Chart, values: tuple[str, ...]) -> None:
    assert "0 chart(s) failed" in chart.lint(*values)


def test_the_command_of_the_original_gives_a_default_backend_whose_secret_is_a_file_of_the_xds_server(
    chart: Chart,
) -> None:
    objects = chart.objects(*TUTORIAL)
    backend = configuration_of(objects)["defaultRemoteBackend"]
    assert backend == {
        "host": "run.beamlit.com",
        "scheme": "https",
        "pathPrefix": "/$workspace/models/$model",
        "authConfig": {
            "type": "oauth",
            "oauthConfig": {
                "clientId": "a-client",
                "clientSecretFile": "/etc/beamlit/credentials/clientSecret",
                "tokenUrl": "https://api.beamlit.com/v0/oauth/token",
            },
        },
    }
    secret = named(objects, "Secret", "beamlit-credentials")
    assert base64.b64decode(secret["data"]["clientSecret"]) == b"hush-hush"
    mounting = [
        name
        for name, pod in pods(objects)
        if any(one.get("secret", {}).get("secretName") == "beamlit-credentials" for one in pod["volumes"])
    ]
    assert mounting == ["Deployment/beamlit-xds-server"]


def test_no_credential_is_anywhere_but_in_its_secret(chart: Chart) -> None:
    for one in chart.objects(*TUTORIAL):
        if (one["kind"], one["metadata"]["name"]) == ("Secret", "beamlit-credentials"):
            continue
        text = json.dumps(one)
        assert "hush" not in text, one["metadata"]["name"]
        assert "YS1jbGllbnQ6aHVzaC1odXNo" not in text, one["metadata"]["name"]
    assert all("env" not in container for _, pod in pods(chart.objects(*TUTORIAL)) for container in pod["containers"])


def test_without_a_client_there_is_no_default_backend_and_nothing_to_mount(chart: Chart) -> None:
    objects = chart.objects()
    assert "defaultRemoteBackend" not in configuration_of(objects)
    assert not [one for one in objects if one["metadata"]["name"] == "beamlit-credentials"]
    assert "credentials" not in json.dumps(named(objects, "Deployment", "beamlit-xds-server"))


def test_a_secret_of_ones_own_takes_the_place_of_the_one_that_is_made(chart: Chart) -> None:
    objects = chart.objects(CLIENT[0], "credentials.existingSecret=mine")
    assert not [one for one in objects if one["metadata"]["name"] == "beamlit-credentials"]
    volumes = named(objects, "Deployment", "beamlit-xds-server")["spec"]["template"]["spec"]["volumes"]
    assert [one["secret"]["secretName"] for one in volumes if one["name"] == "credentials"] == ["mine"]


def test_digits_alone_are_a_client_and_a_secret(chart: Chart) -> None:
    oauth = "config.defaultRemoteBackend.authConfig.oauthConfig"
    objects = chart.objects(f"{oauth}.clientId=123456789012345678", f"{oauth}.clientSecret=00123")
    oauth_config = configuration_of(objects)["defaultRemoteBackend"]["authConfig"]["oauthConfig"]
    assert oauth_config["clientId"] == "123456789012345678"
    secret = named(objects, "Secret", "beamlit-credentials")["data"]["clientSecret"]
    assert base64.b64decode(secret) == b"00123"


def test_a_backend_without_a_credential_and_none_at_all(chart: Chart) -> None:
    backend = "config.defaultRemoteBackend"
    open_one = configuration_of(chart.objects(f"{backend}.host=models.example", f"{backend}.authConfig=null"))
    assert open_one["defaultRemoteBackend"]["host"] == "models.example"
    assert "authConfig" not in open_one["defaultRemoteBackend"]
    assert "defaultRemoteBackend" not in configuration_of(chart.objects(f"{backend}=null"))


EVERYWHERE = ("allowedNamespaces=null", "config.namespaces=null")
SWITCHES = ("installMetricServer", "installBeamlitGateway", "networkPolicy.enabled", "serviceMonitor.enabled")


@pytest.mark.parametrize("on", list(itertools.product(("true", "false"), repeat=len(SWITCHES))), ids="-".join)
def test_whatever_is_switched_everything_has_a_name_a_place_and_nothing_twice(
    chart: Chart, on: tuple[str, ...]
) -> None:
    objects = chart.objects(*(f"{name}={value}" for name, value in zip(SWITCHES, on, strict=True)))
    names = [
        (one["apiVersion"], one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in objects
    ]
    assert len(names) == len(set(names))
    kinds = {one["kind"] for one in objects}
    assert ("APIService" in kinds, "NetworkPolicy" in kinds, "ServiceMonitor" in kinds) == (
        on[0] == "true",
        on[2] == "true",
        on[3] == "true",
    )
    deployments = {one["metadata"]["name"] for one in objects if one["kind"] == "Deployment"}
    assert ("beamlit-gateway" in deployments) == (on[1] == "true")
    has_proxy_service = "proxyService" in configuration_of(objects)
    assert has_proxy_service == (on[1] == "true")


def test_names_follow_the_release_and_two_releases_share_none(chart: Chart) -> None:
    first, second = (
        {(one["kind"], one["metadata"]["name"]) for one in chart.objects("crds.install=false", release=release)}
        for release in ("beamlit-controller", "blue")
    )
    assert ("Service", "beamlit-gateway") in first
    assert ("Service", "blue-gateway") in second
    assert not first & second
    prefixed = {one["metadata"]["name"] for one in chart.objects("namePrefix=green", "crds.install=false")}
    assert prefixed
    assert all(name.startswith("green") for name in prefixed)


def test_the_configuration_is_one_that_the_programs_read(chart: Chart) -> None:
    for values in ((), TUTORIAL, EVERYTHING):
        parse(Configuration, configuration_of(chart.objects(*values)))
    everywhere = configuration_of(chart.objects(*EVERYWHERE))
    assert parse(Configuration, everywhere).namespaces == ()
    several = configuration_of(chart.objects("allowedNamespaces={a,b}", r"config.namespaces=a\, b"))
    assert parse(Configuration, several).namespaces == ("a", "b")
    assert parse(Configuration, several).gateway == (NAMESPACE, "beamlit-gateway")


def test_the_roles_are_those_of_the_registry(chart: Chart) -> None:
    objects = chart.objects()
    for role in ROLES:
        assert named(objects, "ClusterRole", role.name)["rules"] == yaml.safe_load(role_text(role))["rules"]
    ours = {one["metadata"]["name"] for one in objects if one["kind"] == "ClusterRole"}
    assert ours == {role.name for role in ROLES}


def test_rights_end_at_the_namespaces_that_are_allowed(chart: Chart) -> None:
    some = chart.objects("allowedNamespaces={default,team-a}")
    assert not [one for one in some if one["kind"] == "ClusterRoleBinding"]
    bound = {
        (one["metadata"]["namespace"], one["roleRef"]["name"], one["subjects"][0]["name"])
        for one in some
        if one["kind"] == "RoleBinding" and one["roleRef"]["kind"] == "ClusterRole"
    }
    assert bound == {
        (namespace, role.name, f"beamlit-{role.program}")
        for role in ROLES
        for namespace in ([NAMESPACE] if role.at_home else ["default", "team-a"])
    }
    everywhere = chart.objects(*EVERYWHERE)
    assert {one["roleRef"]["name"] for one in everywhere if one["kind"] == "ClusterRoleBinding"} == {
        role.name for role in ROLES if not role.at_home
    }


def test_every_pod_is_one_that_a_restricted_namespace_takes_and_may_write_to_memory_alone(chart: Chart) -> None:
    seen = pods(chart.objects(*EVERYTHING))
    assert len(seen) == 6
    for name, pod in seen:
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            assert (security["allowPrivilegeEscalation"], security["readOnlyRootFilesystem"]) == (False, True), name
            assert (security["runAsNonRoot"], security["runAsUser"] > 0) == (True, True), name
            assert {*container["resources"]["requests"]} >= {"cpu", "memory"}, name
        for volume in pod["volumes"]:
            assert "hostPath" not in volume, name
            assert volume.get("emptyDir", {"medium": "Memory"})["medium"] == "Memory", name


def test_a_gateway_has_longer_to_drain_than_it_takes(chart: Chart) -> None:
    gateway = named(chart.objects("gateway.drainSeconds=600"), "Deployment", "beamlit-gateway")["spec"]
    assert gateway["template"]["spec"]["terminationGracePeriodSeconds"] > 600
    assert "--drain-seconds=600" in gateway["template"]["spec"]["containers"][0]["args"]
    assert gateway["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_a_gateway_of_both_families_has_them_at_its_pods_and_at_its_service(chart: Chart) -> None:
    for value, policy, listens in (("true", "PreferDualStack", True), ("false", None, False)):
        objects = chart.objects(f"gateway.dualStack={value}")
        assert named(objects, "Service", "beamlit-gateway")["spec"].get("ipFamilyPolicy") == policy
        assert ("--gateway-address=::" in container_of(objects, "beamlit-xds-server")["args"]) == listens


def test_a_change_of_the_configuration_replaces_those_who_read_it_and_no_gateway(chart: Chart) -> None:
    def templates(*values: str) -> dict[str, Any]:
        return {
            one["metadata"]["name"]: one["spec"]["template"]
            for one in chart.objects(*values)
            if one["kind"] == "Deployment"
        }

    before, after = templates(), templates("config.modelsPerNamespace=7")
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"beamlit-controller", "beamlit-xds-server"}


@pytest.mark.parametrize("address", ["127.0.0.1:9000", ":9000", "[::]:9000"])
def test_ports_follow_the_addresses_of_the_configuration(chart: Chart, address: str) -> None:
    controller = container_of(chart.objects(f"config.probeAddr={address}"), "beamlit-controller")
    assert {"name": "probes", "containerPort": 9000} in controller["ports"]
    assert controller["readinessProbe"]["httpGet"]["port"] == 9000


def test_probes_are_asked_where_they_are(chart: Chart) -> None:
    off = container_of(chart.objects("config.metricsAddr=0"), "beamlit-controller")
    assert [one["name"] for one in off["ports"]] == ["probes"]
    only_metrics = container_of(chart.objects("config.probeAddr=0"), "beamlit-controller")
    assert only_metrics["livenessProbe"]["httpGet"]["port"] == 8080


def test_an_image_is_named_by_tag_or_digest(chart: Chart) -> None:
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert (
        container_of(chart.objects(), "beamlit-controller")["image"] == f"ghcr.io/beamlit/beamlit-controller:{version}"
    )
    digest = f"sha256:{'0' * 64}"
    pinned = container_of(chart.objects(f"gateway.image.digest={digest}", "gateway.image.tag=x"), "beamlit-gateway")
    assert pinned["image"] == f"ghcr.io/beamlit/beamlit-gateway:x@{digest}"


@pytest.mark.parametrize("source", ["beamlit", "cert-manager", "existing"])
def test_every_certificate_that_is_mounted_is_made_by_whoever_makes_them(chart: Chart, source: str) -> None:
    objects = chart.objects(f"certificates.source={source}", "certificates.clients={gateway/edge-1}")
    made = {
        "beamlit": {one["metadata"]["name"] for one in objects if one["kind"] == "Secret"},
        "cert-manager": {one["spec"]["secretName"] for one in objects if one["kind"] == "Certificate"},
        "existing": {f"beamlit-{name}-tls" for name in ("xds-server", "controller", "gateway")},
    }[source]
    mounted = {
        one["secret"]["secretName"] for _, pod in pods(objects) for one in pod["volumes"] if one["name"] == "tls"
    }
    assert mounted <= made
    assert len(mounted) == 3
    if source != "existing":
        assert {"beamlit-ca", "beamlit-reader-tls", "beamlit-gateway-edge-1-tls"} <= made
    has_keeper = any(name == "Deployment/beamlit-certs" for name, _ in pods(objects))
    assert has_keeper == (source == "beamlit")


def test_dashboard_and_alerts_are_those_of_deploy_observability(chart: Chart) -> None:
    for original, copy in copies().items():
        assert copy.read_bytes() == original.read_bytes(), "run `make manifests`"
    observability = CHART.parent / "observability"
    objects = chart.objects(*EVERYTHING)
    rules = named(objects, "PrometheusRule", "beamlit")["spec"]
    assert rules == yaml.safe_load((observability / "rules.yaml").read_text())
    dashboard = named(objects, "ConfigMap", "beamlit-dashboard")
    assert json.loads(dashboard["data"]["beamlit.json"]) == json.loads((observability / "dashboard.json").read_text())
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_what_is_scraped_has_a_port_called_metrics_and_keeps_the_labels_of_models(chart: Chart) -> None:
    objects = chart.objects("serviceMonitor.enabled=true")
    (endpoint,) = named(objects, "ServiceMonitor", "beamlit")["spec"]["endpoints"]
    # Without it the namespace of a metric would be that of the program.
    assert (endpoint["port"], endpoint["honorLabels"]) == ("metrics", True)
    for name in ("beamlit-controller", "beamlit-xds-server", "beamlit-gateway", "beamlit-certs"):
        assert "metrics" in {one["name"] for one in container_of(objects, name)["ports"]}


def test_every_container_is_called_with_options_that_its_program_has(chart: Chart, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    called = set()
    for _, pod in pods(chart.objects(*EVERYTHING)):
        for container in pod["containers"]:
            if container.get("command") != ["beamlit"]:
                continue
            program, *options = (re.sub(r"/etc/beamlit/\S+", str(file), one) for one in container["args"])
            main.commands[program].make_context(program, options)
            called.add(program)
    assert called == {"controller", "xds-server", "envoy", "certs", "restore"}


WITHOUT_A_VALUE = {
    # The programs are where the chart has put them, and reach each other there.
    *("--xds-address", "--admin-address", "--reports-address", "--gateway-port", "--xds-replica", "--xds-server-name"),
    *("--kubeconfig", "--context", "--node-id", "--envoy-binary", "--state-dir", "arguments"),
    # There is always TLS, and the controller shows its certificate.
    *("--insecure-xds", "--node-token-file", "--xds-token-file"),
    # The limit of the pod's memory.
    "--memory-limit",
}


def test_every_option_of_a_program_is_a_value_of_the_chart_or_a_key_of_its_configuration(chart: Chart) -> None:
    more = ("xdsServer.tokens.enabled=true", "xdsServer.remoteChecks=false", "xdsServer.installation=edge-1")
    more = (*more, "gateway.dualStack=true", "gateway.allStatistics=true")
    given: dict[str, set[str]] = {}
    for objects in (chart.objects(*EVERYTHING), chart.objects(*EVERYTHING, *more)):
        for name in DEPLOYMENTS:
            program, *options = container_of(objects, name)["args"]
            given.setdefault(program, set()).update(one.partition("=")[0] for one in options)
    keys = {one.alias or name for name, one in Configuration.model_fields.items()}
    of_keys = {"--" + re.sub("([A-Z])", r"-\1", key).lower() for key in keys}
    for program, options in given.items():
        # Two of them are called otherwise in the configuration.
        has_one = options | of_keys | WITHOUT_A_VALUE | {"--leader-election", "--gateway-service"}
        every = [{*one.opts, *one.secondary_opts} for one in main.commands[program].params]
        assert [names for names in every if not names & has_one] == [], program


def test_with_tokens_each_pod_of_the_gateway_is_itself_and_the_xds_server_may_ask_whose_they_are(
    chart: Chart, tmp_path: Path
) -> None:
    others = ("xdsServer.tokens.clients[0].serviceAccount=team-a/envoy", "xdsServer.tokens.clients[0].grant=reader")
    objects = chart.objects("xdsServer.tokens.enabled=true", *others)
    bound = [one for one in container_of(objects, "beamlit-xds-server")["args"] if one.startswith("--client=")]
    assert bound == [
        f"--client=system:serviceaccount:{NAMESPACE}:beamlit-gateway=gateway/@pod",
        "--client=system:serviceaccount:team-a:envoy=reader",
    ]
    (volume,) = [
        one
        for name, pod in pods(objects)
        for one in pod["volumes"]
        if name == "Deployment/beamlit-gateway" and one["name"] == "tls"
    ]
    secret, token = volume["projected"]["sources"]
    assert [one["key"] for one in secret["secret"]["items"]] == ["ca.crt"], "no key of a certificate"
    assert token["serviceAccountToken"]["audience"] == "beamlit-xds"
    (role,) = [one for one in objects if one["kind"] == "ClusterRole" and "tokenreviews" in str(one["rules"])]
    (binding,) = [one for one in objects if one["kind"] == "ClusterRoleBinding"]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert [one["name"] for one in binding["subjects"]] == ["beamlit-xds-server"]
    assert "tokenreviews" not in str(chart.objects()), "only where the option is used"
    for deployment in ("beamlit-xds-server", "beamlit-gateway"):
        arguments = container_of(objects, deployment)["args"]
        program, *options = (re.sub(r"/etc/beamlit/\S+", str(tmp_path / "file"), one) for one in arguments)
        (tmp_path / "file").touch()
        main.commands[program].make_context(program, options)


def test_install_yaml_is_current(chart: Chart) -> None:
    # Helm 3 writes no empty line between two objects.
    written, rendered = (re.sub(r"\n\n+", "\n", text) for text in (INSTALL.read_text(), install_manifest(chart)))
    assert written == rendered, "run `make manifests` and review the diff"


def test_install_yaml_has_a_namespace_first_and_no_hook() -> None:
    first, *others = [one for one in yaml.safe_load_all(INSTALL.read_text()) if one]
    assert (first["kind"], first["metadata"]["name"]) == ("Namespace", NAMESPACE)
    assert not [one for one in others if "helm.sh/hook" in one["metadata"].get("annotations", {})]
