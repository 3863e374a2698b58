"""Where remote backends and token endpoints may be, by their names and by the addresses that names lead to.

The gateway reaches more than whoever writes a ModelDeployment does: what stands beside it, and the metadata server of
its cloud. So in a cluster such addresses are refused. The operator says in the configuration file what else is refused,
and what may be used all the same (`remoteBackends`).

What is refused is a set of ranges, so that Envoy can compare the address it connects to (`xds_server.resources.guard`).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

CHECKS_PORT = 19001
"""Where Envoys listen for their own checks of what is guarded, at a loopback address: no model is given this port."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Range = ipaddress.IPv4Network | ipaddress.IPv6Network


def _ranges(*texts: str) -> tuple[Range, ...]:
    return tuple(map(ipaddress.ip_network, texts))


# Metadata servers: most clouds (link-local), AWS (IPv6), Google (IPv6), Alibaba, Azure, Oracle. A wider range that is
# allowed does not bring them along.
_METADATA = _ranges(
    "169.254.169.254",
    "fd00:ec2::254",
    "fd20:ce::254",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
)

_METADATA_NAMES = frozenset(
    ("metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal")
)

# RFC 6890, and where newer the RFC named: what they are called, and the ranges.
_SPECIAL = (
    ("a loopback address", _ranges("127.0.0.0/8", "::1")),
    ("a link-local address", _ranges("169.254.0.0/16", "fe80::/10")),
    ("a multicast address", _ranges("224.0.0.0/4", "ff00::/8")),
    # Linux connects to itself.
    ("no address of a host", _ranges("0.0.0.0/8", "::", "255.255.255.255")),
)

# RFC 1918, RFC 6598 (also given to pods) and RFC 4193: what a cluster gives its pods and Services.
# Not refused by themselves: a backend in another cluster of the same network is at such an address, too.
_PRIVATE = ("a private address", _ranges("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"))

PRIVATE = "private"
"""The word for all private ranges in a list of destinations."""

# Translated to IPv4 by the network where it knows how (RFC 6052, section 2.1), by the host (RFC 4291, section 2.5.5.2),
# and by a relay (RFC 3056).
_NAT64, _MAPPED, _6TO4 = _ranges("64:ff9b::/96", "::ffff:0:0/96", "2002::/16")

# Nothing but numbers is an address to many a resolver (inet_aton(3)); that of Envoy takes 127.0.0.01 for loopback.
_NUMBER = r"([0-9]+|0[xX][0-9a-fA-F]*)"
_NUMBERS = re.compile(rf"{_NUMBER}(\.{_NUMBER})*\.?")

_NAME = re.compile(
    r"(\*\.)?([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
)


def parse_destination(text: str) -> str:
    """Check an entry of a list, and write it in its usual form: a range, an address, a name, or `*.` and a name.

    `private` stands for all private ranges. Raises ValueError that says what it must be.
    """
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        name = text.removesuffix(".").lower()
        if len(name) > 253 or not _NAME.fullmatch(name) or _NUMBERS.fullmatch(name) or "/" in text:
            raise ValueError(
                'must be a range such as "10.1.0.0/16" without bits behind its length, an address, a name, a name such '
                f'as "*.example.com" for all below it, or "{PRIVATE}"'
            ) from None
        return name


@dataclass(frozen=True, slots=True)
class HostList:
    """Names, in lower case and without a dot at their end, and ranges of addresses."""

    names: frozenset[str] = frozenset()
    ranges: tuple[Range, ...] = ()

    @classmethod
    def of(cls, entries: Iterable[str]) -> HostList:
        """Build the list of some entries that `parse_destination` wrote."""
        names: set[str] = set()
        ranges: list[Range] = []
        for entry in entries:
            try:
                ranges.append(ipaddress.ip_network(entry))
            except ValueError:
                names.add(entry)
        return cls(frozenset(names), tuple(sorted(ranges, key=lambda one: (one.version, one))))

    def has_name(self, host: str) -> bool:
        """Tell whether a name is in the list, itself or by an entry for all below another one."""
        name = host.removesuffix(".").lower()
        labels = name.split(".")
        return name in self.names or any(f"*.{'.'.join(labels[at:])}" in self.names for at in range(1, len(labels)))

    def has_address(self, host: str) -> bool:
        """Tell whether a host is an address of one of the ranges."""
        address = _address(host)
        return address is not None and _has(self.ranges, (address,))


@dataclass(frozen=True, slots=True)
class Destinations:
    """Where requests may go: what `deny` has is refused, then what `allow` has may be used, then the rest is looked at.

    Of the rest, `refuses_special` refuses loopback, link-local and multicast addresses, and `refuses_private` the
    private ones. The former also refuses metadata servers, unless `allow` has that very address. A name that is allowed
    may lead to any address.
    """

    allow: HostList = HostList()
    deny: HostList = HostList()
    refuses_special: bool = False
    refuses_private: bool = False

    def configured(self, allow: Iterable[str], deny: Iterable[str]) -> Destinations:
        """Return these with the lists of a configuration; `private` is said in a list for all private ranges."""
        allowed, denied = frozenset(allow), frozenset(deny)
        return replace(
            self,
            allow=HostList.of(allowed - {PRIVATE}),
            deny=HostList.of(denied - {PRIVATE}),
            refuses_private=(self.refuses_private or PRIVATE in denied) and PRIVATE not in allowed,
        )

    def also_allowing(self, names: Iterable[str]) -> Destinations:
        """Return these with some names that may lead anywhere."""
        allowed = self.allow.names | {name.removesuffix(".").lower() for name in names}
        return replace(self, allow=replace(self.allow, names=allowed))

    def refused_host(self, host: str) -> str | None:
        """Say why nothing may be sent to a host as somebody wrote it; None when it may, or when its address decides."""
        if self.deny.has_name(host):
            return "denied by the configuration (remoteBackends.deny)"
        if self.allow.has_name(host):
            return None
        name = host.rstrip(".").lower()
        if self.refuses_special:
            if name == "localhost" or name.endswith(".localhost"):
                return "this host itself"
            if name in _METADATA_NAMES:
                return "the name of a cloud's metadata server"
        return self.refused_address(host)

    def refused_address(self, text: str) -> str | None:
        """Say why nothing may be sent to an address; None when it may, or when the text is a name."""
        address = _address(text)
        if address is None:
            is_number = ":" in text or bool(_NUMBERS.fullmatch(text))
            return "no address in its usual form" if is_number and self.refuses_any else None
        ways = (address, *_embedded(address))
        if _has(self.deny.ranges, ways):
            return "denied by the configuration (remoteBackends.deny)"
        found = None
        if not _has(self.allow.ranges, ways):
            found = next((words for words, ranges in self._by_default if _has(ranges, ways)), None)
        return found or ("the address of a cloud's metadata server" if _has(self._metadata, ways) else None)

    def may_lead_anywhere(self, host: str) -> bool:
        """Tell whether it does not matter to which address a host leads: it is one itself, or its name is allowed."""
        return not self.refuses_any or _address(host) is not None or self.allow.has_name(host)

    @property
    def refuses_any(self) -> bool:
        """Whether there is an address that is refused."""
        return self.refuses_special or self.refuses_private or bool(self.deny.ranges)

    @property
    def denied(self) -> tuple[Range, ...]:
        """The ranges that are refused whatever is allowed, with the ways of IPv6 to those of IPv4."""
        return _with_ways((*self.deny.ranges, *self._metadata))

    @property
    def refused_by_default(self) -> tuple[Range, ...]:
        """The ranges that are refused but for those in `allowed`, with the ways of IPv6 to those of IPv4."""
        return _with_ways(one for _, ranges in self._by_default for one in ranges)

    @property
    def allowed(self) -> tuple[Range, ...]:
        """The ranges that are allowed, with the ways of IPv6 to those of IPv4."""
        return _with_ways(self.allow.ranges)

    @property
    def _metadata(self) -> tuple[Range, ...]:
        return tuple(one for one in _METADATA if one not in self.allow.ranges) if self.refuses_special else ()

    @property
    def _by_default(self) -> tuple[tuple[str, tuple[Range, ...]], ...]:
        return (*(_SPECIAL if self.refuses_special else ()), *((_PRIVATE,) if self.refuses_private else ()))


ANYWHERE = Destinations()
"""What a folder begins with: who writes there starts the gateway."""

OUTSIDE = Destinations(refuses_special=True)
"""What a cluster begins with."""


def _address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _embedded(address: Address) -> Iterable[ipaddress.IPv4Address]:
    """List the IPv4 address that is reached by way of this one, if one is."""
    if address.version == 4:
        return ()
    if address in _NAT64:
        return (ipaddress.IPv4Address(address.packed[-4:]),)
    found = address.ipv4_mapped or address.sixtofour
    return (found,) if found else ()


def _has(ranges: Iterable[Range], ways: Iterable[Address]) -> bool:
    return any(way in one for one in ranges for way in ways)


def _with_ways(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """Add the ranges of IPv6 by way of which ranges of IPv4 are reached."""
    found: dict[Range, None] = {}
    for one in ranges:
        found[one] = None
        if one.version == 4:
            for way in (_MAPPED, _NAT64, _6TO4):
                assert isinstance(way, ipaddress.IPv6Network)
                bits = int(one.network_address) << (128 - way.prefixlen - 32)
                network = int(way.network_address) | bits
                found[ipaddress.IPv6Network((network, way.prefixlen + one.prefixlen))] = None
    return tuple(found)
