"""What of a readiness probe reaches the check of the replicas."""

from datetime import timedelta

import pytest

from controller.api.contract.route import Header
from controller.api.schema.errors import InvalidObjectError
from controller.observe.readiness import check_of_all, credential_in_probe, readiness_check
from tests.support.objects import a_deployment


def check_of(deployment, serving=8080):
    return readiness_check(deployment.parsed(), serving)


def probing(probe, *ports):
    return a_deployment().container(*ports, readinessProbe=probe)


def get(port=8080, path="/up", **more):
    return {"httpGet": {"path": path, "port": port, **more}}


@pytest.mark.parametrize(
    ("serving", "deployment"),
    [
        (8080, a_deployment().probed("/up", 8080)),
        (8080, a_deployment().probed("up", 8080)),
        (8080, a_deployment().probed("/up#part", "8080")),
        ("web", a_deployment().probed("/up", "web", ("web", 8080))),
        ("web", a_deployment().probed("/up", 8080, ("web", 8080))),
        (8080, a_deployment().probed("/up", "web", ("web", 8080))),
        (8080, a_deployment().container().probed("/up", 8080)),
        (8080, a_deployment().probed("/other", 9090).probed("/up", 8080)),
    ],
)
def test_envoy_asks_what_the_kubelet_asks_where_it_asks(serving, deployment):
    check = check_of(deployment, serving)
    assert (check.path, check.port, check.tls) == ("/up", None, None)


@pytest.mark.parametrize("path", ["/", "/a//b", "/a%7Cb", "/up?full=1&x=%20", "/a:b/@c"])
def test_a_plain_path_is_asked_as_it_is(path):
    assert check_of(probing(get(path=path))).path == path


@pytest.mark.parametrize(
    "path", ["//127.0.0.1/health", "/a|b", "/a%7", "http:up", "/\u00e4", f"/{'a' * 1024}", "/up#%"]
)
def test_a_path_that_the_kubelet_would_write_anew_is_the_kubelets_alone(path):
    """It sends `/health` for the first and `/a%7Cb` for the second, and Envoy would send them as they are."""
    assert check_of(probing(get(path=path))) is None


@pytest.mark.parametrize(
    "name",
    [
        *("Authorization", "cookie", "X-Api-Key", "X-Auth-Token", "X-Goog-Api-Key", "X-Vault-Token", "Private-Token"),
        *("Token", "Ocp-Apim-Subscription-Key", "X-Password", "X-Client-Secret", "X-Amz-Credential", "X-Session-Id"),
        # It is harmless, and by its name nobody can tell.
        "X-Probe-Key",
    ],
)
def test_a_credential_never_gets_into_a_route_and_its_header_is_named(name):
    deployment = probing(get(httpHeaders=[{"name": "X-Probe", "value": "1"}, {"name": name, "value": "Bearer s"}]))
    assert check_of(deployment) is None
    assert credential_in_probe(deployment.parsed(), 8080) == f"the header {name}"


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/health?api_key=s3cret", "api_key"),
        ("/health?full=1&access_token=s3cret", "access_token"),
        ("/health?full=1;token=s3cret", "token"),
        ("/health?api%5Fke%79=s3cret", "api%5Fke%79"),
        ("/health;jsessionid=s3cret", "jsessionid"),
    ],
)
def test_a_credential_in_the_path_is_no_different(path, key):
    deployment = probing(get(path=path))
    assert check_of(deployment) is None
    assert credential_in_probe(deployment.parsed(), 8080) == f"the key {key} in its path"


@pytest.mark.parametrize(
    "probe",
    [
        get(path="/keys/token?full=1&key", httpHeaders=[{"name": "X-Probe", "value": "token"}]),
        # What is not asked anyway needs no word.
        get(port=9090, httpHeaders=[{"name": "X-Auth-Token", "value": "s"}]),
        {"grpc": {"port": 8080}},
        {"tcpSocket": {"port": 8080}},
    ],
)
def test_of_what_is_no_credential_or_is_not_asked_nothing_is_said(probe):
    deployment = probing(probe)
    assert credential_in_probe(deployment.parsed(), 8080) == ""


@pytest.mark.parametrize(
    ("headers", "asked"),
    [
        ([("x", "")] * 32, True),
        ([("x", "")] * 33, False),
        ([("x", "a" * 7999)], True),
        ([("x", "a" * 4000)] * 2, False),
    ],
)
def test_the_headers_of_a_check_are_bounded(headers, asked):
    given = [{"name": name, "value": value} for name, value in headers]
    assert (check_of(probing(get(httpHeaders=given))) is not None) == asked


@pytest.mark.parametrize("name", ["Accept", "User-Agent"])
def test_a_header_of_the_kubelet_that_is_empty_is_not_sent(name):
    check = check_of(probing(get(httpHeaders=[{"name": name, "value": ""}])))
    assert name.lower() not in {one.name for one in check.headers}


@pytest.mark.parametrize("field", ["periodSeconds", "timeoutSeconds", "failureThreshold"])
def test_a_negative_number_is_a_mistake_that_is_told_with_its_field(field):
    with pytest.raises(InvalidObjectError, match=rf"readinessProbe\.{field}"):
        check_of(probing({**get(), field: -1}))


@pytest.mark.parametrize(
    "deployment",
    [
        a_deployment(),
        a_deployment().container(),
        a_deployment().container().probed("/up", 9090),
        # Another port may be open to the kubelet alone.
        a_deployment().probed("/up", 9090),
        a_deployment().probed("/up", "admin", ("web", 8080), ("admin", 9090)),
        a_deployment().container().probed("/up", 9090, ("web", 8080)),
        probing({"grpc": {"port": 9000}}),
        a_deployment().probed("/up", "nobody"),
        probing({"tcpSocket": {"port": 8080}}),
        probing({"exec": {"command": ["true"]}}),
        probing(get(host="10.0.0.9")),
        probing(get(path="/up and down")),
        probing(get(httpHeaders=[{"name": "x y", "value": "1"}])),
        probing(get(httpHeaders=[{"name": "x", "value": "a\nb"}])),
        probing(get(httpHeaders=[{"name": "x", "value": "a\x01b"}])),
        probing({**get(), "timeoutSeconds": 30}),
    ],
)
def test_what_envoy_cannot_ask_or_should_not_is_left_to_the_kubelet(deployment):
    assert check_of(deployment) is None


def test_without_a_workload_nothing_is_known():
    assert readiness_check(None, 8080) is None


@pytest.mark.parametrize(
    ("said", "interval", "timeout", "failures"),
    [
        ({}, 10, 1, 3),
        ({"periodSeconds": 0, "timeoutSeconds": 0, "failureThreshold": 0, "successThreshold": 0}, 10, 1, 3),
        ({"periodSeconds": 7, "timeoutSeconds": 5, "failureThreshold": 6, "initialDelaySeconds": 900}, 7, 5, 6),
        ({"periodSeconds": 2**31 - 1}, 86400, 1, 3),
    ],
)
@pytest.mark.parametrize("action", [get(), {"grpc": {"port": 8080}}])
def test_the_times_and_the_threshold_are_those_of_the_probe(action, said, interval, timeout, failures):
    check = check_of(probing({**action, **said}))
    assert (check.interval, check.timeout, check.failures) == (
        timedelta(seconds=interval),
        timedelta(seconds=timeout),
        failures,
    )


def test_the_headers_are_those_of_the_probe_and_else_of_the_kubelet():
    headers = [
        {"name": "Host", "value": "m.example"},
        {"name": "X-Probe", "value": "50%"},
        {"name": "X-Probe"},
        {"name": "Accept", "value": "text/plain"},
        {"name": "Content-Length", "value": "5"},
    ]
    check = check_of(probing(get(httpHeaders=headers)))
    assert check.host == "m.example"
    assert check.headers == (
        Header(name="user-agent", value="kube-probe/1"),
        Header(name="x-probe", value="50%"),
        Header(name="x-probe", value=""),
        Header(name="accept", value="text/plain"),
    )


def test_a_probe_over_tls_is_asked_over_tls():
    check = check_of(a_deployment().probed("/up", 8443, scheme="HTTPS"), 8443)
    assert check.tls is True


@pytest.mark.parametrize(("action", "service"), [({"port": 8080}, ""), ({"port": 8080, "service": "llm"}, "llm")])
def test_a_grpc_probe_is_a_call(action, service):
    check = check_of(probing({"grpc": action}))
    assert (check.grpc_service, check.path) == (service, "")


@pytest.mark.parametrize(
    ("service", "asked"), [("s" * 256, True), ("s" * 257, False), ("s\n", False), ("s\x00", False)]
)
def test_of_a_grpc_probe_a_long_or_odd_service_is_not_asked_for(service, asked):
    check = readiness_check(probing({"grpc": {"port": 8080, "service": service}}).parsed(), 8080)
    assert (check is not None) == asked


def at_generation(number, **status):
    deployment = a_deployment().probed("/ready", 8080)
    deployment.raw["metadata"]["generation"] = number
    deployment.raw["status"] = {"observedGeneration": 2, **status}
    return deployment


@pytest.mark.parametrize(
    ("deployment", "rolls_out"),
    [
        (a_deployment().probed("/ready", 8080), False),
        (at_generation(2, replicas=2, updatedReplicas=2), False),
        (at_generation(2), False),
        (at_generation(3, replicas=2, updatedReplicas=2), True),
        (at_generation(2, replicas=2, updatedReplicas=1), True),
        (at_generation(2, replicas=2), True),
    ],
)
def test_while_older_pods_are_there_only_what_was_asked_before_is_asked(deployment, rolls_out):
    new, old = check_of(deployment), check_of(a_deployment().probed("/health", 8080))
    workload = deployment.parsed()
    assert check_of_all(new, workload, old) == check_of_all(new, workload, None) == (None if rolls_out else new)
    assert check_of_all(new, workload, new) == new
    assert check_of_all(new, None, old) == new
