"""What a client says that takes long is done in parts: none of them is longer for being one of many."""

import sys

import pytest
from scripted import cluster, endpoints, route

from tests.support.protocol.attacks import repeated
from xds_server.loads.loads import Loads
from xds_server.snapshot.snapshot import CLUSTER, ROUTE, Layered, Snapshot
from xds_server.stream import wire
from xds_server.stream.limits import OF_MEMBERS, TooLargeError, look_through
from xds_server.stream.load_reporting.wire import ClusterLoad, LoadStream, ReportedLoads
from xds_server.stream.protocol.dialects import DeltaSession, SotwSession
from xds_server.stream.protocol.holdings import catalog_of
from xds_server.stream.protocol.messages import ClientTerms, DeltaRequest, Response, SotwRequest
from xds_server.stream.protocol.parts import MANY, at_once, batches
from xds_server.stream.protocol.rejections import find_names

FEW, ALL = MANY, 4 * MANY
TERMS = ClientTerms(max_response_bytes=1 << 30)
SOME = Snapshot.of([cluster("a"), endpoints("a"), route("a", "a")])


def names(count):
    return tuple(f"n{number}" for number in range(count))


def of(count):
    """A snapshot, with what is worked out of it once for all clients."""
    snapshot = Snapshot.of(cluster(name) for name in names(count))
    snapshot.by_type[CLUSTER].derived(catalog_of)
    return snapshot


def many_names(count):
    return DeltaSession(SOME, TERMS, 0.0).receive(DeltaRequest(CLUSTER, names(count)), 0.0)


def many_names_in_state_of_the_world(count):
    return SotwSession(SOME, TERMS, 0.0).receive(SotwRequest(CLUSTER, names(count)), 0.0)


def versions_of_what_is_gone(count):
    return DeltaSession(SOME, TERMS, 0.0).receive(
        DeltaRequest(CLUSTER, ("*",), claimed=dict.fromkeys(names(count), "1")), 0.0
    )


def versions_of_before(count):
    return DeltaSession(of(count), TERMS, 0.0).receive(
        DeltaRequest(CLUSTER, ("*",), claimed=dict.fromkeys(names(count), "1")), 0.0
    )


def all_given_up(count):
    session = DeltaSession(of(count), TERMS, 0.0)
    (response,) = at_once(session.receive(DeltaRequest(CLUSTER, names(count)), 0.0)).responses
    at_once(session.receive(DeltaRequest(CLUSTER, nonce=response.nonce), 0.0))
    return session.receive(DeltaRequest(CLUSTER, unsubscribe=names(count)), 0.0)


def all_accepted(count):
    session = DeltaSession(of(count), TERMS, 0.0)
    (response,) = at_once(session.receive(DeltaRequest(CLUSTER, ("*", "nothing")), 0.0)).responses
    return session.receive(DeltaRequest(CLUSTER, nonce=response.nonce), 0.0)


def all_refused(count):
    session = DeltaSession(of(count), TERMS, 0.0)
    (response,) = at_once(session.receive(DeltaRequest(CLUSTER, ("*",)), 0.0)).responses
    return session.receive(DeltaRequest(CLUSTER, nonce=response.nonce, error="n1 is wrong"), 0.0)


def little_while_much_waits(count):
    """Routes that are unknown may require each of the clusters, so these stay, and are looked at again and again."""
    session = DeltaSession(SOME, TERMS, 0.0)
    claims = DeltaRequest(CLUSTER, ("*",), claimed=dict.fromkeys(names(count), "1"))
    (response,) = at_once(session.receive(claims, 0.0)).responses
    at_once(session.receive(DeltaRequest(CLUSTER, nonce=response.nonce), 0.0))
    request = DeltaRequest(ROUTE, ("gone",), claimed={"gone": "1"})
    assert session.takes_long(request) == (count > MANY)
    return session.receive(request, 0.0)


def packed_answer(count):
    resources = tuple(cluster(name) for name in names(count))
    return wire.pack_delta(Response(CLUSTER, "n", "v", resources), "server")


def packed_for_all(count):
    resources = Layered({name: cluster(name) for name in names(count)})
    resources.derived(wire.PackedEntries)
    response = Response(CLUSTER, "n", "v", tuple(resources.values()), everything=resources)
    return wire.pack_delta(response, "server")


def packed_errors(count):
    return wire.pack_sotw(Response(CLUSTER, "n", "v", missing=names(count)), "server")


def reported(count):
    clusters = [ClusterLoad(f"default/{name}/local", 1.0) for name in names(count)]
    return Loads().report_received(LoadStream("envoy", 1.0), ReportedLoads.of(clusters), 1.0)


def calls_in_parts(parts):
    """Count the calls, of functions in Python and of those built in, in each part."""
    counts = [0]

    def counted(_frame, event, _arg):
        counts[-1] += event in ("call", "c_call")

    sys.setprofile(counted)
    try:
        while next(parts, parts) is not parts:
            counts.append(0)
    finally:
        sys.setprofile(None)
    return counts


@pytest.mark.parametrize(
    "saying",
    [
        many_names,
        many_names_in_state_of_the_world,
        versions_of_what_is_gone,
        versions_of_before,
        all_given_up,
        all_accepted,
        all_refused,
        little_while_much_waits,
        lambda count: find_names("no", names(count)),
        reported,
        packed_answer,
        packed_for_all,
        packed_errors,
    ],
)
def test_no_part_of_what_a_client_says_is_longer_for_what_else_it_says(saying):
    few, every = calls_in_parts(saying(FEW)), calls_in_parts(saying(ALL))
    assert sum(every) > 2 * sum(few)
    assert max(every) < 1.5 * max(few)


def test_a_message_is_looked_through_in_parts():
    looked = look_through(repeated(3, b"a" * 50), {3: "names"})
    assert next(looked) is None
    with pytest.raises(TooLargeError, match=f"{OF_MEMBERS.names}"):
        at_once(looked)


def test_what_is_done_in_parts_comes_to_the_same():
    assert list(batches(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert at_once(find_names("n1", names(3))) == {"n1"}
    assert len(at_once(many_names(3)).responses) == 1
