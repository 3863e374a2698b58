"""Waiting until a process answers."""

from __future__ import annotations

import asyncio
import ssl

import aiohttp

from tests.support.processes import Child


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


async def wait_for_answer(
    url: str,
    process: Child,
    *,
    tls: ssl.SSLContext | None = None,
    server_name: str | None = None,
    within: float = 60.0,
) -> None:
    """Wait until a GET of `url` has 200; `tls` is what an https server is verified by, for the name `server_name`.

    Raises ProcessEndedError when its process ends, DemoError when `within` seconds have passed.
    """
    try:
        async with (
            asyncio.timeout(within),
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5.0)) as session,
        ):
            while not await _answers(session, url, tls, server_name):
                process.check()
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise DemoError(f"{process.name}: no answer at {url} in {within:.0f} s\n{process.last_words()}") from None


async def _answers(
    session: aiohttp.ClientSession, url: str, tls: ssl.SSLContext | None, server_name: str | None
) -> bool:
    try:
        async with session.get(url, ssl=tls or True, server_hostname=server_name) as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False
