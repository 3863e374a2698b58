"""What checks of remote backends speak TLS with: whom they trust, and what they show. Made once for all who want it.

To read authorities takes tens of milliseconds, which a thread takes without the interpreter's lock: checks and streams
go on meanwhile.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pydantic import SecretStr

from xds_server.health import outcome
from xds_server.health.backend import Trust
from xds_server.health.outcome import CheckError

# With the system's authorities one has 0.8 MB, with the longest list twice as much.
_KEPT = 64

# The error that makes it of no use, made anew for each who is told.
_Made = ssl.SSLContext | Callable[[], CheckError]


class TlsContexts:
    """Makes contexts, and keeps those that were used last.

    What is shown and what is accepted is as in `resources.remote_backend`. Trust in another server name is the same.
    """

    def __init__(self, kept: int = _KEPT) -> None:
        self._most = kept
        self._made: OrderedDict[bytes, asyncio.Future[_Made]] = OrderedDict()

    async def context_for(self, trust: Trust) -> ssl.SSLContext:
        """Return the context of a trust. Raises CheckError if a text in it cannot be used."""
        key = _digest(trust.authorities, trust.client_certificate)
        made = self._made.pop(key, None)
        if made is None or (made.done() and (made.cancelled() or made.exception())):
            # One that could not be made for want of memory or of files is made by the next who asks.
            made = asyncio.ensure_future(asyncio.to_thread(_context, trust.authorities, trust.client_certificate))
        self._made[key] = made
        if len(self._made) > self._most:
            self._made.popitem(last=False)
        context = await asyncio.shield(made)
        if not isinstance(context, ssl.SSLContext):
            raise context()
        return context


def _digest(*texts: SecretStr | None) -> bytes:
    parts = (hashlib.sha256(text.get_secret_value().encode()).digest() if text else b"" for text in texts)
    return b"/".join(parts)


def _context(authorities: SecretStr | None, client_certificate: SecretStr | None) -> _Made:
    """Make a context; an error if what would be shown, or would be trusted, cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Envoy takes an intermediate authority for one when it is given it, and looks at no common name.
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    context.hostname_checks_common_name = False
    context.set_alpn_protocols(["http/1.1"])
    if client_certificate:
        with _file_of(client_certificate) as path:
            try:
                context.load_cert_chain(path, password="")
            except ssl.SSLError:
                return outcome.own_certificate_unusable
    if authorities:
        # Of a text in memory the module reads certificates without letting other threads go on.
        with _file_of(authorities) as path:
            try:
                context.load_verify_locations(path)
            except ssl.SSLError:
                return outcome.authorities_unusable
    else:
        context.load_default_certs()
    return context


@contextmanager
def _file_of(text: SecretStr) -> Iterator[str]:
    """Give a text to who reads files alone; this one is in memory and has no name."""
    with os.fdopen(os.memfd_create("pem"), "wb", buffering=0) as file:
        file.write(text.get_secret_value().encode())
        yield f"/proc/self/fd/{file.fileno()}"
