"""The resources of a remote backend with TLS and credentials."""

import hashlib

import pytest
from envoy.extensions.filters.http.credential_injector.v3.credential_injector_pb2 import CredentialInjector
from envoy.extensions.http.injected_credentials.generic.v3.generic_pb2 import Generic
from envoy.extensions.http.injected_credentials.oauth2.v3.oauth2_pb2 import OAuth2
from envoy.extensions.transport_sockets.tls.v3.tls_pb2 import UpstreamTlsContext
from envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import HttpProtocolOptions
from pydantic import SecretStr

from controller.api.contract.credentials import CredentialSource
from controller.api.contract.route import RouteKey
from tests.support.resources import by_key, message_of
from tests.support.routes import A, B, a_remote, a_route, over_tls, with_key, with_token
from xds_server.resources.secret import secret_resources
from xds_server.resources.translator import EnvoySettings, Translator
from xds_server.snapshot.snapshot import CLUSTER, LISTENER, ROUTE, SECRET, SHORT, ResourceKey

OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def resources(remote, model=A, away=30):
    return by_key(
        Translator(EnvoySettings(authorities="/authorities")).resources(model, a_route(remote, away=away), ())
    )


def backend_of(remote, model=A):
    (backend,) = (one for key, one in resources(remote, model).items() if key.name.startswith("backend/"))
    return backend


def tls_of(remote):
    context = UpstreamTlsContext()
    assert message_of(backend_of(remote)).transport_socket.typed_config.Unpack(context)
    return context


def named(keys):
    return {(SHORT[key.type_url], key.name) for key in keys}


def test_without_tls_there_is_no_transport_socket():
    assert not message_of(backend_of(a_remote())).HasField("transport_socket")


def test_a_certificate_must_be_for_the_server_and_lead_to_an_authority_of_the_system():
    context = tls_of(a_remote(tls=over_tls(server_name="models.example")))
    validation = context.common_tls_context.validation_context
    (name,) = validation.match_typed_subject_alt_names
    assert context.sni == "models.example"
    assert (name.san_type, name.matcher.exact) == (name.DNS, "models.example")
    assert validation.trusted_ca.filename == "/authorities"


@pytest.mark.parametrize(
    ("given", "address"), [("10.0.0.1", "10.0.0.1"), ("fd00::1", "fd00::1"), ("FD00:0:0:0:0:0:0:01", "fd00::1")]
)
def test_an_address_is_verified_in_its_usual_form_and_not_sent_as_a_name(given, address):
    context = tls_of(a_remote(tls=over_tls(server_name=given)))
    (name,) = context.common_tls_context.validation_context.match_typed_subject_alt_names
    assert (name.san_type, name.matcher.exact, context.sni) == (name.IP_ADDRESS, address, "")


def test_authorities_and_certificate_come_over_sds():
    remote = a_remote(tls=over_tls(ca="c", certificate="d"))
    common = tls_of(remote).common_tls_context
    validation = common.combined_validation_context
    (name,) = validation.default_validation_context.match_typed_subject_alt_names
    assert name.matcher.exact == "remote.example"
    assert not validation.default_validation_context.HasField("trusted_ca")
    (certificate,) = common.tls_certificate_sds_secret_configs
    secrets = {validation.validation_context_sds_secret_config.name, certificate.name}
    assert secrets == {"authorities/secret/default/c/ca.crt", "certificate/secret/default/d/tls.crt"}
    assert named(backend_of(remote).requires) == {("SDS", name) for name in secrets}


def test_it_is_checked_over_tls_with_what_the_checker_speaks():
    (check,) = message_of(backend_of(a_remote(tls=over_tls()))).health_checks
    assert list(check.tls_options.alpn_protocols) == ["http/1.1"]


def credential_of(remote, kind):
    options = HttpProtocolOptions()
    assert message_of(backend_of(remote)).typed_extension_protocol_options[OPTIONS].Unpack(options)
    injecting, *_, codec = options.http_filters
    assert codec.name == "envoy.filters.http.upstream_codec"
    injector, credential = CredentialInjector(), kind()
    assert injecting.typed_config.Unpack(injector)
    assert injector.credential.typed_config.Unpack(credential)
    # Nothing leaves without; and what the client sent in its place does not leave either.
    assert (injector.allow_request_without_credential, injector.overwrite) == (False, True)
    return credential


def test_a_key_is_injected_in_its_header():
    credential = credential_of(a_remote(auth=with_key(header="x-key")), Generic)
    assert (credential.header, credential.credential.name) == ("x-key", "credential/secret/default/s/apiKey")


def test_a_token_is_fetched_through_a_cluster_of_its_own():
    remote = a_remote(auth=with_token(url="https://auth.example/token"))
    credential = credential_of(remote, OAuth2)
    endpoint = credential.token_endpoint
    (tokens,) = (one for key, one in resources(remote).items() if key.name.startswith("auth/"))
    context = UpstreamTlsContext()
    assert message_of(tokens).transport_socket.typed_config.Unpack(context)
    assert (endpoint.uri, endpoint.cluster) == ("https://auth.example/token", tokens.key.name)
    assert (context.sni, context.common_tls_context.validation_context.trusted_ca.filename) == (
        "auth.example",
        "/authorities",
    )
    assert credential.client_credentials.client_secret.name == "credential/secret/default/s/clientSecret"


def test_the_name_of_a_token_endpoint_is_resolved_as_it_was_written_and_told_as_it_should_be():
    remote = a_remote(auth=with_token(url="https://Auth.Example.:443/token?tenant=A"))
    (tokens,) = (message_of(one) for key, one in resources(remote).items() if key.name.startswith("auth/"))
    (endpoint,) = tokens.load_assignment.endpoints[0].lb_endpoints
    context = UpstreamTlsContext()
    assert tokens.transport_socket.typed_config.Unpack(context)
    (name,) = context.common_tls_context.validation_context.match_typed_subject_alt_names
    assert endpoint.endpoint.address.socket_address.address == "auth.example."
    assert (context.sni, name.matcher.exact) == ("auth.example", "auth.example")
    assert credential_of(remote, OAuth2).token_endpoint.uri == "https://auth.example/token?tenant=A"


# Envoy takes clusters in the order in which they come (trap 12).
def test_the_cluster_of_a_token_endpoint_comes_before_the_backend():
    names = [key.name for key in resources(a_remote(auth=with_token())) if key.type_url == CLUSTER]
    assert [name.partition("/")[0] for name in sorted(names)][:2] == ["auth", "backend"]


def test_backends_with_one_token_endpoint_share_its_cluster():
    def tokens(url):
        return {key for key in resources(a_remote(auth=with_token(url=url))) if key.name.startswith("auth/")}

    assert tokens("https://auth.example/one") == tokens("https://auth.example:443/two")
    assert tokens("https://auth.example/one") != tokens("http://auth.example/one")
    assert tokens("https://auth.example/one") != tokens("https://auth.example:8443/one")


@pytest.mark.parametrize("auth", [with_key(), with_token()])
def test_what_gets_a_credential_goes_through_the_internal_listener(auth):
    found = resources(a_remote(auth=auth), away=100)
    _, route = message_of(found[ResourceKey(ROUTE, "port/80/default")]).virtual_hosts[0].routes
    clusters = {name for type_, name in named(found) if type_ == "CDS"}
    # The front neither rewrites the request nor names the backend.
    assert not route.request_headers_to_remove
    assert not route.route.prefix_rewrite
    assert {"model/default/a/remote", "model/default/a/local"} < clusters
    assert "model/default/a/fallback" not in clusters
    assert b"backend/" not in found[ResourceKey(ROUTE, "port/80/default")].body
    # A listener that stays the same leaves no connection to an older one.
    assert b"backend/" not in found[ResourceKey(LISTENER, "remote/model/default/a")].body


def test_another_backend_leaves_the_fronts_route_and_the_listeners_alone():
    before, after = (resources(a_remote(host, auth=with_key())) for host in ("one.example", "two.example"))
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    assert {(type_, name.partition("/")[0]) for type_, name in named(changed)} == {
        ("CDS", "backend"),
        ("RDS", "remote"),
    }


def test_prior_fault_24_a_credential_is_not_among_the_headers_of_the_front():
    found = resources(a_remote(auth=with_key(header="x-key")), away=100)
    for key, one in found.items():
        if not key.name.startswith("backend/"):
            assert b"x-key" not in one.body, key


SECRET_OF_ANOTHER = CredentialSource.of_secret("other", "clientSecret")


def test_models_share_a_backend_only_with_the_same_credentials_from_the_same_place():
    remotes = [
        (A, a_remote()),
        (A, a_remote(tls=over_tls())),
        (A, a_remote(tls=over_tls(server_name="x"))),
        (A, a_remote(tls=over_tls(ca="c"))),
        (A, a_remote(tls=over_tls(ca="d"))),
        (A, a_remote(tls=over_tls(certificate="c"))),
        (A, a_remote(auth=with_key())),
        (A, a_remote(auth=with_key("other"))),
        (A, a_remote(auth=with_key(header="y"))),
        (RouteKey.of_model("other", "a"), a_remote(auth=with_key())),
        (A, a_remote(auth=with_token())),
        (A, a_remote(auth=with_token(SECRET_OF_ANOTHER))),
        (A, a_remote(auth=with_token(url="https://other.example/token"))),
        (A, a_remote(auth=with_token(CredentialSource(source="DefaultBackend")))),
        (A, a_remote(auth=with_token(CredentialSource(source="Spec")))),
        (B, a_remote(auth=with_token(CredentialSource(source="Spec")))),
    ]
    names = [backend_of(remote, model).key.name for model, remote in remotes]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("remote", "other"),
    [
        (a_remote(tls=over_tls()), B),
        (a_remote(auth=with_key()), B),
        (a_remote(auth=with_token(CredentialSource(source="DefaultBackend"))), RouteKey.of_model("other", "a")),
    ],
)
def test_models_share_a_backend_with_what_comes_from_one_place(remote, other):
    assert backend_of(remote) == backend_of(remote, other)


def secret(value, key=b"key", model=A):
    (one,) = secret_resources(model, a_remote(auth=with_key()), {with_key().api_key.value: SecretStr(value)}, key)
    return one


def test_the_version_of_a_secret_is_of_no_use_to_those_without_the_key():
    one = secret("1234")
    assert one == secret("1234")
    assert one.version != secret("1235").version
    assert one.version != secret("1234", key=b"other").version
    assert one.version != hashlib.blake2b(one.body, digest_size=8).hexdigest()
    assert b"1234" in one.body
    assert "1234" not in repr(one)


def test_what_is_named_is_what_is_brought():
    remote = a_remote(tls=over_tls(ca="c", certificate="d"), auth=with_key())
    sources = [remote.tls.ca, remote.tls.client_certificate.certificate, remote.tls.client_certificate.private_key]
    values = {source: SecretStr("x") for source in [*sources, remote.auth.api_key.value]}
    brought = {one.key for one in secret_resources(A, remote, values, b"key")}
    assert brought == backend_of(remote).requires
    assert {key.type_url for key in brought} == {SECRET}
    for key in brought:
        assert (
            message_of(next(one for one in secret_resources(A, remote, values, b"k") if one.key == key)).name
            == key.name
        )
