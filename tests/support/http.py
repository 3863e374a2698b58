"""A client of plain HTTP."""

from __future__ import annotations

from typing import Any

import httpx


def plain_http(**options: Any) -> httpx.AsyncClient:
    """Return a client that speaks no TLS and asks no proxy.

    By itself httpx reads every authority of the system for each client: 30 ms of CPU, which whoever polls pays fifty
    times a second. And by itself it waits for five seconds, which a busy machine takes.
    """
    options.setdefault("timeout", 60)
    return httpx.AsyncClient(trust_env=False, verify=False, **options)
