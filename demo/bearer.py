"""Bearer tokens that end: a moment and its HMAC, which whoever has the key can check. Pure.

So the server that gives tokens out and the one that asks for them need not speak with each other, as with a JWT.
"""

from __future__ import annotations

import hashlib
import hmac


def token_until(end: float, key: bytes) -> str:
    """Return a token that is good until `end`, in seconds of the Unix epoch."""
    moment = f"{end:.0f}"
    return f"{moment}.{hmac.new(key, moment.encode(), hashlib.sha256).hexdigest()}"


def is_good(authorization: str, key: bytes, now: float) -> bool:
    """Tell whether an `Authorization` header carries a token that was given out with this key and has not ended."""
    scheme, _, token = authorization.partition(" ")
    moment = token.partition(".")[0]
    if scheme.lower() != "bearer" or not moment.isascii() or not moment.isdigit():
        return False
    return hmac.compare_digest(token.encode(), token_until(float(moment), key).encode()) and now < float(moment)
