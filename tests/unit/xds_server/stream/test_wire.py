import tracemalloc

import pytest
from envoy.service.discovery.v3 import discovery_pb2
from google.rpc import status_pb2
from scripted import cluster

from xds_server.snapshot.scope import GATEWAY, Role, Scope
from xds_server.snapshot.snapshot import CLUSTER, Layered
from xds_server.stream import wire
from xds_server.stream.protocol.messages import DeltaRequest, Response, SotwRequest
from xds_server.stream.protocol.parts import at_once
from xds_server.stream.wire import Node, UnknownRoleError


class Parser:
    def __init__(self):
        self._parser = wire.DeltaParser()

    def parse(self, raw):
        return at_once(self._parser.parse(raw))


def parse_delta(raw):
    return Parser().parse(raw)


def parse_sotw(raw):
    return at_once(wire.parse_sotw(raw))


def pack_delta(response, identifier):
    return at_once(wire.pack_delta(response, identifier))


def pack_sotw(response, identifier):
    return at_once(wire.pack_sotw(response, identifier))


def test_a_delta_request_is_parsed():
    message = discovery_pb2.DeltaDiscoveryRequest(
        type_url=CLUSTER,
        resource_names_subscribe=["a"],
        resource_names_unsubscribe=["b"],
        initial_resource_versions={"c": "1"},
        response_nonce="n",
        error_detail=status_pb2.Status(message="no"),
    )
    _, request = parse_delta(message.SerializeToString())
    assert request == DeltaRequest(CLUSTER, ("a",), ("b",), {"c": "1"}, "n", "no")


def test_an_error_without_words_is_still_a_nack():
    message = discovery_pb2.DiscoveryRequest(type_url=CLUSTER, error_detail=status_pb2.Status(code=3))
    assert parse_sotw(message.SerializeToString())[1] == SotwRequest(CLUSTER, error="")


def who_comes_back(name, versions):
    message = discovery_pb2.DeltaDiscoveryRequest(type_url=CLUSTER, resource_names_subscribe=["*"])
    message.node.id = name
    message.initial_resource_versions.update(versions)
    return message.SerializeToString()


def test_what_many_say_who_come_back_is_one_value_whoever_says_it_and_in_whatever_order():
    versions = {f"cluster-{number}": str(number) for number in range(100)}
    parser = Parser()
    first, one = parser.parse(who_comes_back("one", versions))
    second, another = parser.parse(who_comes_back("another", dict(reversed(versions.items()))))
    assert (first.id, second.id) == ("one", "another")
    assert one is another
    assert one == DeltaRequest(CLUSTER, ("*",), claimed=versions)
    assert one.shared
    assert parser.parse(who_comes_back("one", {**versions, "cluster-0": "1"}))[1].claimed["cluster-0"] == "1"


def test_of_what_was_said_only_the_last_is_remembered():
    versions = {f"cluster-{number}": "1" for number in range(100)}
    parser, raw = Parser(), who_comes_back("one", versions)
    _, before = parser.parse(raw)
    for number in range(100):
        parser.parse(who_comes_back("one", {**versions, "cluster-0": f"{number}-{'x' * 200}"}))
    _, after = parser.parse(raw)
    assert before == after
    assert before is not after
    for number in range(40, 45):
        parser.parse(who_comes_back("one", {f"{number}-{one:01000}": "1" for one in range(1_500)}))
    assert parser.parse(raw)[1] is not after


def test_what_is_remembered_of_short_names_has_a_bound_in_memory():
    """A name of five characters costs ten times its bytes: the bytes alone say nothing of what is kept."""
    parser = Parser()
    messages = [who_comes_back("one", {f"{number}{one:x}": "1" for one in range(15_000)}) for number in range(12)]
    tracemalloc.start()
    try:
        for raw in messages:
            parser.parse(raw)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 6 << 20  # as much again is protobuf's, whose memory is not seen here
    assert parser.parse(messages[-1])[1].shared


def test_a_node_is_known_and_its_token_is_not_printed():
    message = discovery_pb2.DeltaDiscoveryRequest()
    message.node.id = "gateway"
    message.node.user_agent_name = "envoy"
    message.node.user_agent_build_version.version.major_number = 1
    message.node.user_agent_build_version.version.minor_number = 40
    message.node.metadata["beamlit_token"] = "hush"
    node, _ = parse_delta(message.SerializeToString())
    assert node == Node("gateway", "", "envoy", "1.40.0", "hush")
    assert "hush" not in repr(node)


def test_the_scope_of_a_client_is_in_the_metadata_of_its_node():
    message = discovery_pb2.DeltaDiscoveryRequest()
    assert parse_delta(message.SerializeToString())[0].scope == GATEWAY
    message.node.id = "sidecar-1"
    assert parse_delta(message.SerializeToString())[0].scope == GATEWAY
    message.node.metadata.update({"role": "sidecar", "namespace": "ns"})
    assert parse_delta(message.SerializeToString())[0].scope == Scope(Role.SIDECAR, "ns")


@pytest.mark.parametrize("role", ["router", 7, None, ["gateway"]])
def test_a_role_that_is_not_known_is_no_gateway(role):
    message = discovery_pb2.DiscoveryRequest()
    message.node.metadata.update({"role": role})
    with pytest.raises(UnknownRoleError, match="gateway, sidecar"):
        parse_sotw(message.SerializeToString())


def test_x06_x07_a_delta_response_is_packed():
    response = Response(CLUSTER, "n", "v", (cluster("a"),), removed=("b",))
    message = discovery_pb2.DeltaDiscoveryResponse.FromString(pack_delta(response, "server"))
    (entry,) = message.resources
    assert (entry.name, entry.version, entry.resource.type_url) == ("a", cluster("a").version, CLUSTER)
    assert (list(message.removed_resources), message.control_plane.identifier) == (["b"], "server")


def test_what_all_who_join_are_sent_is_packed_once():
    resources = Layered({name: cluster(name) for name in "ab"})
    every, one_by_one = (
        Response(CLUSTER, "n", "v", tuple(resources.values()), everything=everything)
        for everything in (resources, None)
    )
    unpacked = discovery_pb2.DeltaDiscoveryResponse.FromString
    assert unpacked(pack_delta(every, "server")) == unpacked(pack_delta(one_by_one, "server"))
    assert unpacked(pack_delta(every, "another")).nonce == "n"
    asked = []

    def packing(all_of_it):
        asked.append(all_of_it)
        return len(all_of_it)

    assert [resources.derived(packing) for _ in range(3)] == [2, 2, 2]
    assert len(asked) == 1
    assert resources.with_changes({"a": None}).derived(packing) == 1


def test_x27_a_sotw_response_names_what_is_missing():
    message = discovery_pb2.DiscoveryResponse.FromString(pack_sotw(Response(CLUSTER, "n", "v", missing=("b",)), "s"))
    (error,) = message.resource_errors
    assert (error.resource_name.name, error.error_detail.code) == ("b", 5)


def test_what_is_not_text_is_told_by_its_kind():
    """A list has room for tens of thousands of values, each of which protobuf would write on lines of its own."""
    message = discovery_pb2.DiscoveryRequest()
    message.node.metadata.update({"role": [1.0] * 1000})
    with pytest.raises(UnknownRoleError, match="'list_value'"):
        parse_sotw(message.SerializeToString())


def test_what_many_want_who_join_is_packed_by_all_of_them_together():
    resources = Layered({f"{number}": cluster(f"{number}") for number in range(2000)})
    response = Response(CLUSTER, "n", "v", tuple(resources.values()), everything=resources)
    one, other = (wire.pack_delta(response, "server") for _ in range(2))
    assert wire.is_long(response)
    next(one)
    packed = at_once(other)
    assert not wire.is_long(response)
    assert at_once(one) == packed == pack_delta(response, "server")
    assert len(discovery_pb2.DeltaDiscoveryResponse.FromString(packed).resources) == 2000


class OnceTooLarge:
    """A resource that there is no memory for when it is first packed."""

    def __init__(self, resource):
        self.key, self.version, self._body = resource.key, resource.version, resource.body
        self._asked = 0

    @property
    def body(self):
        self._asked += 1
        if self._asked == 1:
            raise MemoryError
        return self._body


def test_what_could_not_be_packed_once_is_packed_for_the_next():
    resources = {f"{number}": cluster(f"{number}") for number in range(1200)}
    resources["700"] = OnceTooLarge(resources["700"])
    entries = wire.PackedEntries(resources)
    with pytest.raises(MemoryError):
        at_once(entries.in_parts())
    packed = discovery_pb2.DeltaDiscoveryResponse.FromString(at_once(entries.in_parts()))
    assert [one.name for one in packed.resources] == list(resources)
