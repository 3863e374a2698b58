"""The Prometheus of the tests is a real one: it scrapes what a test says, and answers PromQL."""

from __future__ import annotations

from tests.support.prometheus import Prometheus, Target


def test_it_answers_with_what_the_target_says_now(prometheus: Prometheus, scraped: Target) -> None:
    scraped.text = 'queue{pod="a"} 3\nqueue{pod="b"} 4\n'
    prometheus.await_value("sum(queue)", 7)
    scraped.text = 'queue{pod="a"} 5\n'
    prometheus.await_value("queue", 5)
    assert prometheus.query("scalar(queue)")["resultType"] == "scalar"


def test_a_target_that_fails_is_down(prometheus: Prometheus, scraped: Target) -> None:
    scraped.text = None
    prometheus.await_value("up", 0)
    assert scraped.scrapes > 0
