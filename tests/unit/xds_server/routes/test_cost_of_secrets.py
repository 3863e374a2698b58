"""What a Secret of one namespace may cost the loop that serves all: little, once, and whatever is in it."""

import pytest

from controller.api.contract.entrance import ClientValidation, EntranceTls
from controller.store.protocol import Batch
from tests.support.called import called
from tests.support.entrance import a_serving_secret
from tests.support.keys import DSA_KEY, certificate_pem, key_pem, rsa_key, rsa_pem, signer
from tests.support.objects import a_model, a_secret
from tests.support.routes import A, a_remote, a_route, over_tls
from xds_server.routes.credentials import ServerSecrets
from xds_server.routes.index import RouteIndex
from xds_server.routes.translation import RouteTranslator, ServingOptions

CHAIN, KEY = certificate_pem(signer().public_key()), key_pem(signer())
SERVED = a_route().model_copy(
    update={"tls": EntranceTls(certificates=("s",), client_validation=ClientValidation(authorities=("clients",)))}
)
SENT = a_route(a_remote(tls=over_tls(ca="s", certificate="s")), away=30)
LONG = rsa_pem(1279, 2203, longer=1_000_000)
CLIENTS = a_serving_secret("clients").holding(ca__crt=CHAIN)
READERS = ("load_pem_private_key", "load_pem_x509_certificates", "load_pem_x509_certificate", "load_verify_locations")
OF_KEYS = "must be a private key of RSA with 2048 to 4096 bits, or of the curve P-256, P-384 or P-521, or Ed25519"


def translator_of(route, *secrets):
    raw = route.model_dump(mode="json", by_alias=True, exclude_none=True)
    model = a_model(A.name).stored(status={"observedGeneration": 1, "route": raw})
    index = RouteIndex()
    index.apply(Batch((model, *(one.stored() for one in secrets)), complete=True))
    return RouteTranslator(index, ServingOptions(secrets=ServerSecrets(version_key=b"key")))


def a_pair(**changed):
    held = {"tls__crt": CHAIN, "tls__key": KEY, "ca__crt": CHAIN, **changed}
    return a_serving_secret("s").holding(**held).saying("kubernetes.io/tls", "type")


def words(translated):
    return [str(one) for one in translated.problems]


@pytest.mark.parametrize("route", [SERVED, SENT], ids=["served", "sent"])
@pytest.mark.parametrize(
    ("key", "fault"),
    [
        (DSA_KEY, OF_KEYS),
        (LONG, f"has {len(LONG):,} characters, and may have 16,384"),
        (key_pem(rsa_key(4253, 4403)), OF_KEYS),
        (key_pem(rsa_key(2203, 2281)), OF_KEYS),
    ],
    ids=["of DSA", "RSA with a million bits", "RSA with 8,656 bits", "RSA with 4,484 bits"],
)
def test_a_key_that_no_worker_should_calculate_with_is_refused_by_its_name(route, key, fault):
    translator = translator_of(route, a_pair(tls__key=key), CLIENTS)
    first = []
    calls = called(lambda: first.append(translator.translate(A, 1)))
    assert words(first[0]) == [f'Secret default/s: key "tls.key" {fault}']
    assert calls["load_pem_private_key"] == (key not in (DSA_KEY, LONG))
    assert calls["private_numbers"] == 0
    # A change of the route, such as another endpoint, is no reason to look at it again.
    again = called(lambda: translator.translate(A, 1))
    assert [again[name] for name in READERS] == [0, 0, 0, 0]
    assert words(translator.translate(A, 1)) == words(first[0])


@pytest.mark.parametrize("route", [SERVED, SENT], ids=["served", "sent"])
def test_what_is_in_a_secret_is_read_once_for_all_changes_of_a_route(route):
    translator = translator_of(route, a_pair(), CLIENTS)
    first = called(lambda: translator.translate(A, 1))
    assert sum(first[name] for name in READERS)
    again = called(lambda: translator.translate(A, 1))
    assert [again[name] for name in READERS] == [0, 0, 0, 0]
    assert words(translator.translate(A, 1)) == []


@pytest.mark.parametrize(
    ("authorities", "fault"),
    [
        (CHAIN * 257, "has 257 certificates, and may have 256"),
        (f"{CHAIN}{'#' * 262_144}", f"has {len(CHAIN) + 262_144:,} characters, and may have 262,144"),
        (f"{CHAIN}{'#' * 1_000_000}", "is longer than anything that is used"),
    ],
    ids=["number", "length", "a whole Secret"],
)
def test_a_list_of_authorities_has_bounds(authorities, fault):
    for route, secrets, whose in (
        (SENT, (a_pair(ca__crt=authorities),), "s"),
        (SERVED, (a_pair(), CLIENTS.holding(ca__crt=authorities)), "clients"),
    ):
        translator = translator_of(route, *secrets)
        calls = called(lambda translator=translator: translator.translate(A, 1))
        assert words(translator.translate(A, 1)) == [f'Secret default/{whose}: key "ca.crt" {fault}']
        assert calls["load_verify_locations"] == 0


def test_authorities_of_several_secrets_have_the_bounds_of_one():
    many = ClientValidation(authorities=("clients", "more"))
    route = a_route().model_copy(update={"tls": EntranceTls(certificates=("s",), client_validation=many)})
    more = a_serving_secret("more").holding(ca__crt=CHAIN * 256)
    assert words(translator_of(route, a_pair(), CLIENTS, more).translate(A, 1)) == [
        "spec.tls.clientValidation has 257 certificates, and may have 256"
    ]


def test_a_secret_that_nobody_looked_at_yet_costs_no_more_for_what_others_hold():
    """Two models of one Secret: it is read for the first."""
    raw = SENT.model_dump(mode="json", by_alias=True, exclude_none=True)
    models = [a_model(name).stored(status={"observedGeneration": 1, "route": raw}) for name in ("a", "b")]
    index = RouteIndex()
    index.apply(
        Batch((*models, a_secret("s").holding(tls__crt=CHAIN, tls__key=KEY, ca__crt=CHAIN).stored()), complete=True)
    )
    translator = RouteTranslator(index, ServingOptions(secrets=ServerSecrets(version_key=b"key")))
    first, second = (called(lambda key=key: translator.translate(key, 1)) for key in sorted(index.routes()))
    assert (first["load_pem_private_key"], second["load_pem_private_key"]) == (1, 0)
