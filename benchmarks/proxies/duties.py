"""What an Envoy does with a request, seen from both of its ends: the same duties must look the same."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import NamedTuple

import httpx

from benchmarks.proxies.configs import FRONT_PORT
from benchmarks.proxies.envoys import CannotRunError

_ASKED = 40
"""Requests of one kind; at 50/50 one side gets none of them once in 10^12 times."""
_SETTLES_WITHIN = 15.0
_HEADERS = {
    "host": "client.example",
    "authorization": "Bearer client",
    "x-forwarded-for": "192.0.2.1",
    "x-request-id": "client",
    "x-added": "client",
    "x-envoy-spoofed": "spoofed",
    "x-beamlit-spoofed": "spoofed",
    "x-beamlit-route": "spoofed",
}


class Seen(NamedTuple):
    """One answer as the client saw it, and the request as the backend that gave it did (`x-seen...`)."""

    asked: str
    status: int
    body: str
    route: str
    request: tuple[tuple[str, str], ...]


async def wait_until_splitting(
    front: str,
    local: int,
    check: Callable[[], None],
    authorization: str | None = None,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Wait until a proxy answers, from each side that gets a share. Raises CannotRunError; `check` may, too."""
    sides = {side for side, share in (("local", local), ("remote", 100 - local)) if share}
    last: object = "no answer"
    try:
        async with asyncio.timeout(_SETTLES_WITHIN), _client(front, authorization, tls) as client:
            while last != (200, sides):
                check()
                try:
                    last = _summary([await client.get("/") for _ in range(_ASKED)])
                except httpx.HTTPError as error:
                    last = repr(error)
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise CannotRunError(f"{front} did not split {local}/{100 - local} in time: {last}") from None


async def duties(front: str, local: int) -> frozenset[Seen]:
    """Say what becomes of requests: plain ones, and ones that the side they are sent to fails.

    The latter only where one side gets all, and once: Envoy soon takes a replica that fails for an outlier.
    """
    paths = ["/seen/?a=b"] * _ASKED + {100: ["/fails-local"], 0: ["/fails-remote"]}.get(local, [])
    async with _client(front) as client:
        return frozenset([_seen(path, await client.get(path)) for path in paths])


def _client(front: str, authorization: str | None = None, tls: ssl.SSLContext | None = None) -> httpx.AsyncClient:
    headers = {**_HEADERS, **({"authorization": authorization} if authorization else {})}
    scheme = "https" if tls else "http"
    return httpx.AsyncClient(
        base_url=f"{scheme}://{front}:{FRONT_PORT}", headers=headers, timeout=5.0, verify=tls or True
    )


def _summary(answers: list[httpx.Response]) -> tuple[int, set[str]]:
    return max(answer.status_code for answer in answers), {answer.text for answer in answers}


def _seen(path: str, answer: httpx.Response) -> Seen:
    request = tuple(sorted((name, value) for name, value in answer.headers.items() if name.startswith("x-seen")))
    return Seen(path, answer.status_code, answer.text, answer.headers.get("x-beamlit-route", ""), request)
