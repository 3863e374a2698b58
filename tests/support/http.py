"""Clients of plain HTTP."""

from __future__ import annotations

import functools
import ssl
from typing import Any

import httpx


def plain_http(**options: Any) -> httpx.AsyncClient:
    """Return a client that speaks no TLS and asks no proxy.

    By itself httpx reads every authority of the system for each client: 30 ms of CPU, which whoever polls pays fifty
    times a second. And by itself it waits for five seconds, which a busy machine takes.
    """
    return httpx.AsyncClient(**_plain() | options)


def plain_http_now(**options: Any) -> httpx.Client:
    """Return one like `plain_http` that blocks."""
    return httpx.Client(**_plain() | options)


@functools.cache
def _plain() -> dict[str, Any]:
    # One context for all clients, which none of them uses: httpx makes one for each, and it costs as much as a request.
    return {"trust_env": False, "verify": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), "timeout": 60}
