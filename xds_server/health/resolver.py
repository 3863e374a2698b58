"""From the name of a host to its addresses."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
from typing import Any, Protocol

from xds_server.health import outcome
from xds_server.health.backend import Place
from xds_server.health.outcome import NothingNewError

# Look-ups that hang, each a thread: as many as one bad name server may cost.
_LOOK_UPS = 64

Address = tuple[socket.AddressFamily, Any]
_Found = list[Address] | OSError | UnicodeError


class Resolver(Protocol):
    """Where addresses come from."""

    async def addresses(self, place: Place) -> list[Address]:
        """Look up a name, the address to try first in front. Raises CheckError, or NothingNewError when too busy."""
        ...


class SystemResolver:
    """The system's resolver, which cannot be interrupted.

    Its threads are no executor's, so a look-up that hangs holds up nothing else, the end of the process neither. For
    one name there is never more than one.
    """

    def __init__(self) -> None:
        self._under_way: dict[Place, asyncio.Future[_Found]] = {}

    async def addresses(self, place: Place) -> list[Address]:
        """Look up a name; IPv6 only where there is no IPv4, as in Envoy's clusters."""
        if _is_address(place.host):
            return _looked_up(place)
        found = self._under_way.get(place)
        if found is None:
            if len(self._under_way) >= _LOOK_UPS:
                raise NothingNewError
            found = asyncio.get_running_loop().create_future()
            self._under_way[place] = found
            found.add_done_callback(lambda _: self._under_way.pop(place))
            threading.Thread(target=_look_up, args=(place, found), daemon=True, name="look-up").start()
        match await asyncio.shield(found):
            case OSError() as error:
                raise outcome.not_resolved(place.host, error.strerror or "no answer")
            case UnicodeError():
                raise outcome.not_resolved(place.host, "not a name")
            case addresses:
                return addresses


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _looked_up(place: Place) -> list[Address]:
    infos = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    found: list[Address] = [(info[0], info[4]) for info in infos]
    return [one for one in found if one[0] == socket.AF_INET] or found


def _look_up(place: Place, found: asyncio.Future[_Found]) -> None:
    result: _Found
    try:
        result = _looked_up(place)
    except (OSError, UnicodeError) as error:
        result = error
    with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
        found.get_loop().call_soon_threadsafe(_settle, found, result)


def _settle(found: asyncio.Future[_Found], result: _Found) -> None:
    if not found.done():
        found.set_result(result)
