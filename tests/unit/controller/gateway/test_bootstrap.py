"""The configuration that an Envoy starts with."""

import re

import pytest
import yaml

from controller.gateway.bootstrap import HostPort, Provision, UnixSocket, bootstrap_for, parse_xds_address
from tests.support.statistics import documented, matchers, taken_by


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:18000", "127.0.0.1", 18000),
        ("xds.example:1", "xds.example", 1),
        ("[::1]:18000", "::1", 18000),
        ("127.0.0.1:0", "127.0.0.1", 0),
    ],
)
def test_a_host_and_a_port(text, host, port):
    parsed = HostPort.parse(text)
    assert (parsed.host, parsed.port) == (host, port)
    assert str(parsed) == text


@pytest.mark.parametrize(
    "text",
    ["", "18000", ":18000", "host:", "host:http", "host:65536", "host:-1", "host:٣", "host:" + "9" * 5000, "::1"],
)
def test_what_is_none(text):
    with pytest.raises(ValueError, match=r"is not HOST:PORT, such as 127\.0\.0\.1:18000"):
        HostPort.parse(text)


def test_a_socket_file_of_an_xds_server():
    parsed = parse_xds_address("unix:/run/beamlit/xds.sock")
    assert (str(parsed), parsed.is_loopback) == ("unix:/run/beamlit/xds.sock", True)
    bootstrap = yaml.safe_load(bootstrap_for("me", "the-token", parsed, None))
    (cluster,) = bootstrap["static_resources"]["clusters"]
    ((endpoint,),) = (locality["lb_endpoints"] for locality in cluster["load_assignment"]["endpoints"])
    assert endpoint["endpoint"]["address"] == {"pipe": {"path": "/run/beamlit/xds.sock"}}
    assert cluster["type"] == "STATIC"


@pytest.mark.parametrize(
    "text",
    ["unix:", "unix:relative", "unix:/", "unix:/run/", "unix:/a%2f", "unix:/a?b", "unix:/a b", "unix:/" + "a" * 107],
)
def test_what_is_no_socket_file(text):
    with pytest.raises(ValueError, match=r"is not unix:/PATH|has a path of more than 107 characters"):
        UnixSocket.parse(text)


def rendered():
    return yaml.safe_load(bootstrap_for("me", "the-token", HostPort("127.0.0.1", 18000), HostPort("127.0.0.1", 19001)))


def test_it_says_who_the_node_is_and_where_the_server_is():
    bootstrap = rendered()
    assert bootstrap["node"]["id"] == "me"
    assert bootstrap["node"]["cluster"], "trap 6: generic secrets need the id and the cluster"
    assert bootstrap["node"]["metadata"]["beamlit_token"] == "the-token"
    assert bootstrap["admin"]["address"]["socket_address"] == {"address": "127.0.0.1", "port_value": 19001}
    (cluster,) = bootstrap["static_resources"]["clusters"]
    (locality,) = cluster["load_assignment"]["endpoints"]
    (endpoint,) = locality["lb_endpoints"]
    assert endpoint["endpoint"]["address"]["socket_address"] == {"address": "127.0.0.1", "port_value": 18000}
    (service,) = bootstrap["dynamic_resources"]["ads_config"]["grpc_services"]
    assert service["envoy_grpc"]["cluster_name"] == cluster["name"]


def test_its_load_goes_to_the_same_server():
    bootstrap = rendered()
    (cluster,) = bootstrap["static_resources"]["clusters"]
    (service,) = bootstrap["cluster_manager"]["load_stats_config"]["grpc_services"]
    assert service["envoy_grpc"]["cluster_name"] == cluster["name"]


def test_traps_6_and_7():
    bootstrap = rendered()
    assert bootstrap["dynamic_resources"]["ads_config"]["set_node_on_first_message_only"] is True
    assert [one["name"] for one in bootstrap["bootstrap_extensions"]] == ["envoy.bootstrap.internal_listener"]


def test_a_node_may_have_any_id():
    bootstrap = yaml.safe_load(bootstrap_for("a: {b", "t", HostPort("h", 1), HostPort("h", 2)))
    assert bootstrap["node"]["id"] == "a: {b"


def test_everything_is_counted_for_who_wants_it():
    parts = {"stats_config", "deferred_stat_options"}
    assert parts <= rendered().keys()
    whole = yaml.safe_load(bootstrap_for("me", "t", HostPort("h", 1), None, Provision(all_statistics=True)))
    assert not parts & whole.keys()


def test_what_is_counted_of_a_model_is_the_table_of_the_documentation():
    regexes = [*matchers()]
    kept = {name for regex in regexes for name in taken_by(regex)}
    assert kept and all(any(re.fullmatch(regex, name.replace("*", "x")) for regex in regexes) for name in kept)
    assert {*map(_counts, kept)} == {*map(_counts, documented())}
    # Each is also kept of what the table says that it is of.
    lost = [one for one in documented() if not any(re.fullmatch(regex, one.replace("*", "x")) for regex in regexes)]
    assert lost == []


def _counts(name: str) -> tuple[str, str]:
    """Say what is counted, and of what kind of thing."""
    kind, _, _ = name.partition(".")
    return "" if "/" in kind else kind, re.sub(r".*(\*|local)\.", "", name)


def test_memory_is_bounded_where_it_is_known_and_connections_always():
    provision = Provision(memory=1_000_000_000, connections=77)
    bounded = yaml.safe_load(bootstrap_for("me", "t", HostPort("h", 1), None, provision))["overload_manager"]
    connections, _ = (one["typed_config"] for one in bounded["resource_monitors"])
    assert connections["max_active_downstream_connections"] == 77
    reactions = bounded["actions"] + bounded["loadshed_points"]
    assert all(one["triggers"][0]["name"] == "envoy.resource_monitors.fixed_heap" for one in reactions)
    assert rendered()["overload_manager"].keys() == {"resource_monitors"}


@pytest.mark.parametrize(("memory", "heap"), [(1024, 788), (300, 173), (192, 81), (128, 54), (64, 27)])
def test_the_heap_leaves_room_for_the_program(memory: int, heap: int) -> None:
    provision = Provision(memory=memory * 2**20)
    bounded = yaml.safe_load(bootstrap_for("me", "t", HostPort("h", 1), None, provision))["overload_manager"]
    assert bounded["resource_monitors"][1]["typed_config"]["max_heap_size_bytes"] // 2**20 == heap
