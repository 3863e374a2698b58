"""Private keys and certificates that nobody should use: of DSA, with long numbers, written as few write them."""

from __future__ import annotations

import datetime
from base64 import encodebytes
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes, PrivateKeyTypes

# Its public number is not there: who reads it works it out. One with numbers of 40,000 bits takes hours.
DSA_KEY = """\
-----BEGIN PRIVATE KEY-----
MIIBTAIBADCCASwGByqGSM44BAEwggEfAoGBAP5dKlVFQKurC8CnuA6n9m5X/OtP
gnJspgcLYHUoQMgG0zQKhJzvLJGWhxoDxyO/DaydtCcNTfEo5dpVYPiUT6AJyZwG
3Yc7YHTb2MbF2HE4/toHLbsWqfAHojPjLNQgWl/QVlK5SLAxIC2Ub1zjomKWXmmH
TVCGTBdKV1PTD0iTAhUAr55wkY18L+a8Id5LTZjcus9Vbl8CgYEAsxGKGsePLXJ0
bCqTPqzgB79qzzoA9SdC45wn82um0PPuHeNXTzMCT8otI10Ne6u0yx8xS+Stkvwx
3yuasZbNLEEy1nIC8aIlOsE98czVn8veyskel7+1pLfvKtap0dHzna557QP0RnAG
kIbz07hw4gV6PsSEoPXarfCZDJ8t2/AEFwIVAKOkaaugaL225qypCYAQ4kjYm3HT
-----END PRIVATE KEY-----
"""


@cache
def signer() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def rsa_key(p: int, q: int) -> rsa.RSAPrivateKey:
    """Make a key of RSA of the primes 2**p - 1 and 2**q - 1."""
    n, p, q, d, *more = _numbers(p, q)
    numbers = rsa.RSAPrivateNumbers(p, q, d, *more, rsa.RSAPublicNumbers(65537, n))
    return numbers.private_key(unsafe_skip_rsa_key_validation=True)


def rsa_pem(p: int, q: int, *, longer: int = 0) -> str:
    """Write such a key (RFC 8017, appendix A.1.2), with a private exponent that has so many bits more."""
    n, p, q, d, *more = _numbers(p, q)
    numbers = (0, n, 65537, d + ((p - 1) * (q - 1) << longer if longer else 0), p, q, *more)
    body = encodebytes(_tagged(0x30, b"".join(_tagged(2, _signed(one)) for one in numbers))).decode()
    return f"-----BEGIN RSA PRIVATE KEY-----\n{body}-----END RSA PRIVATE KEY-----\n"


def _numbers(p: int, q: int) -> tuple[int, ...]:
    p, q = 2**p - 1, 2**q - 1
    d = pow(65537, -1, (p - 1) * (q - 1))
    return p * q, p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p)


def _signed(number: int) -> bytes:
    return number.to_bytes(number.bit_length() // 8 + 1, "big")


def _tagged(tag: int, content: bytes) -> bytes:
    length = len(content).to_bytes(3, "big").lstrip(b"\0") or b"\0"
    return bytes((tag, *(() if len(content) < 128 else (0x80 + len(length),)), *length)) + content


def key_pem(key: PrivateKeyTypes) -> str:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


def a_certificate(public: CertificatePublicKeyTypes, number: int = 1) -> x509.Certificate:
    """Make a certificate for a key, which also is an authority's. Who signed it is no matter."""
    name, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a")]), datetime.datetime(2026, 1, 1)
    built = x509.CertificateBuilder(name, name, public, number, now, now + datetime.timedelta(days=3650))
    built = built.add_extension(x509.BasicConstraints(True, None), critical=True)
    return built.sign(signer(), hashes.SHA256())


def certificate_pem(public: CertificatePublicKeyTypes, number: int = 1) -> str:
    return a_certificate(public, number).public_bytes(serialization.Encoding.PEM).decode()


def unusual_certificate_pem(number: int) -> str:
    """Make a certificate with another byte for "true" than DER has: OpenSSL and Envoy read it, and stricter ones do
    not."""
    der = a_certificate(signer().public_key(), number).public_bytes(serialization.Encoding.DER)
    basic = b"\x06\x03\x55\x1d\x13\x01\x01\xff"  # the extension's identifier, and that it is critical
    assert basic in der
    other = encodebytes(der.replace(basic, basic[:-1] + b"\x01")).decode()
    return f"-----BEGIN CERTIFICATE-----\n{other}-----END CERTIFICATE-----\n"
