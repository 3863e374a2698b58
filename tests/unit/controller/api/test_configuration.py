"""The configuration file: the original's keys are accepted, others refused by name."""

import pytest

from controller.api.resources.configuration import Configuration
from controller.api.schema.errors import InvalidObjectError
from controller.api.schema.values import parse

OF_THE_ORIGINAL = {
    "metricsAddr": ":8080",
    "enableLeaderElection": True,
    "probeAddr": ":8081",
    "secureMetrics": False,
    "enableHTTP2": False,
    "namespaces": ["default", "models"],
    "metricInformer": {"type": "prometheus", "prometheus": {"address": "prometheus:9090"}},
    "proxyService": {"namespace": "default", "name": "beamlit-gateway", "port": 8080, "adminPort": 8081},
    "defaultRemoteBackend": {
        "host": "run.beamlit.com",
        "scheme": "https",
        "pathPrefix": "/$workspace/models/$model",
        "headersToAdd": {"X-Beamlit-Environment": "production"},
        "authConfig": {
            "type": "oauth",
            "oauthConfig": {
                "clientId": "id",
                "clientSecret": "secret",
                "tokenUrl": "https://api.beamlit.com/v0/oauth/token",
            },
        },
    },
}


def test_every_key_of_the_original():
    configuration = parse(Configuration, OF_THE_ORIGINAL)
    assert configuration.namespaces == ("default", "models")
    assert configuration.metric_informer.prometheus.address == "prometheus:9090"
    assert configuration.proxy_service.admin_port == 8081
    assert configuration.default_remote_backend.headers_to_add == {"X-Beamlit-Environment": "production"}


def test_what_has_no_effect_yet_is_said():
    assert parse(Configuration, {"secureMetrics": True}).keys_without_effect() == ("secureMetrics: has no effect yet",)
    assert parse(Configuration, OF_THE_ORIGINAL).keys_without_effect() == ()
    assert parse(Configuration, OF_THE_ORIGINAL).gateway == ("default", "beamlit-gateway")
    assert parse(Configuration, {}).keys_without_effect() == ()


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("prometheus:9090", "http://prometheus:9090"),
        ("prometheus", "http://prometheus"),
        ("[::1]:9090/", "http://[::1]:9090"),
        ("https://mimir.example.com/prometheus/", "https://mimir.example.com/prometheus"),
    ],
)
def test_prior_fault_9_the_address_of_a_prometheus_needs_no_scheme(address, url):
    informer = {"type": "prometheus", "prometheus": {"address": address}}
    assert parse(Configuration, {"metricInformer": informer}).prometheus.url == url


def test_no_prometheus_is_asked_unless_it_is_the_type():
    assert parse(Configuration, {"metricInformer": {"prometheus": {"address": "prometheus"}}}).prometheus is None
    assert parse(Configuration, {}).prometheus is None


def test_a_credential_among_the_headers_of_the_default_backend_is_said():
    backend = {"host": "h", "headers": {"Authorization": "Bearer hush", "X-Team": "ml"}}
    (said,) = parse(Configuration, {"defaultRemoteBackend": backend}).exposed_credentials()
    assert said.startswith("defaultRemoteBackend.headersToAdd.Authorization: stands in the status")
    assert "hush" not in said
    assert (
        parse(Configuration, OF_THE_ORIGINAL).exposed_credentials()
        == parse(Configuration, {}).exposed_credentials()
        == ()
    )


def test_a_leader_is_elected_unless_the_file_says_otherwise():
    assert parse(Configuration, {}).enable_leader_election is True
    assert parse(Configuration, {"enableLeaderElection": False}).enable_leader_election is False


def test_namespaces_as_the_chart_writes_them():
    assert parse(Configuration, {"namespaces": "default, models"}).namespaces == ("default", "models")
    assert parse(Configuration, {"namespaces": ""}).namespaces == ()


def test_headers_of_the_default_backend_by_their_other_name():
    backend = parse(Configuration, {"defaultRemoteBackend": {"host": "a", "headers": {"X-A": "1"}}})
    assert backend.default_remote_backend.headers_to_add == {"X-A": "1"}


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"metricAddr": ":1"}, "metricAddr: is not a known field; is metricsAddr meant?"),
        ({"enableHttp2": True}, "enableHttp2: is not a known field; is enableHTTP2 meant?"),
        ({"metricsAddr": "8080"}, "metricsAddr: must be an address"),
        ({"namespaces": ["Default"]}, "namespaces[0]: must be the name of a namespace"),
        ({"metricInformer": {"type": "datadog"}}, "metricInformer.type: must be"),
        (
            {"metricInformer": {"type": "prometheus"}},
            "metricInformer.prometheus.address: is required when type is prometheus",
        ),
        ({"metricInformer": {"prometheus": {"address": "http://user:secret@a"}}}, "prometheus.address: must be a URL"),
        ({"metricInformer": {"prometheus": {"address": "a:99999"}}}, "must have a port from 1 to 65535"),
        ({"metricInformer": {"prometheus": {"tenant": "a\nb"}}}, "prometheus.tenant: must be the name of a tenant"),
        ({"proxyService": {"port": 80}}, "proxyService.name: is required"),
        ({"proxyService": {"name": "a", "port": 0}}, "proxyService.port: must be at least 1"),
        ({"defaultRemoteBackend": {"scheme": "https"}}, "defaultRemoteBackend.host: is required"),
        (
            {"defaultRemoteBackend": {"host": "a", "headers": {}, "headersToAdd": {}}},
            "defaultRemoteBackend.headers: says the same as headersToAdd",
        ),
        ({"defaultRemoteBackend": {"host": "a", "headers": {"Host": "b"}}}, "may not be set"),
    ],
)
def test_a_mistake_is_told_by_its_field(raw, words):
    with pytest.raises(InvalidObjectError) as caught:
        parse(Configuration, raw)
    assert words in str(caught.value)


def test_a_secret_is_never_shown():
    configuration = parse(Configuration, OF_THE_ORIGINAL)
    assert "'secret'" not in repr(configuration)
