"""What is mistyped in values is refused by the name of the value; what is of the right form is taken."""

from __future__ import annotations

import re

import pytest

from controller.api.resources.configuration import Configuration
from controller.api.schema.values import parse
from tests.support.chart import CLIENT, Chart, RefusedError, configuration_of, container_of


# Helm 4 writes the path of a value with slashes, Helm 3.12 and 3.17 with dots.
@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["gateway.replica=3"], r"\bgateway\b.*\breplica\b"),
        (["instalMetricServer=true"], r"\binstalMetricServer\b"),
        (["config.defaultRemoteBackends.host=a"], r"\bconfig\b.*\bdefaultRemoteBackends\b"),
        (["config.defaultRemoteBackend.authConfig.oauthConfig.clientID=a"], r"\boauthConfig\b.*\bclientID\b"),
        (["config.defaultRemoteBackend.scheme=ftp"], "defaultRemoteBackend[/.]scheme"),
        (["controller.replicas=0"], "controller[/.]replicas"),
        (["image.digest=sha256:abc"], "image[/.]digest"),
        (["allowedNamespaces={Team_A}"], "allowedNamespaces[/.]0"),
        (["certificates.source=vault"], "certificates[/.]source"),
        (["config.metricsAddr=everywhere"], "config[/.]metricsAddr"),
        (["config.namespaces=team-a"], "config.namespaces: team-a is not among allowedNamespaces"),
        (["config.namespaces="], "config.namespaces: is empty, which means all"),
        (CLIENT[:1], r"oauthConfig.clientSecret: is required where clientId is given"),
        (CLIENT[1:], r"oauthConfig.clientId: is required where a client secret is given"),
        (
            [*CLIENT, "credentials.existingSecret=mine"],
            "clientSecret: must be left out where credentials.existingSecret",
        ),
        (
            ["config.defaultRemoteBackend.host=models.example"],
            r"oauthConfig.clientId: is required; a backend that asks",
        ),
        (["xdsServer.refusedClients={spiffe://a/b#c,gateway}"], "refusedClients/1"),
        (["certificates.days=90", "certificates.caDays=100"], "certificates.caDays: must be at least twice"),
        ([*CLIENT, "config.defaultRemoteBackend.host=https://models.example"], "defaultRemoteBackend[/.]host"),
        (["config.remoteBackends.allow={10.0.0.0/33}"], "remoteBackends[/.]allow[/.]0"),
        (["config.remoteBackends.deny={fd00::/129}"], "remoteBackends[/.]deny[/.]0"),
        (["config.remoteBackends.deny={a b}"], "remoteBackends[/.]deny[/.]0"),
        ([CLIENT[0], "credentials.existingSecret=My_Secret"], "credentials[/.]existingSecret"),
        (["gateway.resources.limit.memory=1Gi"], r"gateway[/.]resources\b.*\blimit\b"),
        (["xdsServer.resources.limits.memory=1GB"], "xdsServer[/.]resources[/.]limits[/.]memory"),
        (["serviceMonitor.interval=often"], "serviceMonitor[/.]interval"),
        (["xdsServer.tokens.clients[0].grant=reader"], r"tokens[/.]clients[/.]0\b.*\bserviceAccount\b"),
    ],
    ids=str,
)
def test_a_mistake_is_refused_by_its_name(chart: Chart, values: list[str], words: str) -> None:
    with pytest.raises(RefusedError) as refused:
        chart.text(*values)
    assert re.search(words, str(refused.value)), refused.value


def test_what_is_of_the_right_form_is_taken(chart: Chart) -> None:
    allowed = r"config.remoteBackends.allow={10.1.0.0/16,192.0.2.7,fd00::/8,::1,*.example.com,models_1.example.,a.b}"
    denied = "config.remoteBackends.deny={private,0.0.0.0/0,::/0,::ffff:10.0.0.0/104}"
    for host in ("[::1]:80", ""):
        backend = (*CLIENT, f"config.defaultRemoteBackend.host={host}")
        amounts = ("gateway.resources.limits.cpu=2", "gateway.resources.limits.memory=1.5Gi")
        less = ("xdsServer.resources.requests.cpu=0.5", "controller.resources.requests.memory=256e6")
        parse(Configuration, configuration_of(chart.objects(*backend, allowed, denied, *amounts, *less)))
    without = container_of(chart.objects("gateway.resources.limits.memory=null"), "beamlit-gateway")
    assert "memory" not in without["resources"]["limits"]


@pytest.mark.parametrize("release", ["2beam", "my.release"])
def test_a_release_whose_name_no_service_may_have_needs_a_prefix(chart: Chart, release: str) -> None:
    with pytest.raises(RefusedError, match="namePrefix: is required"):
        chart.text(release=release)
    assert chart.objects("namePrefix=beam", release=release)
