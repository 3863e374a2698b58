"""How far back an expression of PromQL looks, read from its brackets."""

from datetime import timedelta

import pytest

from controller.signals.ranges import range_of


@pytest.mark.parametrize(
    ("query", "seconds"),
    [
        ("queue_length", 0),
        ("sum(rate(vllm:request_success_total{namespace='chat'}[1m]))", 60),
        ("rate(x[1m30s])", 90),
        ("rate(x[ 90 ])", 90),
        ("rate(x[500ms])", 0.5),
        ("rate(x[1m]) / sum by (pod) (rate(y[5m]))", 300),
        # An offset is no range, before or behind others.
        ("rate(x[1m] offset 1h) + (y offset 5m)", 60),
        ("rate(x[1m] @ 1609746000)", 60),
        # A subquery looks back from the first of its moments on, and no farther than that for others.
        ("max_over_time(sum(rate(x[1m]))[5m:30s])", 360),
        ("max_over_time(rate(x[1m])[4m:]) + rate(y[2m])", 300),
        ("max_over_time(avg_over_time(rate(x[1m])[2m:])[3m:])", 360),
        # Of these ranges only the last samples count.
        ("sum(irate(x[5m]))", 60),
        ("irate(x[30s])", 30),
        ("last_over_time(x[5m])", 0),
        ("irate(x[5m]) + rate(x[2m])", 120),
        # Names of recorded series, as Prometheus' documentation has them.
        ("job:requests:rate5m", 300),
        ("max_over_time(path:latency:mean5m[3m])", 480),
        ("job:latency:p99", 0),
        ("rate5m", 0),
        # What only looks like one.
        ("""x{a="[9m]", b='(', c=`[9m]`}""", 0),
        ("""rate(x{a="\\"[9m]"}[1m]) # [9m]""", 60),
        # To compare with: nobody waits for a day.
        ("rate(x[5m]) / rate(x[1d])", 600),
        # What Prometheus refuses.
        ("", 0),
        ("rate(x[5m", 0),
        ("rate(x[five])", 0),
        (")))[5m](((", 300),
        ('x{a="[5m]', 0),
        ("x[999999999999999999999y]", 600),
    ],
)
def test_the_range_of_an_expression(query, seconds):
    assert range_of(query) == timedelta(seconds=seconds)
