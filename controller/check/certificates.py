"""The certificate that a server shows to whoever connects. It is looked at, and not believed."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509

_WITHIN = 3.0


@dataclass(frozen=True, slots=True)
class Shown:
    """A certificate that a server at an address showed: until when it holds, and for how long it was made."""

    address: str
    port: int
    until: datetime
    life: timedelta = timedelta(days=90)


async def certificate_shown(address: str, port: int) -> Shown | str:
    """Connect and look at the certificate; say why not if there is none to be seen.

    A server that wants to see one of ours says so after it has shown its own.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        async with asyncio.timeout(_WITHIN):
            _, writer = await asyncio.open_connection(address, port, ssl=context)
    except TimeoutError:
        return f"{address}:{port} gives no answer within {_WITHIN:.0f} s"
    except OSError as error:
        return f"{address}:{port}: {error.strerror or error}"
    try:
        encoded = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        read = x509.load_der_x509_certificate(encoded)
    except (ValueError, TypeError, AttributeError) as error:
        return f"{address}:{port} shows no certificate that can be read ({type(error).__name__})"
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await writer.wait_closed()
    return Shown(address, port, read.not_valid_after_utc, read.not_valid_after_utc - read.not_valid_before_utc)
