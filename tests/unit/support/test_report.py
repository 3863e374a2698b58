"""The arithmetic of reports."""

import math

from hypothesis import given
from hypothesis import strategies as st

from tests.support.load.report import Report, Sample, percentile, summary_of


def sample(start: float = 0.0, route: str = "local", latency: float = 0.1, error: str = "") -> Sample:
    return Sample(start, latency, 200, route, 10, error)


def test_a_percentile_is_one_of_the_values():
    values = [float(n) for n in range(100, 0, -1)]
    assert percentile(values, 50) == 50.0
    assert percentile(values, 99) == 99.0
    assert percentile(values, 100) == 100.0
    assert percentile([7.0], 1) == 7.0
    assert math.isnan(percentile([], 50))


@given(st.lists(st.floats(0, 100), min_size=1), st.floats(0.1, 100))
def test_at_least_that_part_of_the_values_is_not_above_a_percentile(values, percent):
    found = percentile(values, percent)
    assert sum(value <= found for value in values) >= len(values) * percent / 100 - 1e-6


def test_a_failed_request_counts_in_no_route_and_no_latency():
    summary = summary_of([sample(), sample(route="remote", latency=0.3), sample(latency=30.0, error="timeout")])
    assert (summary.requests, summary.local, summary.remote, summary.failed) == (3, 1, 1, 1)
    assert (summary.p50, summary.p99) == (0.1, 0.3)
    assert summary.local_share == 0.5


def test_nothing_has_no_share_and_no_latency():
    summary = summary_of([])
    assert summary.requests == 0
    assert math.isnan(summary.local_share)
    assert math.isnan(summary.p99)


def test_an_answer_without_a_route_is_in_neither():
    summary = summary_of([sample(route="")])
    assert (summary.requests, summary.local, summary.remote, summary.failed) == (1, 0, 0, 0)


def test_seconds_without_arrivals_are_there():
    report = Report((sample(0.2), sample(0.9), sample(3.0)), 4.0)
    assert [second.requests for second in report.bins()] == [2, 0, 0, 1]
    assert [half.requests for half in report.bins(0.5)] == [1, 1, 0, 0, 0, 0, 1]


def test_a_part_holds_its_start_and_not_its_end():
    report = Report((sample(0.0), sample(1.0), sample(2.0)), 3.0)
    assert [s.start for s in report.between(0.0, 2.0).samples] == [0.0, 1.0]


@given(st.lists(st.floats(0, 20), max_size=50), st.floats(0, 20))
def test_the_parts_are_the_whole(starts, cut):
    report = Report(tuple(sample(start) for start in sorted(starts)), 20.0)
    assert len(report.between(0, cut).samples) + len(report.between(cut, 21).samples) == len(starts)
    assert sum(second.requests for second in report.bins()) == len(starts)


def test_errors_are_counted_by_their_words():
    report = Report((sample(error="timeout"), sample(error="timeout"), sample(error="status 503"), sample()), 2.0)
    assert report.errors == {"timeout": 2, "status 503": 1}
    assert report.rate == 2.0
    assert report.summary.failed == 3
