"""Models whose remote backend wants a credential, and what of it arrives there."""

from __future__ import annotations

import secrets
from typing import Any

from tests.support.data_plane.backends import Backend
from tests.support.data_plane.protected import Tokens
from tests.support.kube.site import Site, model
from tests.support.objects import AModel


def with_key(name: str, remote: Backend, secret: str, **ref: str) -> AModel:
    """A model whose remote backend is sent a key from a Secret."""
    auth = {"type": "apiKey", "apiKey": {"secretRef": {"name": secret, **ref}, "header": "x-key"}}
    return model(name).with_remote(f"{remote.host}:{remote.port}", authConfig=auth)


def with_token(name: str, remote: Backend, tokens: Tokens, **client_secret: Any) -> AModel:
    """A model whose remote backend is sent a token."""
    oauth = {"clientId": "me", "tokenUrl": tokens.url, **client_secret}
    auth = {"type": "oauth", "oauthConfig": oauth}
    return model(name).with_remote(f"{remote.host}:{remote.port}", authConfig=auth)


async def sent(site: Site, port: int, remote: Backend, header: str) -> list[str]:
    """Send one request; return what the remote backend got in a header of it, and nothing if it got none."""
    probe = secrets.token_hex(8)
    reply = await site.ask(port, probe=probe)
    assert reply.error == ""
    return [value for one in remote.seen(probe) for name, value in one["headers"] if name == header]
