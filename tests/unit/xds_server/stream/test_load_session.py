"""X54: what a client is told to report, and when."""

import pytest
from envoy.service.load_stats.v3 import lrs_pb2

from tests.support.protocol import attacks
from xds_server.stream.limits import TooLargeError
from xds_server.stream.load_reporting.streams import LoadSession
from xds_server.stream.load_reporting.wire import (
    SUPPORTS_ALL,
    LoadTerms,
    ReportedLoads,
    pack_load_terms,
    parse_in_parts,
    parse_introduction,
    parse_load_request,
)
from xds_server.stream.protocol.parts import at_once
from xds_server.stream.wire import MalformedRequestError

A, B = frozenset({"a"}), frozenset({"a", "b"})


def test_x54_a_client_that_knows_all_clusters_is_asked_for_all_of_them():
    assert LoadSession(1.0, True, A).next_terms() == LoadTerms(1.0, None)


def test_x54_another_one_is_told_them_by_name():
    assert LoadSession(1.0, False, A).next_terms() == LoadTerms(1.0, A)


def test_x54_it_is_told_once():
    for supports_all in (True, False):
        session = LoadSession(1.0, supports_all, A)
        assert session.next_terms()
        assert session.next_terms() is None
        session.publish(A)
        assert session.next_terms() is None


def test_x54_it_is_told_again_when_the_clusters_change():
    session = LoadSession(1.0, False, A)
    session.next_terms()
    session.publish(B)
    assert session.next_terms() == LoadTerms(1.0, B)
    session.publish(frozenset())
    assert session.next_terms() == LoadTerms(1.0, frozenset())


def test_x54_all_clusters_stay_all_clusters():
    session = LoadSession(1.0, True, A)
    session.next_terms()
    session.publish(B)
    assert session.next_terms() is None


def test_an_empty_list_would_end_reporting_before_it_began():
    session = LoadSession(1.0, False, frozenset())
    assert session.next_terms() is None
    session.publish(A)
    assert session.next_terms() == LoadTerms(1.0, A)


@pytest.mark.parametrize("clusters", [None, B])
def test_the_terms_on_the_wire(clusters):
    message = lrs_pb2.LoadStatsResponse.FromString(pack_load_terms(LoadTerms(1.5, clusters)))
    assert message.send_all_clusters is (clusters is None)
    assert list(message.clusters) == sorted(clusters or ())
    assert message.load_reporting_interval.ToTimedelta().total_seconds() == 1.5
    assert not message.report_endpoint_granularity


def test_a_report_on_the_wire():
    message = lrs_pb2.LoadStatsRequest()
    message.node.id = "me"
    message.node.client_features.append(SUPPORTS_ALL)
    stats = message.cluster_stats.add(cluster_name="c")
    stats.load_report_interval.FromMilliseconds(1250)
    stats.upstream_locality_stats.add(
        total_issued_requests=4, total_successful_requests=3, total_error_requests=2, total_requests_in_progress=1
    )
    message.cluster_stats.add(cluster_name="idle")

    request = parse_load_request(message.SerializeToString())
    assert (request.node.id, request.supports_all) == ("me", True)
    (busy,) = request.loads.busy
    assert (request.loads.names, request.loads.seconds) == ({"c", "idle"}, 1.25)
    assert (busy.cluster, busy.seconds) == ("c", 1.25)
    (one,) = busy.localities
    assert (one.issued, one.succeeded, one.failed, one.in_flight) == (4, 3, 2, 1)


def test_a_report_in_parts_is_the_report():
    message = attacks.report("t", 2000)
    message.node.client_features.append(SUPPORTS_ALL)
    message.cluster_stats.add(cluster_name="idle").load_report_interval.seconds = 9
    every = list(parse_in_parts(message.SerializeToString()))
    assert len(every) > 2
    request = parse_load_request(message.SerializeToString())
    assert request.node.token == "t"
    assert request.supports_all
    assert [one.cluster for one in request.loads.busy] == [one.cluster_name for one in message.cluster_stats][:-1]
    assert request.loads.names == {one.cluster_name for one in message.cluster_stats}
    assert request.loads.seconds == 1
    who = at_once(parse_introduction(message.SerializeToString()))
    assert (who.node, who.supports_all, who.loads) == (request.node, True, ReportedLoads())


def test_what_no_envoy_reports_is_refused_before_all_of_it_is_read():
    (loads,) = (one for one in attacks.FAMILIES if one.method == attacks.LOADS)
    for name in ("localities", "localities of many", "metrics"):
        read = 0
        with pytest.raises(TooLargeError, match=r"at most|the most"):
            for _ in parse_in_parts(loads.attacks[name]("t")):
                read += 1
        assert read < 50, name


def test_bytes_that_are_no_report():
    with pytest.raises(MalformedRequestError):
        parse_load_request(b"\xff\xff\xff")
