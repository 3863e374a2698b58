"""Certificates and private keys in PEM: what they must be for Envoy to take them, and what a look at them may cost.

Whoever may write a Secret writes them, and they are looked at in the loop that serves everybody. So what a look costs
is bounded before it begins: by the length of the text, the number of certificates, and the algorithm of a key, which is
read before the key is. What was found is remembered, also that a text cannot be used (docs/adr/0088). Pure.
"""

from __future__ import annotations

import binascii
import hashlib
import re
import ssl
import warnings
from base64 import b64decode
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.utils import CryptographyDeprecationWarning
from pydantic import SecretStr

from xds_server.resources.secret import CertificatePair

_CERTIFICATE = re.compile(
    r"-----BEGIN CERTIFICATE-----\s*([A-Za-z0-9+/][A-Za-z0-9+/=\s]*)-----END CERTIFICATE-----", re.ASCII
)
_PRIVATE_KEY = re.compile(r"-----BEGIN ((?:RSA |EC )?PRIVATE KEY)-----([A-Za-z0-9+/=\s]+)-----END \1-----", re.ASCII)

# In characters. One key of RSA with 8,192 bits has 6,400; the authorities that browsers trust are 144, in 220,000.
_LONGEST_KEY = 16 * 1024
_LONGEST_CHAIN = 64 * 1024
_LONGEST_AUTHORITIES = 256 * 1024

LONGEST = _LONGEST_AUTHORITIES
"""The characters of the longest text that is looked at."""

_MOST_IN_CHAIN = 16
_MOST_AUTHORITIES = 256

# OpenSSL takes half a millisecond for each of these.
_MOST_UNUSUAL = 16

# Envoy refuses other curves, and RSA below. It takes up to 16,384 bits, and computes at each handshake: with 4,096 some
# milliseconds, and eight times as much with twice the bits. No worker of it stands still for that.
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_RSA_BITS = range(2048, 4097)
_RSA_EXPONENTS = range(3, 2**33, 2)
_SERVED = f"of RSA with {_RSA_BITS[0]} to {_RSA_BITS[-1]} bits, or of the curve P-256, P-384 or P-521"
_SHOWN = f"{_SERVED}, or Ed25519"

# The head of a key in PKCS #8 (RFC 5958) of RSA, of a curve, or of Ed25519: its version and the identifier of its
# algorithm. Of others, as of DSA, the public number is worked out as the key is read, which takes hours for a long one.
_LENGTH = rb"(?:[\x00-\x7f]|\x81.|\x82..)"
_PKCS8 = re.compile(
    rb"\x30" + _LENGTH + rb"\x02\x01[\x00\x01]\x30" + _LENGTH + rb"\x06"
    rb"(?:\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01|\x07\x2a\x86\x48\xce\x3d\x02\x01|\x03\x2b\x65\x70)",
    re.DOTALL,
)

# Of what is remembered, in characters: some thousands of pairs, or some tens of long lists of authorities.
_REMEMBERED = 16 * 1024 * 1024
_WEIGHT_OF_ONE = 512

Found = TypeVar("Found", SecretStr, CertificatePair)


class PemError(ValueError):
    """A text is not what it should be. The message goes on after what the text is called, and repeats none of it."""


class PemMemory:
    """Remembers what texts were found to be, or why they cannot be used: the last of them, by their digests.

    A route is translated with each change of it, and many may refer to one Secret.
    """

    def __init__(self, remembered: int = _REMEMBERED) -> None:
        self._most = remembered
        self._weight = 0
        self._found: OrderedDict[tuple[Callable[..., Any], bytes], tuple[object, int]] = OrderedDict()

    def found(self, check: Callable[..., Found], *texts: SecretStr) -> Found:
        """Return what a check finds that it looks at these texts with. Raises PemError."""
        digest = hashlib.sha256()
        for text in texts:
            digest.update(hashlib.sha256(text.get_secret_value().encode(errors="surrogatepass")).digest())
        key = check, digest.digest()
        if key in self._found:
            self._found.move_to_end(key)
        else:
            self._remember(key, *_outcome(check, *texts))
        found = self._found[key][0]
        if isinstance(found, str):
            raise PemError(found)
        return cast("Found", found)

    def _remember(self, key: tuple[Callable[..., Any], bytes], found: object, weight: int) -> None:
        self._found[key] = found, weight
        self._weight += weight
        while self._weight > self._most and len(self._found) > 1:
            self._weight -= self._found.popitem(last=False)[1][1]


def _outcome(check: Callable[..., Found], *texts: SecretStr) -> tuple[Found | str, int]:
    """Return what a check finds, or in words why the texts cannot be used, and how much it is to remember."""
    try:
        return check(*texts), _WEIGHT_OF_ONE + sum(len(text.get_secret_value()) for text in texts)
    except PemError as fault:
        return str(fault), _WEIGHT_OF_ONE


def certificates(value: SecretStr) -> SecretStr:
    """Check a chain of certificates, one or more; what stands between them is left out."""
    pems = _pems_in(value, _LONGEST_CHAIN, _MOST_IN_CHAIN)
    _ends_of(pems)
    return _joined(pems)


def authorities(value: SecretStr) -> SecretStr:
    """Check certificates of authorities, and put those that live longest in front.

    Of two with one name and one key, Envoy takes the first, also if it has expired: a list that has a renewed authority
    behind the old one would do until the old one expires, and not a second longer.
    """
    pems = _pems_in(value, _LONGEST_AUTHORITIES, _MOST_AUTHORITIES)
    ends = _ends_of(pems)
    return _joined(sorted(pems, key=lambda pem: -ends[pem]))


def private_key(value: SecretStr) -> SecretStr:
    """Check a private key. Whether it belongs to the certificate is for Envoy to say."""
    return _written(_read_key(value))


def served_pair(chain: SecretStr, key: SecretStr) -> CertificatePair:
    """Check what is served with: a chain of certificates, and the private key of the first."""
    _bounded(chain, _LONGEST_CHAIN, 'key "tls.crt" ')
    try:
        with warnings.catch_warnings(action="ignore", category=CryptographyDeprecationWarning):
            found = x509.load_pem_x509_certificates(chain.get_secret_value().encode())
        public, ends = found[0].public_key(), found[0].not_valid_after_utc
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
        raise PemError('key "tls.crt" is not a certificate in PEM') from None
    if len(found) > _MOST_IN_CHAIN:
        raise PemError(f'key "tls.crt" has {len(found)} certificates, and may have {_MOST_IN_CHAIN}')
    try:
        own = _read_key(key)
    except PemError as fault:
        raise PemError(f'key "tls.key" {fault}') from None
    if _bytes_of(own.public_key()) != _bytes_of(public):
        raise PemError('key "tls.key" is not the private key of the first certificate in "tls.crt"')
    # One that is written in another way, as of RSASSA-PSS or with a curve that is spelled out, Envoy does not read.
    if isinstance(own, ed25519.Ed25519PrivateKey) or _bytes_of(public) not in found[0].tbs_certificate_bytes:
        raise PemError(f"its key must be {_SERVED}")
    text = b"".join(one.public_bytes(Encoding.PEM) for one in found).decode()
    return CertificatePair(SecretStr(text), _written(own), ends)


def _bounded(value: SecretStr, longest: int, what: str = "") -> str:
    text = value.get_secret_value()
    if len(text) > longest:
        raise PemError(f"{what}has {len(text):,} characters, and may have {longest:,}")
    return text


def _pems_in(value: SecretStr, longest: int, most: int) -> list[str]:
    """Return the certificates in a text, written anew: Envoy reads none that shares a line with its first or last."""
    contents = _CERTIFICATE.findall(_bounded(value, longest))
    if not contents:
        raise PemError("is not a certificate in PEM")
    if len(contents) > most:
        raise PemError(f"has {len(contents)} certificates, and may have {most}")
    try:
        ders = [b64decode("".join(one.split()), validate=True) for one in contents]
    except binascii.Error:
        raise PemError("is not a certificate in PEM") from None
    return [ssl.DER_cert_to_PEM_cert(der).strip() for der in ders]


def _ends_of(pems: Iterable[str]) -> dict[str, float]:
    """Read certificates: when each of them ends, in seconds since 1970; 0 where that does not matter.

    OpenSSL takes forty times as long, and reads what Envoy does and the other reader does not.
    """
    ends, unusual = dict.fromkeys(pems, 0.0), []
    # Authorities that everybody trusts have numbers that a later version will refuse.
    with warnings.catch_warnings(action="ignore", category=CryptographyDeprecationWarning):
        for pem in ends:
            try:
                ends[pem] = x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc.timestamp()
            except (ValueError, x509.InvalidVersion):
                unusual.append(pem)
    if len(unusual) > _MOST_UNUSUAL:
        raise PemError(f"has {len(unusual)} certificates that are not as RFC 5280 has them")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if unusual:
            context.load_verify_locations(cadata="\n".join(unusual))
    except (ssl.SSLError, ValueError):
        raise PemError("is not a certificate in PEM") from None
    # What is no authority, a server's own certificate for example, is not listed there; its place does not matter.
    listed = zip(context.get_ca_certs(binary_form=True), context.get_ca_certs(), strict=True)
    by_content = {der: _seconds(str(fields["notAfter"])) for der, fields in listed}
    return ends | {pem: by_content.get(ssl.PEM_cert_to_DER_cert(pem), 0) for pem in unusual}


def _seconds(time: str) -> int:
    try:
        return ssl.cert_time_to_seconds(time)
    except ValueError:  # a certificate may have anything there
        return 0


def _joined(pems: Iterable[str]) -> SecretStr:
    return SecretStr("\n".join([*pems, ""]))


_PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def _read_key(value: SecretStr) -> _PrivateKey:
    """Read a private key in a text. Raises PemError."""
    found = _PRIVATE_KEY.search(_bounded(value, _LONGEST_KEY))
    try:
        if found is None:
            raise ValueError
        if found[1] == "PRIVATE KEY" and not _PKCS8.match(b64decode("".join(found[2].split()), validate=True)):
            raise PemError(f"must be a private key {_SHOWN}")
        # Whether a number is prime takes seconds to say, and Envoy does not ask.
        own = load_pem_private_key(found[0].encode(), None, unsafe_skip_rsa_key_validation=True)
    except PemError:
        raise
    except (binascii.Error, ValueError, TypeError, UnsupportedAlgorithm):
        raise PemError("is not a private key in PEM, without a passphrase") from None
    match own:
        case rsa.RSAPrivateKey() if own.key_size in _RSA_BITS:
            if not _belongs_together(own):
                raise PemError("has numbers that are not those of one key of RSA")
        case ec.EllipticCurvePrivateKey() if own.curve.name in _CURVES:
            pass
        case ed25519.Ed25519PrivateKey():
            pass
        case _:
            raise PemError(f"must be a private key {_SHOWN}")
    return own


def _written(key: _PrivateKey) -> SecretStr:
    return SecretStr(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())


def _belongs_together(key: rsa.RSAPrivateKey) -> bool:
    """Tell whether the numbers of a key of RSA are those of one key (RFC 8017, section 3.2), as Envoy asks."""
    whole = key.private_numbers()
    p, q, d, n, e = whole.p, whole.q, whole.d, whole.public_numbers.n, whole.public_numbers.e
    return (
        e in _RSA_EXPONENTS
        and min(p, q) > 1
        and max(p, q, d) < n
        and p * q == n
        and all(d * e % (prime - 1) == 1 for prime in (p, q))
        and (whole.dmp1, whole.dmq1) == (d % (p - 1), d % (q - 1))
        and whole.iqmp < p
        and whole.iqmp * q % p == 1
    )


def _bytes_of(key: Any) -> bytes:
    written: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return written
