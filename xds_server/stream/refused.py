"""The list of clients that are refused, though their certificate or token is good: what there is of revocation.

gRPC for Python takes no certificate revocation lists, and neither cert-manager nor `beamlit certs` makes any.
"""

from __future__ import annotations

import re

from xds_server.stream.identity import ACCOUNT, is_account

_HEXADECIMAL = re.compile(r"[0-9A-Fa-f:]+")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_PREFIX = re.compile(r"sha256 fingerprint=", re.IGNORECASE)


def parse_refused(text: str) -> frozenset[str]:
    """Parse lines of a fingerprint or a name each; `#` begins a comment.

    A fingerprint is SHA-256, as `openssl x509 -noout -fingerprint -sha256` prints it. A name is a URI or DNS name of a
    certificate, or a ServiceAccount as `system:serviceaccount:NAMESPACE:NAME`. All are in lower case, as the marks of a
    caller are: who is refused is not let in by a capital letter. Raises ValueError with the line.
    """
    return frozenset(
        _mark(number, said) for number, line in enumerate(text.splitlines(), 1) if (said := _without_comment(line))
    )


def _without_comment(line: str) -> str:
    # A URI may have a # inside.
    return "" if line.lstrip().startswith("#") else line.partition(" #")[0].strip()


def _mark(number: int, said: str) -> str:
    bare = _PREFIX.sub("", said, count=1)
    if _HEXADECIMAL.fullmatch(bare):
        fingerprint = bare.replace(":", "").lower()
        if _FINGERPRINT.fullmatch(fingerprint):
            return fingerprint
    elif bare == said and said.isprintable() and " " not in said and any(one in said for one in ".:"):
        name = said.lower()
        if not name.startswith(ACCOUNT) or is_account(name):
            return name
    raise ValueError(f"line {number}: {said[:100]!r} is neither a SHA-256 fingerprint nor the name of a client")
