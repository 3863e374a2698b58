"""What a host is called, by who is told.

A name is resolved as it was written: the dot at its end says that it is complete, and that no search list is tried (RFC
1034, section 3.1; resolv.conf(5)). So a name with that dot and one without may lead to different places, while upper
and lower case never do (RFC 4343, section 3). Nobody else is told of that dot, of upper case, or of what goes without
saying:

* TLS: the SNI has no dot at its end, and is no address (RFC 6066, section 3). The names in a certificate have no such
  dot and no case (RFC 5280, section 4.2.1.6; RFC 9525, section 6.3).
* HTTP: the Host is in lower case, without the port that its scheme has anyway (RFC 9110, sections 4.2.3 and 7.2), and
  an IPv6 address is in brackets (RFC 3986, section 3.2.2).
* Our own words.

What tells backends from each other is the name as it is resolved: in lower case, with its dot, and an address in its
usual form, of which IPv6 has many others (RFC 5952).

Names of other scripts are written in ASCII (`xn--...`, RFC 5890): nothing else is accepted.
"""

from __future__ import annotations

import ipaddress

DEFAULT_PORT = {"http": 80, "https": 443}


def address_of(text: str) -> str | None:
    """Write an address in its usual form (RFC 5952), as certificates have it; None for a name."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return f"::ffff:{mapped}" if mapped else str(address)


def resolved_of(host: str) -> str:
    """Say what is resolved, or connected to, for a host that may be written in several ways."""
    return address_of(host) or host.lower()


def name_of(host: str) -> str:
    """Say what a host is called wherever it is not resolved."""
    return address_of(host) or host.lower().removesuffix(".") or host


def authority_of(host: str, port: int, scheme: str) -> str:
    """Write the Host of a request to a host."""
    name = name_of(host)
    shown = f"[{name}]" if ":" in name else name
    return shown if port == DEFAULT_PORT[scheme] else f"{shown}:{port}"
