"""Whose connections end where one address has too many."""

import socket
from urllib.parse import quote

import pytest

from xds_server.stream.server.connections import ConnectionBounds, Peer
from xds_server.stream.server.server import MOST_CONNECTIONS

BOUNDS = ConnectionBounds(port=1, most=40)


def of(host: str, count: int) -> list[Peer]:
    return [Peer(host, port) for port in range(count)]


def test_what_an_address_has_too_many_of_ends_and_nothing_of_others():
    assert BOUNDS.surplus([*of("a", 15), *of("b", 9), *of("c", 10)], ()) == set(of("a", 15)[10:])


def test_what_has_a_stream_stays_and_does_not_count():
    assert BOUNDS.surplus(of("a", 30), of("a", 30)) == set()
    assert BOUNDS.surplus(of("a", 35), of("a", 24)) == {Peer("a", 34)}


def test_nothing_ends_while_half_of_all_is_free():
    assert BOUNDS.surplus(of("a", 20), ()) == set()


def test_a_peer_as_grpc_writes_it():
    assert Peer.of("ipv4:10.0.0.1:4711") == ("10.0.0.1", 4711)
    assert Peer.of("ipv6:%5Bfd00::1%5D:4711") == ("fd00::1", 4711)
    assert Peer.of("ipv6:%5B::ffff:10.0.0.1%5D:4711") == ("10.0.0.1", 4711)
    assert Peer.of("unix:") == ("", 0)


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "fd00::1", "::ffff:10.0.0.1", "::ffff:0:a00:1", "::10.0.0.1", "fe80::1%2"]
)
def test_a_peer_is_the_same_as_grpc_writes_it_and_as_its_socket_tells_it(address):
    written = f"ipv4:{address}:4711" if ":" not in address else f"ipv6:{quote(f'[{address}]', safe=':')}:4711"
    told, _ = socket.getnameinfo((address, 4711), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
    assert Peer.at(told, 4711, 0, 0) == Peer.of(written)
    assert Peer.of(written).host


def test_a_thousand_envoys_of_one_address_may_come_back_at_once():
    """As many as a node behind which they are may have, each with two connections, before any has a stream."""
    usual = ConnectionBounds(port=1, most=MOST_CONNECTIONS)
    assert usual.surplus([*of("node", 2000), *of("another", 2000), *of("a third", 2000)], ()) == set()
