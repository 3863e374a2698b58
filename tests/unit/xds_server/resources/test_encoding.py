"""What is written without validation is what betterproto2 writes with it."""

import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import timedelta

import betterproto2
import pytest
from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterDiscoveryType, OutlierDetection
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    DataSource,
    HeaderValueOption,
    HealthCheck,
    HealthStatus,
    HealthStatusSet,
    Locality,
    Metadata,
    SocketAddress,
)
from envoy_data_plane.envoy.config.listener.v3 import Listener
from envoy_data_plane.envoy.config.route.v3 import RetryPolicy, RouteAction
from envoy_data_plane.envoy.type.v3 import FractionalPercent, Int64Range
from envoy_data_plane.google.protobuf import (
    BoolValue,
    Duration,
    FieldDescriptorProto,
    FileDescriptorProto,
    FloatValue,
    ListValue,
    SourceCodeInfoLocation,
    Struct,
    Timestamp,
    Value,
)
from envoy_data_plane.io.prometheus.client import BucketSpan, Histogram
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.support.betterproto import messages_in
from tests.support.routes import A, a_remote, a_route, ready
from xds_server.resources.backend_names import backend_name
from xds_server.resources.encoding import Template, encoded
from xds_server.resources.routing import Entrance, Leg, LocalLimits, Routing
from xds_server.resources.translator import EnvoySettings, Translator
from xds_server.snapshot.snapshot import ROUTE

WRITTEN = [
    Cluster(),
    Cluster(name="a", type=ClusterDiscoveryType.EDS, connect_timeout=timedelta(seconds=1, microseconds=250_000)),
    Cluster(connect_timeout=timedelta(0)),
    Cluster(connect_timeout=timedelta(microseconds=-1_500_000)),
    Cluster(transport_socket_matches=[], per_connection_buffer_limit_bytes=0),
    Cluster(per_connection_buffer_limit_bytes=1 << 31, ignore_health_on_host_removal=True),
    OutlierDetection(enforcing_consecutive_5xx=0, max_ejection_percent=100),
    HealthCheck(reuse_connection=False, healthy_threshold=1),
    RetryPolicy(retriable_status_codes=[502, 503, 1 << 20], num_retries=1),
    RouteAction(cluster="", prefix_rewrite="/"),
    DataSource(inline_string=""),
    DataSource(inline_bytes=b"\x00\xff"),
    Address(socket_address=SocketAddress(address="é☃", port_value=443)),
    HeaderValueOption(),
    HealthStatusSet(statuses=[HealthStatus.HEALTHY, HealthStatus.UNKNOWN, HealthStatus.DEGRADED]),
    FractionalPercent(numerator=127),
    FractionalPercent(numerator=128),
    Int64Range(start=-1, end=(1 << 63) - 1),
    Struct(fields={"a": Value(number_value=0.0), "b": Value(list_value=ListValue(values=[Value(bool_value=False)]))}),
    Metadata(filter_metadata={"": Struct(), "a": Struct(fields={"x": Value(string_value="")})}),
    SourceCodeInfoLocation(path=[0, 1, 300], span=[-1]),
    FileDescriptorProto(name="a", dependency=["", "b"]),
    FieldDescriptorProto(number=-5),
    FloatValue(value=0.1),
    BucketSpan(offset=-3, length=1),
    BucketSpan(offset=1 << 30),
    Histogram(sample_sum=0.25, positive_count=[0.0, -1.5], positive_delta=[-1, 64]),
    BoolValue(value=True),
    Duration(seconds=-3, nanos=-1),
    Timestamp(seconds=-1, nanos=500_000_000),
]


@pytest.mark.parametrize("message", WRITTEN, ids=repr)
def test_each_kind_of_field_is_written_as_betterproto2_does(message):
    assert encoded(message) == bytes(message)


@dataclass(eq=False, repr=False)
class Fixed(betterproto2.Message):
    """What no message of Envoy has."""

    one: int = betterproto2.field(1, betterproto2.TYPE_FIXED32)
    two: int = betterproto2.field(2, betterproto2.TYPE_SFIXED64)
    three: int = betterproto2.field(16, betterproto2.TYPE_FIXED64)


def test_numbers_of_fixed_length_are_written_as_betterproto2_does():
    message = Fixed(one=1 << 31, two=-1, three=1 << 63)
    assert encoded(message) == bytes(message)


def test_what_was_read_and_is_unknown_is_written_again():
    message = Locality.parse(bytes(Locality(zone="z")) + b"\xf8\x07\x01")
    assert encoded(message) == bytes(message) == b"\x12\x01z\xf8\x07\x01"


@given(st.permutations([("c", 1.0), ("a", 2.0), ("b", 3.0)]))
def test_maps_are_written_in_the_order_of_their_keys(entries):
    message = Struct(fields={key: Value(number_value=number) for key, number in entries})
    ordered = Struct(fields=dict(sorted(message.fields.items())))
    assert encoded(message) == bytes(ordered)


@given(st.integers(-(1 << 63), (1 << 63) - 1), st.integers(-(1 << 63), (1 << 63) - 1))
def test_whole_numbers_are_written_as_betterproto2_does(start, end):
    message = Int64Range(start=start, end=end)
    assert encoded(message) == bytes(message)


@given(st.timedeltas(timedelta(days=-9999), timedelta(days=9999)))
def test_durations_are_written_as_betterproto2_does(interval):
    message = HealthCheck(interval=interval)
    assert encoded(message) == bytes(message)


def test_a_mistake_is_found_when_a_message_is_built():
    with pytest.raises(ValidationError):
        Listener(nme="a")
    with pytest.raises(ValidationError):
        SocketAddress(address=1)
    with pytest.raises(ValidationError):
        SocketAddress(port_value=-1)
    with pytest.raises(ValidationError):
        RouteAction(cluster="a", cluster_header="b")


ROUTES = {
    "local only": a_route(),
    "checked": a_route(check="/healthz"),
    "away": a_route(a_remote(headers={"x-b": "1", "x-a": "2"}), away=100),
    "divided": a_route(a_remote(path_prefix="/v1", health_check={"path": "/up", "interval": "1s"}), away=30),
}


@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)
def test_every_message_of_a_model_is_valid_and_as_betterproto2_writes_it(route):
    found = [
        message
        for one in Translator(EnvoySettings()).resources(A, route, ready("10.0.0.1", "fd00::1"))
        for message in messages_in(one.key.type_url, one.body)
    ]
    assert len(found) > 8
    for message in found:
        assert encoded(message) == bytes(message)


PRINTED = "from tests.unit.xds_server.resources.test_encoding import versions; print(versions())"


def versions():
    remote = a_remote(headers={"x-b": "1", "x-a": "2"})
    found = Translator(EnvoySettings()).resources(A, a_route(remote, away=30), ready("10.0.0.1"))
    return "".join(f"{one.key.type_url} {one.key.name} {one.version}\n" for one in found)


@pytest.mark.long
def test_every_process_writes_the_same_bytes():
    other = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    told = subprocess.run(
        [sys.executable, "-c", PRINTED],
        env={**os.environ, "PYTHONHASHSEED": other},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    assert told == f"{versions()}\n"
    assert told.count("\n") > 8


@given(st.binary(), st.binary(), st.integers(1, 127))
def test_a_template_gives_what_was_written_with_the_number(before, behind, number):
    def write(value):
        return before + bytes([value]) + behind

    assert Template.of(write).filled(number) == write(number)


@pytest.mark.parametrize(
    "write",
    [
        lambda number: b"same",
        lambda number: bytes([number, number]),
        lambda number: bytes([1]) * number,
        lambda number: bytes([number + 1]),
        lambda number: b"x" * number + bytes([number]),
    ],
    ids=["not there", "twice", "a length", "not itself", "a length and itself"],
)
def test_a_number_that_is_not_one_byte_makes_no_template(write):
    with pytest.raises(ValueError, match="not one byte"):
        Template.of(write)


@pytest.mark.parametrize("number", [-1, 0, 128, 300])
def test_a_number_of_more_than_one_byte_is_not_filled_in(number):
    with pytest.raises(ValueError, match="from 1 to 127"):
        Template(b"", b"").filled(number)


@pytest.mark.parametrize("headers", [{}, {"x-team": "\x01ml\x02"}], ids=["plain", "with bytes like numbers"])
def test_the_route_of_every_split_is_as_it_is_authored(headers):
    remote = a_remote(path_prefix="/v1", headers=headers)
    translator, leg = Translator(EnvoySettings()), Leg(remote, backend_name(A, remote))
    for away in range(101):
        route = a_route(remote, away=away)
        built = translator.resources(A, route, ready("10.0.0.1"))
        (found,) = (one for one in built if (one.key.type_url, one.key.name) == (ROUTE, "port/80/default"))
        assert found.body == encoded(Routing().front(Entrance(A, route.port), [leg], route.shares, LocalLimits()))
