"""Whose connections end where one address has too many."""

from xds_server.stream.server.connections import ConnectionBounds, Peer

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
