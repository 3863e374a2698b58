"""What an entrance is served with: found, or told in words that hold nothing of it."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from controller.api.contract.entrance import ClientValidation, EntranceTls
from controller.api.contract.route import RouteKey
from tests.support.entrance import TokenIssuer, a_serving_secret, pem_of
from tests.support.objects import a_model, a_secret
from tests.support.publishing import publishing
from tests.support.resources import message_of
from tests.support.routes import A, B, a_remote, a_route, with_key
from tests.support.store import settled
from xds_server.reports import Reports
from xds_server.resources.pem import PemMemory
from xds_server.resources.translator import EnvoySettings
from xds_server.routes.credentials import ServerSecrets
from xds_server.routes.entrance import Entrances, served_secrets
from xds_server.routes.translation import ServingOptions
from xds_server.routes.validation import asked_with
from xds_server.snapshot.scope import GATEWAY, Role, Scope
from xds_server.snapshot.snapshot import EMPTY, LISTENER, ROUTE, SCOPED_ROUTE, SECRET
from xds_server.stream.server.clients import Progress
from xds_server.translate import translate

NOW = datetime(2030, 1, 1, tzinfo=UTC)
OWN = ServerSecrets(version_key=b"key", opt_in=True)
AUTHORITY = trustme.CA()
CHAIN, KEY = pem_of(AUTHORITY.issue_cert("a.default", not_after=NOW + timedelta(days=1)))
CERT = a_serving_secret("cert").holding(tls__crt=CHAIN, tls__key=KEY).saying("kubernetes.io/tls", "type")
CLIENTS = a_serving_secret("clients").holding(ca__crt=AUTHORITY.cert_pem.bytes().decode())
TLS = a_route().model_copy(update={"tls": EntranceTls(certificates=("cert",))})
CHECKED = TLS.model_copy(
    update={"tls": EntranceTls(certificates=("cert",), client_validation=ClientValidation(authorities=("clients",)))}
)


def resolved(route, *secrets, entrances=None, now=NOW, own=OWN):
    found = {one.ref: one.stored() for one in secrets}
    return (entrances or Entrances(PemMemory())).resolve(A, route, found.get, own, now)


def words(entrance):
    return [(one.reason, str(one)) for one in entrance.problems]


def test_certificates_and_authorities_are_delivered_each_as_a_secret_of_its_own():
    entrance = resolved(CHECKED, CERT, CLIENTS)
    certificate, authorities = (message_of(one) for one in entrance.secrets)
    assert certificate.name == "serving/default/cert"
    written = certificate.tls_certificate.private_key.inline_string
    assert written == key_pem(serialization.load_pem_private_key(KEY.encode(), None))
    assert authorities.name == "clients/model/default/a"
    assert authorities.validation_context.trusted_ca.inline_string.startswith("-----BEGIN CERTIFICATE-----")
    assert (entrance.problems, entrance.ends) == ((), NOW + timedelta(days=1))
    assert {ref.name for ref in served_secrets(A, CHECKED)} == {"cert", "clients"}
    assert not resolved(a_route()).secrets


@pytest.mark.parametrize(
    ("route", "secrets", "name"), [(TLS, (), "cert"), (CHECKED, (CERT,), "clients"), (CHECKED, (CLIENTS,), "cert")]
)
def test_without_a_secret_nobody_is_let_in(route, secrets, name):
    entrance = resolved(route, *secrets)
    assert entrance.is_closed
    assert entrance.secrets == ()
    ((reason, text),) = words(entrance)
    assert reason == "SecretNotFound"
    assert text.endswith(f"`kubectl -n default label secret {name} beamlit.com/credential=serving`")


@pytest.mark.parametrize("labels", [{}, {"beamlit.com/credential": "true"}, {"beamlit.com/credential": "Serving"}])
def test_a_secret_that_does_not_say_so_is_not_served_with(labels):
    unlabelled = CERT.saying(labels, "metadata", "labels")
    assert [reason for reason, _ in words(resolved(TLS, unlabelled))] == ["SecretNotFound"]
    # In a folder nobody is asked.
    assert resolved(TLS, unlabelled, own=ServerSecrets(version_key=b"key")).problems == ()


def test_what_is_served_with_is_sent_to_no_remote_backend():
    route = a_route(a_remote(auth=with_key()), away=30)
    options = ServingOptions(secrets=OWN)
    for secret, problems in ((a_secret("s"), set()), (a_serving_secret("s"), {"SecretNotFound"})):
        found = translate([decided("a", route), secret.holding(apiKey="hush").stored()], options)
        assert {one.reason for one in found.problems.get(A, ())} == problems


def key_pem(key):
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


OTHER_CHAIN, OTHER_KEY = pem_of(AUTHORITY.issue_cert("other.test"))


@pytest.mark.parametrize(
    ("held", "text"),
    [
        ({"tls__crt": CHAIN, "tls__key": OTHER_KEY}, "is not the private key of the first certificate"),
        ({"tls__crt": CHAIN, "tls__key": key_pem(ed25519.Ed25519PrivateKey.generate())}, "is not the private key"),
        ({"tls__crt": CHAIN, "tls__key": KEY[:80]}, 'key "tls.key" is not a private key in PEM'),
        ({"tls__crt": "", "tls__key": KEY}, 'key "tls.crt" is not a certificate in PEM'),
        ({"tls__crt": CHAIN[:90], "tls__key": KEY}, 'key "tls.crt" is not a certificate in PEM'),
        ({"tls__crt": KEY, "tls__key": KEY}, 'key "tls.crt" is not a certificate in PEM'),
        ({"tls__crt": CHAIN}, 'key "tls.key" is missing'),
    ],
)
def test_a_pair_that_cannot_be_used_says_why_and_nothing_of_itself(held, text):
    entrance = resolved(TLS, CERT.holding(**held))
    assert entrance.is_closed
    assert text in words(entrance)[0][1]
    assert "BEGIN" not in repr(entrance)
    assert KEY.split("\n")[1] not in repr(entrance)


def test_a_secret_of_another_type_is_not_served_with():
    ((reason, text),) = words(resolved(TLS, CERT.saying("Opaque", "type")))
    assert (reason, text) == ("CertificateNotUsable", "Secret default/cert is not of the type kubernetes.io/tls")


def test_a_certificate_that_has_expired_is_served_and_said():
    assert words(resolved(TLS, CERT, now=NOW + timedelta(hours=23))) == []
    entrance = resolved(TLS, CERT, now=NOW + timedelta(days=1))
    assert not entrance.is_closed
    expired = "Secret default/cert: its certificate has expired, at 2030-01-02T00:00:00Z"
    assert words(entrance) == [("CertificateExpired", expired)]
    assert entrance.secrets


def test_what_is_renewed_and_cannot_be_used_breaks_nothing_and_what_is_taken_away_is_gone():
    entrances = Entrances(PemMemory())
    good = resolved(TLS, CERT, entrances=entrances)
    broken = CERT.holding(tls__crt=CHAIN, tls__key=OTHER_KEY)
    kept = resolved(TLS, broken, entrances=entrances)
    assert (kept.secrets, kept.is_closed) == (good.secrets, False)
    assert words(kept)[0][1].endswith("what it had before is served on")
    assert resolved(TLS, CERT.unlabelled(), entrances=entrances).is_closed
    assert resolved(TLS, broken, entrances=entrances).is_closed


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda keys: "x", "is no JSON"),
        (lambda keys: json.dumps({"keys": [{**keys[0], "d": "hush"}]}), "has a private key in keys[0]"),
    ],
)
def test_keys_of_tokens_that_cannot_be_used_let_nobody_in(change, text):
    provider = TokenIssuer().provider()
    jwks = change(json.loads(provider.jwks)["keys"])
    route = TLS.model_copy(update={"jwt": (provider.model_copy(update={"jwks": jwks}),)})
    entrance = resolved(route, CERT)
    assert entrance.is_closed
    ((reason, said),) = words(entrance)
    assert (reason, "hush" in said) == ("JwksNotUsable", False)
    assert text in said
    assert resolved(TLS.model_copy(update={"jwt": (provider,)}), CERT).problems == ()


def decided(name, route, version="1"):
    raw = route.model_dump(mode="json", by_alias=True, exclude_none=True)
    return a_model(name).stored(status={"observedGeneration": 1, "route": raw}, version=version)


SHARED = ServingOptions(
    envoys={role: EnvoySettings(shared_port=8080) for role in Role}, secrets=ServerSecrets(version_key=b"key")
)


def shared(route, *hosts, port=8001):
    return route.model_copy(update={"hosts": hosts, "port": port})


class Nobody:
    """No client is there."""

    def progress(self) -> Progress:
        return Progress(EMPTY, (), ())

    def refused(self) -> str:
        return ""


async def test_a_model_without_its_certificate_is_not_served_in_the_clear_and_says_why():
    async with publishing([decided("a", TLS)], ServingOptions()) as this:
        assert this.published.bodies == {}
        report = Reports(this.publisher, Nobody()).report(A)
        assert [one.reason for one in report.entrance] == ["SecretNotFound"]
        assert report.refusals == ("Secret default/cert does not exist",)
        this.store.put(CERT.stored())
        await settled()
        assert this.publisher.problems(A) == ()
        assert f"port/{TLS.port}" in this.published.snapshot.by_type[LISTENER]
        # A new certificate is a new secret, and touches nothing else.
        chain, key = pem_of(AUTHORITY.issue_cert("a.default"))
        this.store.put(CERT.holding(tls__crt=chain, tls__key=key).stored(version="2"))
        await settled()
        assert this.published.changes[-1] == {("SDS", "serving/default/cert")}


def test_sidecars_are_given_no_certificate_and_no_model_that_has_one():
    found = translate([decided("a", TLS), CERT.stored()], SHARED)
    assert found.snapshots[GATEWAY].by_type[SECRET]
    sidecars = found.snapshots.get(Scope(Role.SIDECAR, "default"))
    assert sidecars is None or not (sidecars.by_type[SECRET] or sidecars.by_type[LISTENER])


def test_the_shared_listener_is_put_together_of_what_models_have_there():
    plain = decided("a", shared(a_route(), "a.default"))
    alone = translate([plain], SHARED).gateway.by_type[LISTENER]["gateway/hosts"]
    over_tls = decided("b", shared(TLS, "b.default", port=8002))
    gateway = translate([plain, over_tls, CERT.stored()], SHARED).gateway
    both = gateway.by_type[LISTENER]["gateway/hosts"]
    # The first part as it was: connections in the clear notice nothing.
    assert both.body.startswith(alone.body)
    chains = message_of(both).filter_chains
    assert [chain.filter_chain_match.server_names for chain in chains] == [
        [],
        ["b.default", "b.default.svc", "b.default.svc.cluster.local"],
    ]
    assert [chain.filter_chain_match.transport_protocol for chain in chains] == ["raw_buffer", "tls"]
    gateway.check()
    # In the clear the hosts of a model with TLS lead to a refusal.
    led = {
        message_of(one).key.fragments[0].string_key: message_of(one).route_configuration_name
        for one in gateway.by_type[SCOPED_ROUTE].values()
    }
    assert (led["a.default"], led["b.default"]) == ("port/8001/default", "gateway/tls-only")
    assert "gateway/tls-only" in gateway.by_type[ROUTE]


@pytest.mark.parametrize("after", [a_route(), TLS], ids=["without TLS", "without authorities"])
async def test_a_port_that_is_left_is_served_on_with_what_it_was_served_with(after):
    """An Envoy that joins meanwhile gets it, too; no secret is taken from under a listener."""
    before = decided("a", shared(CHECKED, "a.default", port=8001))
    async with publishing([before, CERT.stored(), CLIENTS.stored()], SHARED) as this:
        this.store.put(decided("a", shared(after, "a.default", port=8002), version="2"))
        await settled()
        assert {"port/8001", "port/8002"} <= this.published.snapshot.by_type[LISTENER].keys()
        this.published.snapshot.check()


def test_of_a_service_whose_ports_are_of_two_models_with_tls_the_older_has_the_name():
    """On the shared port; each is served at its own all the same."""

    def asking(name, created, port, hosts):
        spec = {"certificateRefs": [{"name": "cert"}]}
        model = a_model(name).created(created).fronting("a").saying("Gateway", "spec", "frontend")
        route = shared(TLS, *hosts, port=port)
        raw = route.model_dump(mode="json", by_alias=True, exclude_none=True)
        raw["local"]["service"] = "a"
        return model.saying(spec, "spec", "tls").stored(status={"observedGeneration": 1, "route": raw})

    older = asking("b", "2026-01-01T00:00:00Z", 8001, ["a.default:8000"])
    newer = asking("a", "2026-01-02T00:00:00Z", 8002, ["a.default"])
    options = replace(SHARED, ask=asked_with(None))
    found = translate([older, newer, CERT.stored()], options)
    assert [(key, one.reason) for key, some in found.problems.items() for one in some] == [(A, "ServerNameTaken")]
    body = found.gateway.by_type[LISTENER]["gateway/hosts"].body
    assert (b"port/8001/default" in body, b"port/8002/default" in body) == (True, False)
    assert {"port/8001", "port/8002"} <= found.gateway.by_type[LISTENER].keys()


def test_routes_of_models_are_kept_apart_by_their_key():
    assert served_secrets(RouteKey.of_model("other", "a"), TLS).isdisjoint(served_secrets(B, TLS))
