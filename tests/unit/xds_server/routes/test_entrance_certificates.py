"""Which certificates and authorities an entrance is served with: those that every Envoy takes."""

import subprocess
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from controller.api.contract.entrance import ClientValidation, EntranceTls
from tests.support.entrance import a_serving_secret
from tests.support.resources import message_of
from tests.unit.xds_server.routes.test_entrance import CERT, NOW, TLS, key_pem, resolved, words


@pytest.mark.parametrize("key", [rsa.generate_private_key(65537, 1024), ed25519.Ed25519PrivateKey.generate()])
def test_keys_that_no_envoy_serves_with_are_refused(key):
    """Envoy would refuse the secret. Who has signed the certificate is no matter here."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a.default")])
    built = x509.CertificateBuilder(name, name, key.public_key(), 1, NOW, NOW + timedelta(days=1))
    signed = built.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    chain = signed.public_bytes(serialization.Encoding.PEM).decode()
    ((reason, text),) = words(resolved(TLS, CERT.holding(tls__crt=chain, tls__key=key_pem(key))))
    assert (reason, "of RSA with 2048 to 4096 bits, or of the curve P-256, P-384 or P-521" in text) == (
        "CertificateNotUsable",
        True,
    )


def test_a_certificate_that_no_envoy_reads_is_refused(tmp_path):
    """Its key is of RSA and strong, but says that it is for RSASSA-PSS alone."""
    key, chain = tmp_path / "key", tmp_path / "chain"
    for asked in (
        f"genpkey -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048 -out {key}",
        f"req -x509 -new -key {key} -subj /CN=a.default -out {chain}",
    ):
        subprocess.run(["openssl", *asked.split()], check=True, capture_output=True)
    entrance = resolved(TLS, CERT.holding(tls__crt=chain.read_text(), tls__key=key.read_text()))
    assert [reason for reason, _ in words(entrance)] == ["CertificateNotUsable"]


def test_a_key_whose_numbers_are_not_those_of_one_key_is_refused():
    """Envoy would refuse the secret. It has the number that is asked for first, which the certificate has, too."""
    numbers = rsa.generate_private_key(65537, 2048).private_numbers()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a.default")])
    public = numbers.public_numbers.public_key()
    built = x509.CertificateBuilder(name, name, public, 1, NOW, NOW + timedelta(days=1))
    chain = built.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    held = {"tls__crt": chain.public_bytes(serialization.Encoding.PEM).decode()}
    parts = {name: getattr(numbers, name) for name in ("p", "q", "d", "dmp1", "dmq1", "iqmp")}
    for changed in ({}, *({name: parts[name] + 2} for name in ("d", "dmp1", "dmq1", "iqmp"))):
        whole = rsa.RSAPrivateNumbers(**{**parts, **changed}, public_numbers=numbers.public_numbers)
        pem = key_pem(whole.private_key(unsafe_skip_rsa_key_validation=True))
        assert resolved(TLS, CERT.holding(**held, tls__key=pem)).is_closed == bool(changed), changed


def test_authorities_that_live_longest_are_in_front_whichever_secret_has_them():
    """Of two with one name and one key, Envoy takes the first, also if it has expired."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")])
    ca = x509.BasicConstraints(ca=True, path_length=None)
    old, new = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, NOW - timedelta(days=9), NOW + timedelta(days=days))
        .add_extension(ca, critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        .decode()
        for days in (1, 99)
    )
    both = ClientValidation(authorities=("old", "new"))
    route = TLS.model_copy(update={"tls": EntranceTls(certificates=("cert",), client_validation=both)})
    held = (a_serving_secret("old").holding(ca__crt=old), a_serving_secret("new").holding(ca__crt=new))
    trusted = message_of(resolved(route, CERT, *held).secrets[1]).validation_context.trusted_ca.inline_string
    assert trusted.split() == f"{new}{old}".split()
