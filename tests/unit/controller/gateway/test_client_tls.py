"""How an Envoy joins over TLS, in its bootstrap."""

from pathlib import Path

import pytest
import yaml

from controller.gateway.bootstrap import HostPort, Provision, bootstrap_for
from controller.gateway.client_tls import ClientTls, sds_files

TLS = ClientTls(Path("/tls/ca.crt"), Path("/tls/tls.crt"), Path("/tls/tls.key"))


def socket(tls=TLS, host="xds.svc", sds=None):
    bootstrap = yaml.safe_load(bootstrap_for("me", "", HostPort(host, 18000), None, Provision(tls=tls, sds=sds)))
    return bootstrap["static_resources"]["clusters"][0]["transport_socket"]["typed_config"]


def test_without_tls_there_is_none():
    (cluster,) = yaml.safe_load(bootstrap_for("me", "", HostPort("h", 1), None))["static_resources"]["clusters"]
    assert "transport_socket" not in cluster


@pytest.mark.parametrize(
    ("host", "name", "kind", "expected", "sni"),
    [
        ("xds.svc", "", "DNS", "xds.svc", "xds.svc"),
        ("10.0.0.1", "", "IP_ADDRESS", "10.0.0.1", None),
        ("10.0.0.1", "xds.svc", "DNS", "xds.svc", "xds.svc"),
        ("::1", "spiffe://beamlit/xds-server", "URI", "spiffe://beamlit/xds-server", None),
    ],
)
def test_the_server_is_known_by_a_name_of_its_certificate(host, name, kind, expected, sni):
    tls = ClientTls(TLS.ca, TLS.certificate, TLS.key, name)
    context = socket(tls, host)
    validation = context["common_tls_context"]["validation_context"]
    assert validation["match_typed_subject_alt_names"] == [{"san_type": kind, "matcher": {"exact": expected}}]
    assert context.get("sni") == sni


def test_files_are_followed_through_a_folder_and_their_own_folders_are_watched():
    common = socket(sds=Path("/sds"))["common_tls_context"]
    named = [*common["tls_certificate_sds_secret_configs"], common["validation_context_sds_secret_config"]]
    paths = [one["sds_config"]["path_config_source"]["path"] for one in named]
    files = sds_files(TLS, "xds.svc")
    assert paths == [f"/sds/{name}" for name in files]
    secrets = [yaml.safe_load(content)["resources"][0] for content in files.values()]
    assert [one["name"] for one in secrets] == [one["name"] for one in named]
    assert secrets[0]["tls_certificate"]["watched_directory"] == {"path": "/tls"}
    assert secrets[1]["validation_context"]["watched_directory"] == {"path": "/tls"}
    assert secrets[1]["validation_context"]["match_typed_subject_alt_names"]
