"""Clients of plain HTTP."""

from __future__ import annotations

from typing import Any

import httpx

_PLAIN: dict[str, Any] = {"trust_env": False, "verify": False, "timeout": 60}


def plain_http(**options: Any) -> httpx.AsyncClient:
    """Return a client that speaks no TLS and asks no proxy.

    By itself httpx reads every authority of the system for each client: 30 ms of CPU, which whoever polls pays fifty
    times a second. And by itself it waits for five seconds, which a busy machine takes.
    """
    return httpx.AsyncClient(**_PLAIN | options)


def plain_http_now(**options: Any) -> httpx.Client:
    """Return one like `plain_http` that blocks."""
    return httpx.Client(**_PLAIN | options)
