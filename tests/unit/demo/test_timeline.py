"""The servers are killed under load, not in a pause."""

from benchmarks.load import azure_code_trace, replay
from demo.timeline import busiest_moment, kill_and_return


def test_the_busiest_moment_is_the_one_before_the_burst():
    arrivals = [1.0, 5.0, 6.0, 6.1, 6.2, 9.0, 9.1]
    assert busiest_moment(arrivals, 0.0, 10.0) == 6.0
    assert busiest_moment(arrivals, 7.0, 10.0) == 9.0


def test_nothing_arrives():
    assert busiest_moment([1.0, 20.0], 5.0, 10.0) == 5.0


def test_the_order_of_events():
    for seconds in (9.0, 36.0):
        arrivals = [request.at for request in replay(azure_code_trace(), 1560.0, 700, seconds)]
        kill, revive = kill_and_return(arrivals, seconds)
        assert seconds * 0.3 <= kill < seconds * 0.4 < revive < seconds
