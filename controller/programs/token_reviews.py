"""Whose a token is, as the API server of the cluster says it (TokenReview)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from controller.store.kube.client import KubeClient
from controller.store.protocol import ForbiddenError, StoreError
from xds_server.stream.callers import CannotTellError
from xds_server.stream.tokens import Review, Reviewed

logger = logging.getLogger(__name__)

AUDIENCE = "beamlit-xds"
"""What a token is made for that is shown to the xDS server, unless another is agreed on."""

_TOLD_EVERY = 10.0
"""Seconds: whoever comes with a new token asks again."""
_PATH = "/apis/authentication.k8s.io/v1/tokenreviews"
_POD = "authentication.kubernetes.io/pod-name"


def reviewed_by(client: KubeClient, audience: str) -> Review:
    """Return how to ask the API server that `client` talks to; only a token for this audience is anybody's."""
    told_until: dict[str, float] = {}

    def tell(level: int, message: str, error: StoreError) -> None:
        now = asyncio.get_running_loop().time()
        if now >= told_until.get(message, 0.0):
            told_until[message] = now + _TOLD_EVERY
            logger.log(level, message, extra={"because": str(error)})

    async def review(token: str) -> Reviewed | None:
        asked = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [audience]},
        }
        try:
            answer = await client.request("POST", _PATH, body=asked)
        except ForbiddenError as error:
            tell(logging.ERROR, "tokens cannot be looked at: bind the role for TokenReviews", error)
            raise CannotTellError("this server has no right to ask the API server whose token it is") from error
        except StoreError as error:
            tell(logging.WARNING, "tokens cannot be looked at", error)
            raise CannotTellError("the API server cannot be asked whose token it is") from error
        return _holder(answer.get("status") or {}, audience)

    return review


def _holder(status: Mapping[str, Any], audience: str) -> Reviewed | None:
    """Read the answer. One without our audience is that of a server that looked at none (TokenReviewStatus)."""
    user = status.get("user") or {}
    if status.get("authenticated") is not True or audience not in (status.get("audiences") or ()):
        return None
    pods = (user.get("extra") or {}).get(_POD) or [""]
    return Reviewed(str(user.get("username", "")), str(pods[0]))
