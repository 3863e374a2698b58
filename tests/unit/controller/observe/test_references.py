"""Following references: what is found, and what is told when it is not."""

from datetime import timedelta

import pytest

from controller.api.contract.route import LocalBackend, Route, Split
from controller.api.kubernetes.endpoints import Replica, admit_pods
from controller.api.resources.backend import RemoteBackend
from controller.api.schema.values import parse
from controller.observe.references import front_of_route, missing_workload, resolve, unasked_probe
from controller.store.objects import ObjectRef
from tests.support.indexed import view_of
from tests.support.objects import a_deployment, a_model, a_service, a_slice

DEFAULT = parse(RemoteBackend, {"host": "default.example"})


def test_a_service_with_its_replicas():
    world = view_of(a_service().port(80), a_slice().ready("10.0.0.2").not_ready("10.0.0.1"))
    resolved = resolve(a_model().with_remote("r").intent(), world, None)
    assert resolved.faults == ()
    assert resolved.remotes[0].host == "r"
    assert resolved.front.port == 80
    assert resolved.front.local == LocalBackend(namespace="default", service="a", custom_endpoints=True)
    assert resolved.front.replicas == (Replica("10.0.0.1", 8080, False), Replica("10.0.0.2", 8080, True))


WITH_SELECTOR = a_service().port(80).selecting(app="a")
ABSENT = "spec.modelSourceRef: Deployment default/a does not exist: the readiness probe of the replicas is not known"


@pytest.mark.parametrize(
    ("model", "world", "words"),
    [
        (a_model(), (WITH_SELECTOR,), ABSENT),
        (a_model(), (WITH_SELECTOR, a_deployment()), ""),
        (a_model(), (WITH_SELECTOR, a_deployment("b")), ABSENT),
        # Endpoints written by hand need no workload, and of a Service that is not there is told already.
        (a_model(), (a_service().port(80),), ""),
        (a_model(), (), ""),
        (a_model().fronting(None), (WITH_SELECTOR,), ""),
    ],
)
def test_a_workload_that_is_not_there_is_told(model, world, words):
    assert missing_workload(model.intent(), view_of(*world)) == words


@pytest.mark.parametrize(("kind", "said"), [("Deploiment", "is 'Deploiment'"), ("", "is not set")])
def test_a_kind_of_workload_that_is_not_read_is_told(kind, said):
    model = a_model()
    model.raw["spec"]["modelSourceRef"]["kind"] = kind
    words = missing_workload(model.intent(), view_of(WITH_SELECTOR))
    assert words.startswith(f"spec.modelSourceRef.kind: must be Deployment or StatefulSet, {said}: the readiness")


def test_a_workload_in_another_namespace_may_be_there_and_not_be_watched():
    model = a_model()
    model.raw["spec"]["modelSourceRef"]["namespace"] = "ml"
    words = missing_workload(model.intent(), view_of(WITH_SELECTOR))
    assert words.startswith("spec.modelSourceRef: Deployment ml/a does not exist, or its namespace is not watched: ")


@pytest.mark.parametrize(
    ("service_in", "workload_in", "asked"),
    [("default", "default", True), ("default", "b", False), ("b", "default", False), ("b", "b", False)],
)
def test_a_probe_is_asked_only_inside_one_namespace(service_in, workload_in, asked):
    """Or its headers would get to somebody else's servers, and its path to somebody else's ports."""
    model = a_model()
    model.raw["spec"]["modelSourceRef"]["namespace"] = workload_in
    model.raw["spec"]["serviceRef"]["namespace"] = service_in
    service, deployment = a_service().port(80, target=8080).selecting(app="a"), a_deployment().probed("/up", 8080)
    world = view_of(service.in_namespace(service_in), deployment.in_namespace(workload_in))
    check = resolve(model.intent(), world, None).front.local.health_check
    assert (check is not None) == asked
    told = "" if asked else "are not in one namespace: its readiness probe is not asked"
    assert missing_workload(model.intent(), world).endswith(told)
    assert bool(missing_workload(model.intent(), world)) != asked


def test_a_probe_that_may_hold_a_credential_is_not_asked_and_the_header_is_told():
    def told(name: str) -> str:
        probe = {"httpGet": {"path": "/up", "port": 8080, "httpHeaders": [{"name": name, "value": "live"}]}}
        deployment = a_deployment().container(readinessProbe=probe)
        world = view_of(a_service().port(80, target=8080).selecting(app="a"), deployment)
        model = a_model().intent()
        assert (resolve(model, world, None).front.local.health_check is None) == bool(unasked_probe(model, world))
        return unasked_probe(model, world)

    assert told("X-Probe-Key") == (
        "spec.modelSourceRef: the header X-Probe-Key of the readiness probe of Deployment default/a may hold a "
        "credential: Envoys connect to the replicas, and do not ask them"
    )
    assert told("X-Probe") == ""


def test_a_node_port_is_where_envoy_listens():
    world = view_of(a_service().port(80, nodePort=30080))
    assert resolve(a_model().intent(), world, None).front.port == 30080


def test_the_replicas_of_a_named_port():
    service = a_service().port(80, name="http", target="web").port(90, name="admin", target="adm")
    slices = a_slice().ready("10.0.0.1").port(9000, "admin").and_port(8000, "http")
    front = resolve(a_model().fronting("a", "web").intent(), view_of(service, slices), None).front
    assert front.local.port_name == "http"
    assert front.replicas == (Replica("10.0.0.1", 8000, True),)


def test_references_default_to_the_objects_own_namespace():
    intent = a_model().in_namespace("ml").intent()
    assert intent.target.service == ObjectRef("Service", "ml", "a")
    assert intent.workload == ObjectRef("Deployment", "ml", "a")
    elsewhere = a_model().fronting("s", namespace="other").intent()
    assert elsewhere.target.service == ObjectRef("Service", "other", "s")


@pytest.mark.parametrize(
    ("model", "reason", "words"),
    [
        (
            a_model().fronting(None).with_remote(),
            "NoService",
            "spec.serviceRef is not set: there is no Service to front",
        ),
        (
            a_model().fronting("b").with_remote(),
            "ServiceNotFound",
            "spec.serviceRef: Service default/b does not exist",
        ),
        (
            a_model().fronting("b", namespace="elsewhere").with_remote(),
            "ServiceNotFound",
            "spec.serviceRef: Service elsewhere/b does not exist, or its namespace is not watched",
        ),
        (
            a_model().fronting("a", 81).with_remote(),
            "PortNotFound",
            "spec.serviceRef.targetPort is 81, and no TCP port fits; the Service's TCP ports: 80",
        ),
        (
            a_model().offloading(),
            "NoRemoteBackend",
            "spec.offloadingConfig.remoteBackend is not set, and there is no default to use",
        ),
        (
            a_model().with_remote(tls={"sni": "x"}),
            "RemoteNotUsable",
            "spec.offloadingConfig.remoteBackend.tls: is set, but scheme is http; set scheme: https",
        ),
    ],
)
def test_prior_fault_13_what_is_missing_is_told(model, reason, words):
    (fault,) = resolve(model.intent(), view_of(a_service().port(80)), None).faults
    assert (fault.reason, fault.message) == (reason, words)


def test_every_fault_is_told():
    resolved = resolve(a_model().fronting("b").offloading().intent(), view_of(), None)
    assert [fault.reason for fault in resolved.faults] == ["ServiceNotFound", "NoRemoteBackend"]
    assert (resolved.front, resolved.remotes) == (None, ())


def test_no_offloading_needs_no_remote_backend():
    resolved = resolve(a_model().intent(), view_of(a_service().port(80)), DEFAULT)
    assert (resolved.faults, resolved.remotes) == ((), ())


def test_a_kept_front_has_the_replicas_of_now():
    route = Route.between(port=80, split=Split.away(0), local=LocalBackend(namespace="default", service="a"))
    front = front_of_route(route, view_of(a_slice().ready("10.0.0.7")))
    assert (front.port, front.local) == (80, route.local)
    assert front.replicas == (Replica("10.0.0.7", 8080, True),)


def test_a_service_with_a_selector_has_no_endpoints_of_others():
    service = a_service().port(80)._with({"app": "a"}, "spec", "selector")
    front = resolve(a_model().intent(), view_of(service), None).front
    assert front.local.custom_endpoints is None


def test_endpoints_that_may_not_be_sent_to_do_not_count_and_are_told():
    service = a_service().port(80)._with({"app": "a"}, "spec", "selector")
    of_its_own = a_slice().written_by("endpointslice-controller.k8s.io").ready("10.0.0.1", "127.0.0.1")
    world = view_of(service, of_its_own, a_slice(suffix="2").ready("10.0.0.2"))
    resolved = resolve(a_model().intent(), world, None, admit_pods)
    assert resolved.front.replicas == (Replica("10.0.0.1", 8080, True),)
    assert [words.partition(":")[0] for words in resolved.front.refused] == [
        "EndpointSlice default/a-1",
        "EndpointSlice default/a-2 is not of the Service's own controllers",
    ]
    route = Route.between(port=80, split=Split.away(0), local=resolved.front.local)
    kept = front_of_route(route, world, admit_pods)
    assert (kept.replicas, kept.refused) == (resolved.front.replicas, resolved.front.refused)


@pytest.mark.parametrize(
    ("backend", "field"),
    [
        ({"host": "169.254.169.254"}, "remoteBackend.host"),
        ({"host": "localhost:8080"}, "remoteBackend.host"),
        (
            {
                "host": "models.example.com",
                "scheme": "https",
                "authConfig": {
                    "type": "oauth",
                    "oauthConfig": {
                        "clientId": "a",
                        "clientSecretRef": {"name": "a"},
                        "tokenUrl": "http://metadata.google.internal/token",
                    },
                },
            },
            "remoteBackend.authConfig.oauthConfig.tokenUrl",
        ),
    ],
)
def test_a_model_sends_nothing_where_only_the_gateway_can(backend, field):
    model = a_model().with_remote(**backend)
    world = view_of(a_service().port(80))
    resolved = resolve(model.intent(), world, None, admit_pods)
    assert resolved.remotes == ()
    assert resolved.front is not None
    (fault,) = resolved.faults
    assert fault.message.startswith(f"spec.offloadingConfig.{field}: ")
    assert resolve(model.intent(), world, None).remotes != ()


def test_the_default_backend_is_the_operators_and_may_be_anywhere():
    model, default = a_model().offloading().intent(), RemoteBackend(host="127.0.0.1:8080")
    assert resolve(model, view_of(a_service().port(80)), default, admit_pods).remotes != ()


def test_a_policy_that_nobody_asks_yet_keeps_everything_local():
    model = a_model().with_remote()._with([{"refType": "localPolicy", "name": "eu"}], "spec", "policies")
    resolved = resolve(model.intent(), view_of(a_service().port(80)), None)
    assert resolved.remotes == ()
    assert resolved.front is not None
    assert [fault.reason for fault in resolved.faults] == ["PolicyNotEnforced"]


def test_a_policy_of_the_platform_is_the_platforms_to_enforce():
    model = a_model().with_remote()._with([{"refType": "remotePolicy", "name": "gpu"}], "spec", "policies")
    assert resolve(model.intent(), view_of(a_service().port(80)), None).remotes != ()


def test_how_long_a_replica_may_take_is_said_beside_it():
    model = a_model().with_remote().offloading(firstByteTimeout="5s").intent()
    assert resolve(model, view_of(a_service().port(80)), None).front.local.first_byte_timeout == timedelta(seconds=5)
