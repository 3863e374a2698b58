"""The public keys of tokens (JWKS, RFC 7517), as Envoy is given them: written anew, with nothing that it might refuse.

Envoy reads them with the listener that they stand in. On the port that all models share, a text that it cannot read
would keep every other model's change from it.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

_MOST_KEYS = 16

# Members that are private (RFC 7518, sections 6.2.2, 6.3.2 and 6.4.1; RFC 8037, section 2).
_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})

# The length of a coordinate in bits (RFC 7518, section 6.2.1.2), and the one algorithm of each (section 3.4).
_CURVES: Mapping[str, tuple[ec.EllipticCurve, int, str]] = {
    "P-256": (ec.SECP256R1(), 256, "ES256"),
    "P-384": (ec.SECP384R1(), 384, "ES384"),
    "P-521": (ec.SECP521R1(), 521, "ES512"),
}
_OF_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")

# At least: RFC 7518, section 3.3. At most: what BoringSSL takes, as of the exponent.
_RSA_BITS = range(2048, 8193)
_RSA_EXPONENTS = range(3, 2**33)


class JwksError(ValueError):
    """A text holds no keys that tokens can be known by. The message repeats none of it: it may be private."""


@lru_cache(256)
def public_keys(text: str) -> str:
    """Write a set of public keys anew: of each what a signature is verified with, and of those for that alone.

    Raises JwksError.
    """
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        raise JwksError("is no JSON") from None
    keys = given.get("keys") if isinstance(given, dict) else None
    if not isinstance(keys, list) or not 1 <= len(keys) <= _MOST_KEYS:
        raise JwksError(f"must be an object with a list `keys` of 1 to {_MOST_KEYS} keys (RFC 7517)")
    found = [key for index, one in enumerate(keys) for key in _verifying(one, f"keys[{index}]")]
    if not found:
        raise JwksError("has no key for signatures (`use`, `alg`)")
    return json.dumps({"keys": found})


def _verifying(one: Any, where: str) -> Iterator[dict[str, str]]:
    """Give the key if it is one that verifies signatures by an algorithm that Envoy knows. Raises JwksError."""
    if not isinstance(one, dict) or not isinstance(one.get("kty"), str):
        raise JwksError(f"has no `kty` in {where}")
    if not _PRIVATE_MEMBERS.isdisjoint(one):
        raise JwksError(f"has a private key in {where}: everybody who may read this object can read it. Leave it out")
    told = {name: one[name] for name in ("kid", "alg", "use") if one.get(name) is not None}
    if not all(isinstance(value, str) and value.isprintable() for value in told.values()):
        raise JwksError(f"must have text as `kid`, `alg` and `use` in {where}")
    # Issuers list keys that are for something else, too, such as encryption.
    if told.pop("use", "sig") != "sig":
        return
    try:
        members, algorithms = _public_key(one)
    except (KeyError, TypeError, ValueError, UnsupportedAlgorithm):
        words = f"of RSA with {_RSA_BITS[0]} to {_RSA_BITS[-1]} bits, of the curve P-256, P-384 or P-521, or Ed25519"
        raise JwksError(f"must have in {where} a public key, whole: {words}") from None
    if told.get("alg", algorithms[0]) in algorithms:
        yield {"kty": one["kty"], **told, **members}


def _public_key(one: Mapping[str, Any]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return what makes a key, and its algorithms. Raises KeyError, TypeError, ValueError and UnsupportedAlgorithm."""
    match one["kty"]:
        case "RSA":
            n, e = _number(one["n"]), _number(one["e"])
            if n.bit_length() not in _RSA_BITS or e not in _RSA_EXPONENTS:
                raise ValueError
            rsa.RSAPublicNumbers(e, n).public_key()
            return {"n": _written(n, n.bit_length()), "e": _written(e, e.bit_length())}, _OF_RSA
        case "EC":
            curve, bits, algorithm = _CURVES[one["crv"]]
            x, y = _number(one["x"]), _number(one["y"])
            ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
            return {"crv": one["crv"], "x": _written(x, bits), "y": _written(y, bits)}, (algorithm,)
        case "OKP" if one["crv"] == "Ed25519":
            raw = _decoded(one["x"])
            ed25519.Ed25519PublicKey.from_public_bytes(raw)
            return {"crv": "Ed25519", "x": _encoded(raw)}, ("EdDSA",)
    raise ValueError


def _decoded(text: Any) -> bytes:
    if not isinstance(text, str):
        raise TypeError
    bare = text.rstrip("=")
    return urlsafe_b64decode(bare + "=" * (-len(bare) % 4))


def _number(text: Any) -> int:
    return int.from_bytes(_decoded(text), "big")


def _written(number: int, bits: int) -> str:
    return _encoded(number.to_bytes((bits + 7) // 8, "big"))


def _encoded(value: bytes) -> str:
    return urlsafe_b64encode(value).rstrip(b"=").decode()
