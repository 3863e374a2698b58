"""`beamlit check` on a real API server: what is well is said to be, and all that can be wrong is made so once."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from controller.api.timing import Timing
from controller.programs.check import CheckOptions, checked
from tests.support.beamlit import Ended, beamlit
from tests.support.forked import Forked
from tests.support.kube.api_server import ApiServer
from tests.support.kube.cluster import Cluster, User
from tests.support.kube.crds import apply_definitions, install_crds, version_of
from tests.support.kube.credentials import with_key
from tests.support.kube.site import XDS_SERVICE, Site, endpoints, model, rules_of, service
from tests.support.network import unused_port
from tests.support.objects import a_model, a_secret
from tests.support.processes import ROOT
from tests.support.waiting import eventually

MODELS = "modeldeployments.deployment.beamlit.com"
MERGE = {"Content-Type": "application/merge-patch+json"}


@dataclass(frozen=True)
class Looked:
    """What a look found: its exit code, and each finding by its name."""

    code: int
    findings: tuple[dict[str, str], ...]
    ended: Ended

    def of(self, check: str) -> list[str]:
        """How all findings of one check stand."""
        return [one["result"] for one in self.findings if one["check"] == check]

    def said(self, check: str, result: str) -> str:
        """The messages and remedies of one check that stand so."""
        found = [one for one in self.findings if (one["check"], one["result"]) == (check, result)]
        assert found, f"{check} is not {result}: {self.ended.output}"
        return "\n".join(f"{one['message']} >> {one.get('remedy', '')}" for one in found)

    @property
    def failed(self) -> set[str]:
        return {one["check"] for one in self.findings if one["result"] == "failed"}


async def look(user: User | Path, *options: object) -> Looked:
    kubeconfig = user.kubeconfig if isinstance(user, User) else user
    ended = await beamlit("check", "-o", "json", "--kubeconfig", kubeconfig, *options)
    findings = tuple(json.loads(ended.output)["findings"]) if ended.output else ()
    return Looked(ended.code, findings, ended)


def where(site: Site) -> tuple[object, ...]:
    """The options that say what is installed in a namespace where no Deployment does."""
    space = site.namespace
    named = ("-n", space, "--namespaces", space, "--lease", f"{space}/beamlit-controller")
    return (*named, "--xds-service", f"{space}/{XDS_SERVICE}")


async def looked(site: Site, *options: object) -> Looked:
    return await look(site.cluster.kubeconfig, *where(site), *options)


async def test_all_is_well_and_it_is_said_to_people_and_to_programs(running_site: Site) -> None:
    site = running_site
    site.write(site.served("well", [site.backend("well-1")], site.backend("well-remote")))
    await site.until_condition("well", "Ready", "True")
    found = await looked(site)
    assert (found.code, found.failed) == (0, set()), found.ended.output
    checks = ("api-server/answers", "api-server/clock", "api-server/apis", "definitions/current", "rights/controller")
    more = ("rights/xds-server", "controller/leader", "xds/endpoints", "xds/certificate", "models/ready")
    for check in (*checks, *more, "models/services"):
        assert set(found.of(check)) == {"ok"}, (check, found.ended.output)
    assert "controller-" not in found.said("rights/controller", "ok")
    text = await beamlit("check", "--kubeconfig", site.cluster.kubeconfig, *where(site))
    assert (text.code, text.errors) == (0, "")
    assert text.output.startswith("Kubernetes API\n  ok       https://")
    assert f"{len(found.findings)} checks: " in text.output.splitlines()[-1]


async def test_who_may_only_read_models_is_told_what_was_not_seen(running_site: Site) -> None:
    site = running_site
    rule = {"apiGroups": ["deployment.beamlit.com"], "resources": ["modeldeployments"], "verbs": ["get", "list"]}
    reader = site.cluster.user(site.namespace, "reader", rule)
    found = await look(reader, *where(site))
    assert (found.code, found.failed) == (0, set()), found.ended.output
    for check in ("rights/controller", "controller/leader", "xds/endpoints"):
        assert found.of(check) == ["unseen"], check
    assert "the right to create subjectaccessreviews" in found.said("rights/controller", "unseen")
    assert f"the right to get leases.coordination.k8s.io in the namespace {site.namespace}" in found.said(
        "controller/leader", "unseen"
    )
    assert "is served; whether it is that of this version is not seen" in found.said("definitions/current", "unseen")


async def test_a_program_may_ask_for_its_own_rights(running_site: Site) -> None:
    site = running_site
    found = await look(site.cluster.service_account(site.namespace, "beamlit-controller"), *where(site))
    # Before 1.28 nobody is told who he is, and whoever asks for others needs the right to.
    expected = "ok" if version_of(site.cluster) >= (1, 28) else "unseen"
    assert found.of("rights/controller") == [expected], found.ended.output
    assert found.of("rights/xds-server") == ["unseen"]


async def test_rights_that_are_missing_are_named_with_the_command_that_gives_them(site: Site) -> None:
    rules = [rule for rule in rules_of("controller") if "services" not in rule["resources"]]
    metrics = [rule for rule in rules if not any(group.endswith("metrics.k8s.io") for group in rule["apiGroups"])]
    site.cluster.user(site.namespace, "beamlit-controller", *metrics)
    found = await looked(site)
    assert found.code == 1
    words = found.said("rights/controller", "failed")
    assert f"may not get, list, watch services in {site.namespace}" in words
    assert (
        f"kubectl -n {site.namespace} create rolebinding beamlit-controller --clusterrole=beamlit-controller" in words
    )
    assert "metrics.k8s.io" in found.said("rights/controller", "warning")
    assert f"there is no ServiceAccount {site.namespace}/beamlit-xds-server" in found.said(
        "rights/xds-server", "failed"
    )
    other = await looked(site, "--xds-server-account", f"{site.namespace}/beamlit-controller")
    assert "get, list, watch secrets in" in other.said("rights/xds-server", "failed")


async def test_nobody_leads(site: Site) -> None:
    absent = await looked(site)
    assert "no Deployment runs `beamlit controller`" in absent.said("controller/installed", "failed")
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{site.namespace}/leases"
    spec: dict[str, Any] = {"holderIdentity": "somebody", "leaseDurationSeconds": 3600}
    raw = {"metadata": {"name": "beamlit-controller"}, "spec": {**spec, "renewTime": "2026-01-01T00:00:00.000000Z"}}
    with site.cluster.client() as client:
        client.post(lease, json=raw).raise_for_status()
        written = await looked(site)
        # Written just now, by a holder whose clock is far off.
        assert written.of("controller/leader") == ["ok"]
        assert "the clock of the leader somebody is" in written.said("controller/clock", "warning")

        async def leads() -> list[str]:
            return (await looked(site)).of("controller/leader")

        # Only from now on it may be over before one looks.
        short = {"content": b'{"spec":{"leaseDurationSeconds":1}}', "headers": MERGE}
        client.patch(f"{lease}/beamlit-controller", **short).raise_for_status()
        await eventually(leads, ["failed"].__eq__, within=60)
        released = {"content": b'{"spec":{"holderIdentity":null}}', "headers": MERGE}
        client.patch(f"{lease}/beamlit-controller", **released).raise_for_status()
        assert "has no holder" in (await looked(site)).said("controller/leader", "failed")


async def test_no_xds_server_and_no_envoy_is_there(site: Site) -> None:
    gateway = ("--gateway-service", f"{site.namespace}/gateway")
    absent = await looked(site, *gateway)
    assert "has no endpoint with a port named reports" in absent.said("xds/endpoints", "failed")
    assert f"there is no Service {site.namespace}/gateway" in absent.said("gateway/service", "failed")
    site.write(service("gateway"))
    unready = endpoints("gateway", site.backend("envoy"), ready=False)
    site.write(unready)
    xds = copy.deepcopy(unready.raw)
    xds["metadata"] = {"name": f"{XDS_SERVICE}-1", "labels": {"kubernetes.io/service-name": XDS_SERVICE}}
    xds["ports"] = [{"name": "reports", "port": 18001}]
    site.write(type(unready)(xds))
    found = await looked(site, *gateway)
    assert "none of 1 endpoints" in found.said("xds/endpoints", "failed")
    assert "no Envoy of the Service" in found.said("gateway/service", "failed")


async def test_a_certificate_that_cannot_be_seen_from_here_is_said_to_be_so(site: Site) -> None:
    closed = endpoints(XDS_SERVICE, site.backend("plain")).port(unused_port(), "reports")
    site.write(closed)
    found = await looked(site)
    assert found.of("xds/endpoints") == ["ok"]
    assert "are not seen from here" in found.said("xds/certificate", "unseen")


async def test_what_models_refer_to_is_looked_for(site: Site) -> None:
    site.write(
        model("no-service"),
        model("no-port").fronting("two", 99),
        model("no-replica").fronting("two", 80),
        with_key("no-secret", site.backend("remote"), "absent"),
        with_key("no-label", site.backends[0], "closed"),
        a_secret("closed").holding(apiKey="x").unlabelled(),
        with_key("no-key", site.backends[0], "there", key="wanted"),
        with_key("key", site.backends[0], "there", key="held"),
        a_secret("there").holding(held="a value that nobody reads"),
        service("two"),
        model("headless"),
        service("headless").headless(),
        endpoints("headless", site.backends[0]),
        *(service(name) for name in ("no-secret", "no-label", "no-key", "key")),
        *(endpoints(name, site.backends[0]) for name in ("no-secret", "no-label", "no-key", "key")),
    )
    found = await looked(site)
    space = site.namespace
    services = found.said("models/services", "failed")
    assert f"Service {space}/no-service of {space}/no-service: there is no such Service" in services
    assert "serviceRef.targetPort is 99, and no TCP port fits; the Service's TCP ports: 80" in services
    assert "none of 0 endpoints of its port 80 is ready" in found.said("models/endpoints", "warning")
    taken_over = found.said("models/frontable", "failed")
    assert f"{space}/headless cannot be taken over: NotFrontable: " in taken_over
    assert f"set spec.frontend of {space}/headless to Gateway" in taken_over
    secrets = found.said("models/secrets", "failed")
    assert f"Secret {space}/absent of {space}/no-secret: there is no such Secret" in secrets
    assert f"Secret {space}/closed of {space}/no-label: it lacks the label" in secrets
    assert f"Secret {space}/there of {space}/no-key: it has no key wanted; it has held" in secrets
    assert "a value that nobody reads" not in found.ended.output
    assert found.of("models/ready")[-1] in ("ok", "warning")
    unlike = await looked(site, "--controller-class", "blue")
    assert "0 of 0 models are ready" in unlike.said("models/ready", "ok")


async def test_a_model_that_is_not_ready_says_why(running_site: Site) -> None:
    site = running_site
    site.write(site.served("lone", []))
    await site.until_condition("lone", "Ready", "False", "NothingAnswers")
    found = await looked(site)
    assert "lone is not ready: NothingAnswers" in found.said("models/ready", "failed")
    assert f"beamlit explain lone -n {site.namespace}" in found.said("models/ready", "failed")
    await site.remove(a_model("lone"))


async def test_a_metrics_api_that_models_need_is_not_served(site: Site) -> None:
    cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 90}}
    site.write(model("busy").measuring({"type": "Resource", "resource": cpu}))
    found = await looked(site)
    words = found.said("api-server/metrics", "failed")
    assert f"metrics.k8s.io is not served ({site.namespace}/busy needs it)" in words
    assert "install metrics-server" in words


def deployment(program: str, *options: str) -> dict[str, Any]:
    labels = {"app": program}
    container = {"name": "beamlit", "image": "beamlit", "args": [program, *options]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": program},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"serviceAccountName": f"beamlit-{program}", "containers": [container]},
            },
        },
    }


def write_pod(site: Site, program: str, status: dict[str, Any]) -> None:
    """A pod of a Deployment with this status, which nothing else in this cluster would write."""
    pods = f"/api/v1/namespaces/{site.namespace}/pods"
    spec = {"containers": [{"name": "beamlit", "image": "beamlit"}]}
    raw = {"metadata": {"name": f"{program}-1", "labels": {"app": program}}, "spec": spec}
    with site.cluster.client() as client:
        client.post(pods, json=raw).raise_for_status()
    write_status(site, f"{pods}/{program}-1", status)


async def test_deployments_are_found_with_what_they_were_told_and_why_their_pods_are_not_ready(site: Site) -> None:
    space = site.namespace
    site.cluster.apply(
        deployment("controller", f"--namespaces={space}", "--lease", f"{space}/mine", f"--xds-service={space}/theirs"),
        deployment("envoy"),
        namespace=space,
    )
    waiting = {"name": "beamlit", "image": "beamlit", "imageID": "", "ready": False, "restartCount": 0}
    waiting["state"] = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    write_pod(site, "controller", {"containerStatuses": [waiting]})
    found = await look(site.cluster.kubeconfig, "-n", space)
    pods = found.said("controller/pods", "failed")
    assert f"0 of 1 pods of Deployment {space}/controller are ready: controller-1 waits: ImagePullBackOff" in pods
    assert f"there is no Lease {space}/mine" in found.said("controller/leader", "failed")
    assert f"the Service {space}/theirs has no endpoint" in found.said("xds/endpoints", "failed")
    assert found.of("gateway/pods") == ["failed"]
    assert "is not told the Service of the gateway" in found.said("gateway/service", "warning")


def write_status(site: Site, path: str, status: dict[str, Any]) -> None:
    with site.cluster.client() as client:
        client.patch(
            f"{path}/status",
            content=json.dumps({"status": status}).encode(),
            headers=MERGE,
        ).raise_for_status()


async def test_pods_are_asked_through_the_api_server_for_why_they_are_not_ready(site: Site) -> None:
    poor = site.xds_server(user=site.cluster.user(site.namespace, "poor"))
    await poor.unready("forbidden")
    port = poor.probe.rpartition(":")[2]
    site.cluster.apply(deployment("xds-server", f"--admin-address=0.0.0.0:{port}"), namespace=site.namespace)
    write_pod(site, "xds-server", {"podIPs": [{"ip": site.host}], "podIP": site.host, "phase": "Running"})
    found = await look(site.cluster.kubeconfig, *where(site))
    assert "xds-server-1 says: " in found.said("xds/pods", "failed")
    assert "forbidden" in found.said("xds/pods", "failed")


async def test_pods_are_asked_through_the_api_server_for_envoys_and_certificates(site: Site) -> None:
    space = site.namespace
    server = site.xds_server()
    site.controller()
    await server.ready()
    port = server.probe.rpartition(":")[2]
    site.cluster.apply(deployment("xds-server", f"--admin-address=0.0.0.0:{port}"), namespace=space)
    ready = {"conditions": [{"type": "Ready", "status": "True"}], "phase": "Running"}
    write_pod(site, "xds-server", {"podIPs": [{"ip": site.host}], "podIP": site.host, **ready})
    deployed = f"/apis/apps/v1/namespaces/{space}/deployments/xds-server"
    write_status(site, deployed, {"replicas": 1, "readyReplicas": 1})
    alone = await look(site.cluster.kubeconfig, *where(site))
    assert alone.of("xds/pods") == ["ok"], alone.ended.output
    assert "0 Envoys are connected" in alone.said("gateway/connected", "failed")
    # Where its port cannot be reached, as from a laptop, it says itself until when its certificate holds.
    closed = endpoints(XDS_SERVICE, site.backend("elsewhere")).port(unused_port(), "reports")
    await site.remove(*site.slices)
    site.write(closed)
    await site.envoy()

    async def connected() -> list[str]:
        return (await look(site.cluster.kubeconfig, *where(site))).of("gateway/connected")

    await eventually(connected, ["ok"].__eq__, within=30)
    told = await look(site.cluster.kubeconfig, *where(site))
    assert f"the certificate of {space}/xds-server holds until" in told.said("xds/certificate", "ok")


async def test_it_waits_until_nothing_fails_and_says_what_it_waits_for(running_site: Site, tmp_path: Path) -> None:
    site = running_site
    site.write(model("late"))
    command = ("check", "--wait", "--kubeconfig", site.cluster.kubeconfig, *where(site), "--timeout")
    assert (await beamlit(*command, "1s")).code == 1
    errors, output = tmp_path / "errors", tmp_path / "output"
    waiting = Forked((*command, "2m"), errors, output=output)
    try:

        async def said() -> str:
            return errors.read_text()

        words = await eventually(said, lambda seen: "models/services" in seen, within=30)
        assert words.startswith("beamlit: waiting: ")
        site.write(site.served("late", [site.backend("late-1")], site.backend("late-remote")))

        async def alive() -> bool:
            return waiting.alive

        await eventually(alive, lambda alive: not alive, within=60)
        assert (waiting.terminate(), "failed" in output.read_text()) == (0, False), output.read_text()
    finally:
        waiting.kill()
        await site.remove(a_model("late"))


async def test_no_answer_no_credentials_no_kubeconfig(api_server: Cluster, tmp_path: Path) -> None:
    config = json.loads(api_server.kubeconfig.read_text())
    stranger = tmp_path / "stranger"
    stranger.write_text(json.dumps({**config, "users": [{"name": "test", "user": {"token": "nobody's"}}]}))
    unknown = await look(stranger)
    assert (unknown.code, unknown.failed) == (4, {"api-server/credentials"})
    nowhere = tmp_path / "nowhere"
    cluster = {**config["clusters"][0]["cluster"], "server": f"https://127.0.0.1:{unused_port()}"}
    nowhere.write_text(json.dumps({**config, "clusters": [{"name": "test", "cluster": cluster}]}))
    silent = await look(nowhere)
    assert (silent.code, silent.failed) == (3, {"api-server/answers"})
    absent = await look(tmp_path / "absent")
    assert (absent.code, absent.ended.output) == (3, "")
    assert "absent: no such file" in absent.ended.errors


def test_a_clock_that_is_wrong(api_server: Cluster) -> None:
    def clocks(off: float) -> list[tuple[str, str]]:
        options = CheckOptions(Timing(), api_server.kubeconfig, before=True)
        report = checked(options, lambda: datetime.now(UTC) + timedelta(seconds=off), print)
        return [(one.health, one.message) for one in report.findings if one.check == "clock"]

    assert clocks(0) == [("ok", "the clock of this machine agrees with it")]
    ((health, words),) = clocks(10)
    assert (health, "s ahead of it" in words) == ("warning", True)
    ((health, words),) = clocks(-100)
    assert (health, "s behind it" in words) == ("failed", True)


async def test_before_an_install(bare_api_server: ApiServer) -> None:
    ready = await look(bare_api_server.kubeconfig, "--pre")
    assert (ready.code, ready.failed) == (0, set()), ready.ended.output
    assert f"{MODELS} is not there yet" in ready.said("definitions/applied", "ok")
    assert ready.of("install/create") == ["ok"]
    assert ready.of("install/grant") == ["ok"]
    nobody = await look(bare_api_server.user("default", "nobody"), "--pre")
    assert nobody.code == 1
    assert "customresourcedefinitions.apiextensions.k8s.io" in nobody.said("install/create", "failed")
    # He may create roles, and none that has more rights than he.
    creator = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "creator"},
        "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["create"]}],
    }
    subject = {"kind": "ServiceAccount", "name": "nobody", "namespace": "default"}
    binding = {**creator, "kind": "ClusterRoleBinding", "subjects": [subject]}
    binding["roleRef"] = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "creator"}
    del binding["rules"]
    bare_api_server.apply(creator, binding)
    creates = await look(bare_api_server.service_account("default", "nobody"), "--pre")
    assert creates.of("install/create") == ["ok"], creates.ended.output
    assert "you may not grant what you may not do: get, list, watch" in creates.said("install/grant", "failed")


async def test_definitions_are_missing_old_and_new(bare_api_server: ApiServer) -> None:
    cluster = bare_api_server
    missing = await look(cluster.kubeconfig)
    assert f"{MODELS} is not applied" in missing.said("definitions/applied", "failed")
    assert "kubectl apply" in missing.said("definitions/applied", "failed")
    assert missing.of("models/ready") == []
    reader = cluster.user("default", "reader")
    assert f"{MODELS} is not applied" in (await look(reader)).said("definitions/applied", "failed")
    install_crds(cluster)
    current = await look(cluster.kubeconfig)
    assert set(current.of("definitions/current")) == {"ok"}, current.ended.output
    ours = yaml.safe_load((ROOT / "deploy/crds/modeldeployment.yaml").read_text())
    older = copy.deepcopy(ours)
    properties = older["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    del properties["status"]["properties"]["verdicts"]
    apply_definitions(cluster, older)
    assert "it lacks status.verdicts" in (await look(cluster.kubeconfig)).said("definitions/current", "failed")
    newer = copy.deepcopy(ours)
    properties = newer["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    properties["status"]["properties"]["later"] = {"type": "string"}
    apply_definitions(cluster, newer)
    assert "it has status.later" in (await look(cluster.kubeconfig)).said("definitions/current", "warning")


async def test_a_metrics_api_that_does_not_answer(bare_api_server: ApiServer) -> None:
    cluster = bare_api_server
    install_crds(cluster)
    spec = {"group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100}
    spec |= {"service": {"namespace": "kube-system", "name": "absent"}, "insecureSkipTLSVerify": True}
    metadata = {"name": "v1beta1.metrics.k8s.io"}
    cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 90}}
    cluster.apply(
        {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": metadata, "spec": spec},
        model("busy").measuring({"type": "Resource", "resource": cpu}).raw,
    )

    async def metrics() -> list[dict[str, str]]:
        return [one for one in (await look(cluster.kubeconfig)).findings if one["check"] == "api-server/metrics"]

    found = await eventually(metrics, lambda seen: "does not answer" in str(seen), within=30)
    assert "kubectl get apiservice v1beta1.metrics.k8s.io" in found[0]["remedy"]
