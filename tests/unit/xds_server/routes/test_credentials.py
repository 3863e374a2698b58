"""What a route needs that is secret: found, or told in words that hold nothing of it."""

import base64
import traceback
from datetime import datetime

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr

from controller.api.contract.credentials import CredentialSource, RemoteTls
from controller.api.contract.route import RouteKey
from controller.api.resources.configuration import DefaultRemoteBackend
from controller.api.schema.values import parse
from tests.support.objects import a_model, a_secret
from tests.support.resources import message_of
from tests.support.routes import A, a_remote, a_route, a_route_with, over_tls, with_key, with_token
from xds_server.resources import pem
from xds_server.resources.pem import PemError, PemMemory
from xds_server.routes.credentials import (
    ServerSecrets,
    UnusableError,
    header_value,
    reads_spec,
    referred_secrets,
    resolve_credentials,
)

HUSH = "hush-hush"
KEY = b"the key of these tests"


@pytest.fixture(scope="module")
def pki():
    authority = trustme.CA()
    mine = authority.issue_cert("client.example")
    key = serialization.load_pem_private_key(mine.private_key_pem.bytes(), None)
    # As it is written for Envoys.
    written = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return {
        "ca__crt": authority.cert_pem.bytes().decode(),
        "tls__crt": "".join(pem.bytes().decode() for pem in mine.cert_chain_pems),
        "tls__key": key.private_bytes(*written).decode(),
    }


def words(resolved):
    return tuple(map(str, resolved.problems))


def served(route, *objects, model=A, own=None):
    found = {one.ref: one.stored() for one in objects}
    return resolve_credentials(model, route, found.get, own or ServerSecrets(version_key=KEY), PemMemory())


def secrets_of(result):
    return [message_of(one) for one in result.secrets]


def test_a_route_that_needs_nothing_is_served_as_it_is():
    for route in (a_route(), a_route(a_remote(), away=30), a_route(a_remote(tls=over_tls()), away=30)):
        result = served(route)
        assert (result.route, result.secrets, result.problems) == (route, (), ())


def test_what_is_there_is_brought_with_the_route(pki):
    route = a_route(a_remote(tls=over_tls(ca="c", certificate="c"), auth=with_key()), away=30)

    result = served(route, a_secret("c").holding(**pki), a_secret().holding(apiKey=HUSH))

    assert (result.route, result.problems) == (route, ())
    authorities, certificate, credential = secrets_of(result)
    assert authorities.validation_context.trusted_ca.inline_string == pki["ca__crt"]
    assert certificate.tls_certificate.certificate_chain.inline_string == pki["tls__crt"]
    assert certificate.tls_certificate.private_key.inline_string == pki["tls__key"]
    assert credential.generic_secret.secret.inline_string == HUSH


def test_without_a_secret_everything_stays_local():
    result = served(a_route(a_remote(auth=with_key()), away=30))
    assert (result.route, result.secrets) == (a_route(), ())
    assert words(result) == ("Secret default/s does not exist",)


def encoded(text):
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "secret",
    [
        a_secret().holding(apiKey=HUSH),
        a_secret().holding(apiKey=f"{HUSH}\n"),
        a_secret().encoded(apiKey=encoded(HUSH)),
        a_secret().encoded(apiKey=encoded(f"{HUSH}\r\n")),
        a_secret().encoded(apiKey=encoded(HUSH)[:4] + "\n" + encoded(HUSH)[4:]),
        # As the API server merges them.
        a_secret().encoded(apiKey=encoded("older")).holding(apiKey=HUSH),
    ],
)
def test_how_a_secret_may_be_written(secret):
    (credential,) = secrets_of(served(a_route(a_remote(auth=with_key())), secret))
    assert credential.generic_secret.secret.inline_string == HUSH


@pytest.mark.parametrize(
    ("objects", "reason"),
    [
        ((), "SecretNotFound"),
        ((a_secret().holding(other="x"),), "SecretKeyNotFound"),
        ((a_secret().holding(apiKey=" "),), "CredentialNotUsable"),
    ],
)
def test_why_a_credential_cannot_be_used_has_a_reason(objects, reason):
    (problem,) = served(a_route(a_remote(auth=with_key()), away=30), *objects).problems
    assert problem.reason == reason


@pytest.mark.parametrize(
    ("secret", "problem"),
    [
        (a_secret().holding(other=HUSH), 'Secret default/s: key "apiKey" is missing'),
        (a_secret().holding(apiKey=""), 'Secret default/s: key "apiKey" is empty'),
        (a_secret().holding(apiKey="\n"), 'Secret default/s: key "apiKey" is empty'),
        (a_secret().holding(apiKey="  \n"), 'Secret default/s: key "apiKey" is empty'),
        (a_secret().holding(apiKey=f"a\n{HUSH}"), "not printable ASCII"),
        (a_secret().holding(apiKey=f"\x00{HUSH}"), "not printable ASCII"),
        (a_secret().holding(apiKey=f"ü{HUSH}"), "not printable ASCII"),
        (a_secret().encoded(apiKey=f"!{HUSH}"), 'Secret default/s: key "apiKey" is not base64'),
        (a_secret().encoded(apiKey=encoded(HUSH)[:-1]), "is not base64"),
        (a_secret().encoded(apiKey=base64.b64encode(b"\xff" + HUSH.encode()).decode()), "is not text"),
        (a_secret().encoded(apiKey=[HUSH]), "data.apiKey: must be a string"),
    ],
)
def test_what_cannot_be_a_credential_is_told_without_it(secret, problem):
    result = served(a_route(a_remote(auth=with_key()), away=30), secret)
    (said,) = words(result)
    assert problem in said
    assert HUSH not in said
    assert result.route == a_route()


@pytest.mark.parametrize(
    "check", [lambda value: header_value(value, "it"), pem.certificates, pem.authorities, pem.private_key]
)
@pytest.mark.parametrize("value", ["", f"\x00{HUSH}", f"-----BEGIN CERTIFICATE-----\n{HUSH}", f"{HUSH}ü"])
def test_no_exception_holds_a_value(check, value):
    with pytest.raises((UnusableError, PemError)) as caught:
        check(SecretStr(value))
    assert HUSH not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("broken", ["ca__crt", "tls__crt", "tls__key"])
def test_certificates_and_keys_are_looked_at(pki, broken):
    route = a_route(a_remote(tls=over_tls(ca="c", certificate="c")), away=30)
    swapped = {**pki, broken: pki["tls__key" if broken != "tls__key" else "ca__crt"]}

    (problem,) = words(served(route, a_secret("c").holding(**swapped)))

    assert broken.replace("__", ".") in problem


@pytest.mark.parametrize("name", ["ca__crt", "tls__crt", "tls__key"])
@pytest.mark.parametrize("space", ["\u00a0", "\u2028", "\u3000"])
def test_spaces_that_only_look_like_some_are_no_part_of_certificates_and_keys(pki, name, space):
    route = a_route(a_remote(tls=over_tls(ca="c", certificate="c")), away=30)
    pasted = {**pki, name: pki[name].replace("\n", f"{space}\n", 2)}

    (problem,) = words(served(route, a_secret("c").holding(**pasted)))

    assert "in PEM" in problem


def test_of_the_authorities_a_renewed_one_is_in_front_of_the_one_that_expires(pki):
    """Envoy takes the first of those with one name and one key, also if it has expired."""
    key = ec.generate_private_key(ec.SECP256R1())
    old, new = an_authority(key, 2020), an_authority(key, 2040)
    route = a_route(a_remote(tls=over_tls(ca="c", certificate="d")), away=30)
    leaf, *_ = pem.certificates(SecretStr(pki["tls__crt"])).get_secret_value().split("-----END")
    shown = a_secret("d").holding(tls__crt=pki["tls__crt"] + old + new, tls__key=pki["tls__key"])

    authorities, certificate = secrets_of(served(route, a_secret("c").holding(ca__crt=old + new), shown))

    assert authorities.validation_context.trusted_ca.inline_string == new + old
    # Of our own certificate the order is what it is.
    assert certificate.tls_certificate.certificate_chain.inline_string.startswith(leaf)
    assert certificate.tls_certificate.certificate_chain.inline_string.endswith(old + new)


def an_authority(key, until):
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1)
    builder = builder.not_valid_before(datetime(2019, 1, 1)).not_valid_after(datetime(until, 1, 1))
    certificate = builder.add_extension(x509.BasicConstraints(True, None), True).sign(key, hashes.SHA256())
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def test_what_stands_between_certificates_is_left_out(pki):
    empty = "-----BEGIN CERTIFICATE-----\n \n-----END CERTIFICATE-----\n"
    commented = f"# Authority of Köln\n{pki['ca__crt']}\n# the same again\n{empty}{pki['ca__crt']}"
    route = a_route(a_remote(tls=over_tls(ca="c")), away=30)

    (authorities,) = secrets_of(served(route, a_secret("c").holding(ca__crt=commented)))

    assert authorities.validation_context.trusted_ca.inline_string == pki["ca__crt"] * 2


def test_all_that_is_wrong_is_told_once():
    route = a_route(a_remote(tls=over_tls(ca="c", certificate="c"), auth=with_key()), away=30)
    assert words(served(route)) == ("Secret default/c does not exist", "Secret default/s does not exist")


def test_a_secret_of_another_namespace_is_not_looked_at():
    result = served(a_route(a_remote(auth=with_key())), a_secret().in_namespace("other").holding(apiKey=HUSH))
    assert words(result) == ("Secret default/s does not exist",)


def test_the_models_own_spec():
    route = a_route(a_remote(auth=with_token(CredentialSource(source="Spec"))))
    oauth = {"clientId": "me", "clientSecret": HUSH, "tokenUrl": "https://auth.example/token"}
    model = a_model().with_remote(authConfig={"type": "oauth", "oauthConfig": oauth})

    (credential,) = secrets_of(served(route, model))

    assert credential.generic_secret.secret.inline_string == HUSH
    assert reads_spec(route)
    assert "clientSecret is missing" in words(served(route, a_model()))[0]
    assert "clientSecret is missing" in words(served(route))[0]


def test_the_default_backend_of_the_configuration():
    route = a_route(a_remote(auth=with_token(CredentialSource(source="DefaultBackend"))))
    oauth = {"clientId": "me", "clientSecret": HUSH, "tokenUrl": "https://auth.example/token"}
    auth = {"type": "oauth", "oauthConfig": oauth}
    default = parse(DefaultRemoteBackend, {"host": "Remote.example", "authConfig": auth})
    own = ServerSecrets(default, KEY)

    (credential,) = secrets_of(served(route, own=own))

    assert credential.generic_secret.secret.inline_string == HUSH
    assert HUSH not in repr(own)
    assert "defaultRemoteBackend" in words(served(route))[0]
    assert not reads_spec(route)


@pytest.mark.parametrize("host", ["2001:db8::1", "2001:db8:0::1"], ids=["as it is written now", "as it was before"])
def test_an_address_of_the_default_backend_is_known_in_every_form(host):
    oauth = {"clientId": "me", "clientSecret": HUSH, "tokenUrl": "https://auth.example/token"}
    given = {"host": "[2001:DB8:0::1]", "authConfig": {"type": "oauth", "oauthConfig": oauth}}
    remote = a_remote(host, auth=with_token(CredentialSource(source="DefaultBackend")))
    result = served(a_route(remote), own=ServerSecrets(parse(DefaultRemoteBackend, given), KEY))
    assert words(result) == ()
    assert result.secrets


@pytest.mark.parametrize(
    "changes",
    [
        {"host": "other.example"},
        {"port": 81},
        {"tls": RemoteTls(server_name="remote.example")},
        {"auth": with_token(CredentialSource(source="DefaultBackend"), "https://other.example/token")},
    ],
    ids=str,
)
def test_the_credential_of_the_default_backend_is_sent_to_no_other_one(changes):
    """A status that says so was not written by the controller."""
    oauth = {"clientId": "me", "clientSecret": HUSH, "tokenUrl": "https://auth.example/token"}
    auth = {"type": "oauth", "oauthConfig": oauth}
    own = ServerSecrets(parse(DefaultRemoteBackend, {"host": "remote.example", "authConfig": auth}), KEY)
    remote = a_remote(auth=with_token(CredentialSource(source="DefaultBackend")))

    result = served(a_route(remote.model_copy(update=changes)), own=own)

    assert words(result) == ("the credential of defaultRemoteBackend is for its own host and token endpoint alone",)
    assert not result.route.remotes
    assert not result.secrets


def test_a_route_refers_to_secrets_of_its_own_namespace():
    remote = a_remote(tls=over_tls(ca="c", certificate="d"), auth=with_key())
    refs = {str(ref) for ref in referred_secrets(RouteKey.of_model("ml", "a"), a_route(remote))}
    assert refs == {"Secret ml/c", "Secret ml/d", "Secret ml/s"}
    assert referred_secrets(A, a_route(a_remote(auth=with_token(CredentialSource(source="Spec"))))) == frozenset()


def test_of_several_remote_backends_each_has_its_secrets_and_what_one_lacks_keeps_everything_local():
    first = a_remote(auth=with_key("s"), tls=over_tls(ca="c"))
    second = a_remote("b.example", name="remote-b", auth=with_key("t"))
    route = a_route_with(first, second, shares={"remote": 30, "remote-b": 20})
    assert {str(ref) for ref in referred_secrets(A, route)} == {
        "Secret default/c",
        "Secret default/s",
        "Secret default/t",
    }
    keys = a_secret("s").holding(apiKey=HUSH), a_secret("t").holding(apiKey="other")
    lacking = served(route, *keys)
    assert (lacking.route.remotes, lacking.secrets) == ((), ())
    assert words(lacking) == ("Secret default/c does not exist",)
    same_key = a_route_with(
        a_remote(auth=with_key()), second.model_copy(update={"auth": with_key()}), shares={"remote": 30}
    )
    result = served(same_key, *keys)
    assert (result.route, len(result.secrets)) == (same_key, 1)


def test_nothing_printed_of_it_holds_a_value():
    result = served(a_route(a_remote(auth=with_key())), a_secret().holding(apiKey=HUSH))
    assert HUSH not in repr(result)
    assert HUSH not in "".join(one.version for one in result.secrets)


OPT_IN = ServerSecrets(version_key=KEY, opt_in=True)
KEYED = a_route(a_remote("models.example", auth=with_key()), away=30)


@pytest.mark.parametrize("labels", [{}, {"beamlit.com/credential": "yes"}, {"beamlit.com": "true"}])
def test_in_a_cluster_a_secret_says_that_it_is_a_credential(labels):
    secret = a_secret().holding(apiKey=HUSH)
    assert served(KEYED, secret, own=OPT_IN).problems == ()
    unlike = secret.saying(labels, "metadata", "labels")
    (problem,) = served(KEYED, unlike, own=OPT_IN).problems
    absent = served(KEYED, own=OPT_IN).problems
    assert absent == (problem,), "who may not use it does not learn whether it is there"
    assert problem.reason == "SecretNotFound"
    assert problem.message.endswith("`kubectl -n default label secret s beamlit.com/credential=true`")
    # A folder is one user's.
    assert served(KEYED, unlike).problems == ()


def test_no_command_with_a_name_that_is_none():
    route = a_route(a_remote(auth=with_key("s; reboot")), away=30)
    (problem,) = served(route, own=OPT_IN).problems
    assert "kubectl" not in problem.message


@pytest.mark.parametrize(
    ("hosts", "is_served"),
    [
        ("models.example", True),
        ("other.example,MODELS.example. ,", True),
        ("*.example", True),
        ("*.models.example", False),
        ("other.example", False),
        ("", False),
        ("models.example.evil", False),
    ],
)
def test_a_secret_is_used_for_the_hosts_that_it_names(hosts, is_served):
    for own in (OPT_IN, None):
        problems = served(KEYED, a_secret().holding(apiKey=HUSH).for_hosts(hosts), own=own).problems
        assert (problems == ()) is is_served
        assert is_served or "may not be used with models.example" in problems[0].message


def test_hosts_may_be_addresses_and_what_is_none_of_both_is_said():
    route = a_route(a_remote("192.0.2.7", auth=with_key()), away=30)
    secret = a_secret().holding(apiKey=HUSH)
    assert served(route, secret.for_hosts("192.0.2.0/24")).problems == ()
    assert served(route, secret.for_hosts("192.0.3.0/24")).problems != ()
    (problem,) = served(route, secret.for_hosts("https://models.example/")).problems
    assert "its annotation beamlit.com/credential-hosts, between two commas, must be" in problem.message


def test_a_secret_names_so_many_hosts_and_no_more():
    """They are read each time that a route is looked at."""
    for count in (100, 101):
        many = a_secret().holding(apiKey=HUSH).for_hosts(", ".join(["models.example"] * count))
        words = [one.message for one in served(KEYED, many, own=OPT_IN).problems]
        said = f"Secret default/s: its annotation beamlit.com/credential-hosts names {count} hosts, and may name 100"
        assert words == ([said] if count > 100 else [])


def test_the_host_of_a_client_secret_is_that_of_its_token_endpoint():
    route = a_route(a_remote("models.example", auth=with_token()), away=30)
    secret = a_secret().holding(clientSecret=HUSH)
    assert served(route, secret.for_hosts("auth.example")).problems == ()
    assert served(route, secret.for_hosts("models.example")).problems != ()


def test_certificates_are_used_for_the_host_of_the_backend(pki):
    route = a_route(a_remote("models.example", tls=over_tls(ca="c", certificate="c")), away=30)
    secret = a_secret("c").holding(**pki)
    assert served(route, secret.for_hosts("models.example")).problems == ()
    assert served(route, secret.for_hosts("other.example")).problems != ()
