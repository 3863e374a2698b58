"""The name of an installation: that by which its gateways know a request that one of them sent out before.

It is one name for all Envoys of a gateway, and another one for every other gateway, so that two of them may stand
behind each other (docs/adr/0026). It is no secret: remote backends see it in `CDN-Loop`.
"""

from __future__ import annotations

import hashlib
import re

# Of RFC 8586, section 2, a cdn-id that is a token, in characters that need no escape anywhere.
NAME = r"[A-Za-z0-9.-]{1,63}"


def check_installation(name: str) -> str:
    """Return a name that can be written into `CDN-Loop`. Raises ValueError."""
    if not re.fullmatch(NAME, name):
        raise ValueError(f"must be 1 to 63 letters, digits, '-' and '.', is {name!r}")
    return name


def installation_of(*distinct: str) -> str:
    """Make a name from what tells one installation from another: the same in each of its processes.

    Nothing of it can be read back from the name, if it is not guessed.
    """
    digest = hashlib.blake2b("\0".join(distinct).encode(), digest_size=8, person=b"installation")
    return f"beamlit-{digest.hexdigest()}"
