"""Who is let in, for tests: certificates of servers and of clients, Secrets that hold them, and tokens."""

from __future__ import annotations

import json
import ssl
import time
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509 import load_pem_x509_certificate
from pydantic import SecretStr

from controller.api.contract.credentials import CREDENTIAL, SERVING
from controller.api.contract.entrance import JwtProvider
from tests.support.objects import ASecret, a_secret
from xds_server.resources.secret import CertificatePair


def pem_of(leaf: trustme.LeafCert) -> tuple[str, str]:
    """Give the chain and the private key of a certificate, in PEM."""
    chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
    return chain.decode(), leaf.private_key_pem.bytes().decode()


def a_pair(authority: trustme.CA, *names: str) -> CertificatePair:
    """Issue a certificate for these names."""
    chain, key = pem_of(authority.issue_cert(*names))
    return CertificatePair(
        SecretStr(chain), SecretStr(key), load_pem_x509_certificate(chain.encode()).not_valid_after_utc
    )


def authorities_of(*authorities: trustme.CA) -> str:
    """Give the certificates of authorities, in PEM."""
    return b"".join(one.cert_pem.bytes() for one in authorities).decode()


def a_serving_secret(name: str = "cert", **held: str) -> ASecret:
    """A Secret that may be served with: `tls__crt` and `tls__key`, or `ca__crt`."""
    kind = "kubernetes.io/tls" if "tls__crt" in held else "Opaque"
    labelled = a_secret(name).holding(**held).saying({CREDENTIAL: SERVING}, "metadata", "labels")
    return labelled.saying(kind, "type")


@dataclass
class Trust:
    """What a client trusts and shows, and which versions of TLS it speaks."""

    authority: trustme.CA
    folder: Path
    shown: trustme.LeafCert | None = None
    highest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    alpn: tuple[str, ...] = ("http/1.1",)

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=authorities_of(self.authority))
        context.maximum_version = self.highest
        context.set_alpn_protocols(list(self.alpn))
        if self.shown:
            file = self.folder / f"client-{id(self.shown)}.pem"
            self.shown.private_key_and_cert_chain_pem.write_to_path(str(file))
            context.load_cert_chain(file)
        return context


@dataclass
class TokenIssuer:
    """Somebody who issues tokens (RFC 7519), signed with ES256."""

    issuer: str = "https://issuer.test"
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    @property
    def jwks(self) -> str:
        numbers = self.key.public_key().public_numbers()
        x, y = (_encoded(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))
        return json.dumps({"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "1", "x": x, "y": y}]})

    def provider(self, name: str = "main", audience: str = "chat") -> JwtProvider:
        return JwtProvider(name=name, issuer=self.issuer, audiences=(audience,), jwks=self.jwks)

    def token(self, **claims: Any) -> str:
        """Issue a token for the audience `chat` that holds for an hour; a claim that is None is left out."""
        all_claims = {"iss": self.issuer, "aud": "chat", "sub": "somebody", "exp": int(time.time()) + 3600, **claims}
        kept = {name: value for name, value in all_claims.items() if value is not None}
        signed = f"{_part({'alg': 'ES256', 'typ': 'JWT', 'kid': '1'})}.{_part(kept)}"
        r, s = decode_dss_signature(self.key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_encoded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def unsigned_token(self) -> str:
        """Forge a token that says of itself that it needs no signature."""
        claims = {"iss": self.issuer, "aud": "chat", "exp": int(time.time()) + 3600}
        return f"{_part({'alg': 'none', 'typ': 'JWT'})}.{_part(claims)}."


def _part(value: dict[str, Any]) -> str:
    return _encoded(json.dumps(value).encode())


def _encoded(value: bytes) -> str:
    return urlsafe_b64encode(value).rstrip(b"=").decode()
