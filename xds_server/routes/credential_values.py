"""What the value of a credential must be. Each function returns it as it is used, or raises UnusableError."""

from __future__ import annotations

import re
import ssl

from pydantic import SecretStr

# What a header and RFC 6749 (appendix A) let through.
_PRINTABLE = re.compile(r"[ -~]+")
_CERTIFICATE = re.compile(
    r"-----BEGIN CERTIFICATE-----\s*[A-Za-z0-9+/][A-Za-z0-9+/=\s]*-----END CERTIFICATE-----", re.ASCII
)
_PRIVATE_KEY = re.compile(r"-----BEGIN ((?:RSA |EC )?PRIVATE KEY)-----[A-Za-z0-9+/=\s]+-----END \1-----", re.ASCII)


class UnusableError(Exception):
    """A credential is not there or cannot be one; the message says whose, and holds nothing of it."""


def text(value: SecretStr, name: str) -> SecretStr:
    """Take what can be sent in a header; an editor's line break at the end is no part of it."""
    taken = value.get_secret_value().rstrip("\r\n")
    if not taken.strip():
        raise UnusableError(f"{name} is empty")
    if not _PRINTABLE.fullmatch(taken):
        raise UnusableError(f"{name} has characters that are not printable ASCII")
    return SecretStr(taken)


def certificates(value: SecretStr, name: str) -> SecretStr:
    """Take certificates in PEM, one or more; what stands between them is left out."""
    return _written(_read(value, name)[0])


def authorities(value: SecretStr, name: str) -> SecretStr:
    """Take certificates of authorities, those that live longest in front.

    Of two with one name and one key, Envoy takes the first, also if it has expired: a list that has a renewed authority
    behind the old one would do until the old one expires, and not a second longer.
    """
    taken, context = _read(value, name)
    listed = zip(context.get_ca_certs(binary_form=True), context.get_ca_certs(), strict=True)
    ends = {der: _seconds(str(told["notAfter"])) for der, told in listed}
    # What is no authority, a server's own certificate for example, is not listed there; its place does not matter.
    return _written(sorted(taken, key=lambda pem: -ends.get(ssl.PEM_cert_to_DER_cert(pem), 0)))


def _read(value: SecretStr, name: str) -> tuple[list[str], ssl.SSLContext]:
    taken = _CERTIFICATE.findall(value.get_secret_value())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata="\n".join(taken))
    except (ssl.SSLError, ValueError):
        raise UnusableError(f"{name} is not a certificate in PEM") from None
    return taken, context


def _seconds(time: str) -> int:
    try:
        return ssl.cert_time_to_seconds(time)
    except ValueError:  # a certificate may have anything there
        return 0


def _written(taken: list[str]) -> SecretStr:
    return SecretStr("\n".join([*taken, ""]))


def private_key(value: SecretStr, name: str) -> SecretStr:
    """Take a private key in PEM. Whether it belongs to the certificate is for Envoy to say."""
    taken = _PRIVATE_KEY.search(value.get_secret_value())
    if taken is None:
        raise UnusableError(f"{name} is not a private key in PEM, without a passphrase")
    return SecretStr(f"{taken[0]}\n")
