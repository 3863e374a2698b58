"""The token by which an xDS server knows an Envoy, from a file: a mounted Secret, say."""

from __future__ import annotations

from pathlib import Path


class NodeTokenError(Exception):
    """The file cannot be used; the message names it and the reason."""


def read_node_token(path: Path) -> str:
    """Read the token; white space around it does not count. Raises NodeTokenError."""
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise NodeTokenError(
            f"--node-token-file {path}: {getattr(error, 'strerror', None) or 'is not text'}"
        ) from error
    if not token:
        raise NodeTokenError(f"--node-token-file {path}: is empty")
    return token
