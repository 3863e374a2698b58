"""What certificates and keys must be, and that a look at them is bounded whatever they hold."""

import ssl

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import SecretStr

from tests.support.called import called
from tests.support.keys import DSA_KEY, certificate_pem, key_pem, rsa_key, rsa_pem, signer, unusual_certificate_pem
from xds_server.resources import pem
from xds_server.resources.pem import PemError, PemMemory

CA = certificate_pem(signer().public_key())
GOOD = {
    "RSA with 3,482 bits": key_pem(rsa_key(1279, 2203)),
    "P-256": key_pem(signer()),
    "P-521": key_pem(ec.generate_private_key(ec.SECP521R1())),
    "Ed25519": key_pem(ed25519.Ed25519PrivateKey.generate()),
}
BAD = {
    "DSA": DSA_KEY,
    "RSA with 1,886 bits": key_pem(rsa_key(607, 1279)),
    "RSA with 4,484 bits": key_pem(rsa_key(2203, 2281)),
    "RSA with 8,656 bits": key_pem(rsa_key(4253, 4403)),
    "P-224": key_pem(ec.generate_private_key(ec.SECP224R1())),
}


def fault_of(check, *texts):
    with pytest.raises(PemError) as caught:
        check(*map(SecretStr, texts))
    return str(caught.value)


@pytest.mark.parametrize("key", GOOD.values(), ids=GOOD)
def test_a_key_that_envoy_takes_is_given_as_it_is(key):
    assert pem.private_key(SecretStr(f"# of mine\n{key}")).get_secret_value() == key


def without(breaks):
    """Leave line breaks of a PEM out: the first, the last, or all of them."""

    def write(text):
        head, *lines, tail = text.splitlines()
        match breaks:
            case "first":
                return "\n".join([head + lines[0], *lines[1:], tail])
            case "last":
                return "\n".join([head, *lines[:-1], lines[-1] + tail])
        return "".join([head, *lines, tail])

    return write


@pytest.mark.parametrize("breaks", ["first", "last", "all"])
def test_what_has_no_line_breaks_where_envoy_wants_them_is_written_anew(breaks):
    """OpenSSL and BoringSSL know the first and the last line of a PEM by nothing else being in it."""
    write = without(breaks)
    for text in (CA, unusual_certificate_pem(1)):
        for check in (pem.certificates, pem.authorities):
            written = check(SecretStr(write(text))).get_secret_value()
            assert written.split() == check(SecretStr(text)).get_secret_value().split()
            ssl.create_default_context(cadata=written)
    for key in GOOD.values():
        assert pem.private_key(SecretStr(write(key))).get_secret_value() == key


@pytest.mark.parametrize("key", [signer(), rsa_key(1279, 2203)], ids=["EC", "RSA"])
def test_a_key_of_the_older_form_is_written_in_the_one_of_all_algorithms(key):
    older = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
    assert pem.private_key(SecretStr(older)).get_secret_value() == key_pem(key)


@pytest.mark.parametrize("key", BAD.values(), ids=BAD)
def test_a_key_that_no_envoy_takes_or_that_costs_it_too_much_is_refused(key):
    assert fault_of(pem.private_key, key) == (
        "must be a private key of RSA with 2048 to 4096 bits, or of the curve P-256, P-384 or P-521, or Ed25519"
    )


def test_a_key_is_not_read_whose_algorithm_makes_reading_dear():
    """Whoever reads a key of DSA works its public number out, with the interpreter's lock: hours for a long one."""
    assert called(lambda: fault_of(pem.private_key, DSA_KEY))["load_pem_private_key"] == 0
    assert called(lambda: pem.private_key(SecretStr(GOOD["P-256"])))["load_pem_private_key"] == 1


def test_a_key_of_many_bits_is_not_calculated_with():
    """Division of numbers of any length takes seconds."""
    longer = rsa_pem(1279, 2203, longer=1_000_000)
    found = called(lambda: fault_of(pem.private_key, longer))
    assert (found["load_pem_private_key"], found["search"]) == (0, 0)
    assert fault_of(pem.private_key, longer) == f"has {len(longer):,} characters, and may have 16,384"
    many = called(lambda: fault_of(pem.private_key, BAD["RSA with 8,656 bits"]))
    assert many["private_numbers"] == 0
    assert called(lambda: pem.private_key(SecretStr(GOOD["RSA with 3,482 bits"])))["private_numbers"] == 1


def test_a_private_exponent_is_no_longer_than_the_key():
    """It says how long a handshake takes; Envoy refuses others."""
    assert pem.private_key(SecretStr(rsa_pem(1279, 2203)))
    words = "has numbers that are not those of one key of RSA"
    assert fault_of(pem.private_key, rsa_pem(1279, 2203, longer=20_000)) == words


@pytest.mark.parametrize(
    ("check", "text", "words"),
    [
        (pem.certificates, CA * 17, "has 17 certificates, and may have 16"),
        (pem.certificates, CA + " " * 65_536, f"has {len(CA) + 65_536:,} characters, and may have 65,536"),
        (pem.authorities, CA * 257, "has 257 certificates, and may have 256"),
        (pem.authorities, CA + " " * 262_144, f"has {len(CA) + 262_144:,} characters, and may have 262,144"),
        (pem.authorities, CA.replace("M", "A", 1), "is not a certificate in PEM"),
    ],
)
def test_certificates_have_bounds(check, text, words):
    reading = called(lambda: fault_of(check, text))
    assert fault_of(check, text) == words
    assert reading["load_pem_x509_certificate"] == ("may have" not in words)


def test_what_is_served_with_has_the_bounds_of_a_chain():
    key = key_pem(signer())
    assert pem.served_pair(SecretStr(CA * 16), SecretStr(key)).chain.get_secret_value() == CA * 16
    assert fault_of(pem.served_pair, CA * 17, key) == 'key "tls.crt" has 17 certificates, and may have 16'
    long = f"{CA}{' ' * 65_536}"
    assert fault_of(pem.served_pair, long, key).startswith(f'key "tls.crt" has {len(long):,} characters')


def test_certificates_that_only_some_can_read_are_taken_as_envoy_takes_them_and_they_are_few():
    """OpenSSL, which reads them, takes forty times as long."""
    few = "".join(unusual_certificate_pem(number + 1) for number in range(16))
    assert pem.authorities(SecretStr(CA + few)).get_secret_value().count("BEGIN") == 17
    many = few + unusual_certificate_pem(17)
    assert called(lambda: fault_of(pem.authorities, many))["load_verify_locations"] == 0
    assert fault_of(pem.authorities, many) == "has 17 certificates that are not as RFC 5280 has them"


def test_what_was_found_is_remembered_and_so_is_that_it_cannot_be_used():
    memory, looked = PemMemory(), []

    def check(value):
        looked.append(value.get_secret_value())
        return pem.private_key(value)

    for key in (GOOD["P-256"], DSA_KEY) * 3:
        try:
            assert memory.found(check, SecretStr(key)).get_secret_value() == key
        except PemError as fault:
            assert key == DSA_KEY, fault
    assert looked == [GOOD["P-256"], DSA_KEY]
    # Another use of the same text is another matter, and so is another division of the same texts.
    with pytest.raises(PemError):
        memory.found(pem.certificates, SecretStr(GOOD["P-256"]))
    assert memory.found(pem.served_pair, SecretStr(CA), SecretStr(GOOD["P-256"]))


def test_what_is_remembered_is_bounded_by_what_it_weighs():
    memory, looked = PemMemory(remembered=6_000), []

    def check(value):
        looked.append(len(value.get_secret_value()))
        return value

    for length in (1_000, 2_000, 1_000, 3_000, 1_000, 2_000):
        memory.found(check, SecretStr("x" * length))
    # The one of 2,000 was asked for longest ago when the one of 3,000 came.
    assert looked == [1_000, 2_000, 3_000, 2_000]
