"""What is asked of a Prometheus, and what its answers say."""

import json
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.api.resources.metrics import MetricIdentifier
from controller.api.schema.values import parse
from controller.decision.facts import Cause, Unknown
from controller.signals.poller import SourceError
from controller.signals.promql import MOST_SERIES, answer_of, dated, query_for


def query(name, **selector):
    return query_for(parse(MetricIdentifier, {"name": name, "selector": selector} if selector else {"name": name}))


def expression(key, operator, *values):
    return {"matchExpressions": [{"key": key, "operator": operator, **({"values": list(values)} if values else {})}]}


def test_prior_fault_9_several_labels_make_one_query():
    assert query("queue", matchLabels={"app": "chat", "zone": "a"}) == 'queue{app="chat",zone="a"}'


@pytest.mark.parametrize(
    ("selector", "matcher"),
    [
        (expression("app", "In", "a", "b"), 'app=~"a|b"'),
        (expression("app", "In", "a"), 'app="a"'),
        (expression("app", "NotIn", "a", "b"), 'app!~"a|b"'),
        (expression("app", "Exists"), 'app=~".+"'),
        (expression("app", "DoesNotExist"), 'app=""'),
        ({"app": "chat"}, 'app="chat"'),
        ({"matchLabels": {"app.kubernetes.io/name": "chat"}}, '"app.kubernetes.io/name"="chat"'),
        ({"matchLabels": {"a": 'x"} or up{b="'}}, r'a="x\"} or up{b=\""'),
        ({"matchLabels": {"a": "back\\slash\nline"}}, r'a="back\\slash\nline"'),
        (expression("a", "In", "1.5", "x|y(z)"), r'a=~"1\\.5|x\\|y\\(z\\)"'),
        ({"matchLabels": {"a": "größe 🙂"}}, 'a="größe 🙂"'),
    ],
)
def test_what_a_selector_becomes(selector, matcher):
    assert query("queue", **selector) == f"queue{{{matcher}}}"


def test_a_name_alone():
    assert query("vllm:num_requests_waiting") == "vllm:num_requests_waiting"


def test_what_is_no_name_is_an_expression():
    assert query('sum(rate(http_requests_total{app="chat"}[1m]))') == 'sum(rate(http_requests_total{app="chat"}[1m]))'
    assert isinstance(query("sum(up)", matchLabels={"a": "b"}), Unknown)


def answer(kind, result, **more):
    return json.dumps({"status": "success", "data": {"resultType": kind, "result": result}, **more}).encode()


def series(*numbers):
    return [{"metric": {"pod": str(place)}, "value": [1700000000.1, number]} for place, number in enumerate(numbers)]


def refused(body, status=200):
    with pytest.raises(SourceError) as caught:
        answer_of(body, status)
    return str(caught.value)


def test_prior_fault_9_a_scalar_is_a_number():
    assert answer_of(answer("scalar", [1700000000.1, "4.5"])).value == Decimal("4.5")


def test_several_series_add_up_as_with_the_hpa():
    assert answer_of(answer("vector", series("1", "2.5", "3e2"))).value == Decimal("303.5")


@pytest.mark.parametrize(
    "selector",
    [
        "queue",
        "job:queue:max",
        'queue{app="chat",zone=~"a|b"}',
        ' queue { app = "}" , zone=\'"a"}\' , odd=`"}`, more="\\"}" } ',
        '{app="chat"}',
        '{"queue", app="chat"}',
        "queue{}",
    ],
)
def test_of_selected_series_it_is_asked_when_the_oldest_was_measured(selector):
    oldest = f"clamp_min(min(timestamp({selector})), scalar(max(timestamp({selector})) - 60))"
    assert dated(selector) == f'{selector} or label_replace({oldest}, "beamlit_oldest", "1", "", "")'


@pytest.mark.parametrize(
    "expression",
    [
        "sum(queue)",
        "queue[1m]",
        "queue offset 1m",
        "queue @ 5",
        "queue or other",
        'queue{a="b"} + 1',
        'queue{a="b"}{c="d"}',
        'queue{a="b"} # }',
        "queue{a=`}",
        "queue # {}",
        "42",
        "",
        " ",
        "-queue",
        "queue{" + '"' * 10_001 + "}",
    ],
)
def test_an_expression_is_asked_as_it_is(expression):
    assert dated(expression) == expression


def oldest(number, now=1700000000.1):
    return {"metric": {"beamlit_oldest": "1"}, "value": [now, number]}


@pytest.mark.parametrize(
    ("number", "seconds"),
    [("1699999970.1", 30), ("1700000000.1", 0), ("1700000005", 0), ("1.69e9", 86400), ("0", 86400), ("-1e12", 86400)],
)
def test_how_old_the_oldest_sample_is_by_the_clock_of_prometheus(number, seconds):
    found = answer_of(answer("vector", [oldest(number), *series("3", "4")]))
    assert found.value == 7
    assert found.age is not None and round(found.age.total_seconds(), 3) == seconds
    assert answer_of(answer("vector", series("3"))).age is None
    assert (
        answer_of(answer("vector", [{"metric": {"beamlit_oldest": "1"}, "value": [1, "5"]}, *series("3")])).value == 3
    )


def test_as_many_series_as_may_be_have_an_age_beside_them():
    assert answer_of(answer("vector", [*series(*["1"] * MOST_SERIES), oldest("1699999970.1")])).value == MOST_SERIES


def test_a_sum_of_tenths_has_no_rest():
    assert answer_of(answer("vector", series("0.1", "0.2"))).value == Decimal("0.3")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (answer("vector", []), "no series matches"),
        (answer("vector", series("NaN")), "NaN was measured, which is no number"),
        (answer("vector", series("1", "+Inf")), "+Inf was measured, which is no number"),
        (answer("scalar", [1, "NaN"]), "NaN was measured"),
        (answer("string", [1, "x"]), "the answer is a text"),
        (answer("matrix", []), "the answer is a range"),
        (answer("vector", series(*["1"] * (MOST_SERIES + 1))), f"more than {MOST_SERIES} series match"),
        (answer("vector", [{"metric": {}, "histogram": [1, {}]}]), "a histogram is no number"),
        (answer("vector", series("1_0")), "the answer is not as Prometheus answers"),
        (answer("vector", ["x"]), "the answer is not as Prometheus answers"),
        (answer("vector", {"a": 1}), "the answer is not as Prometheus answers"),
        (answer("scalar", [1, 2]), "the answer is not as Prometheus answers"),
        (answer("vector", [oldest("1699999970.1")]), "no series matches"),
        (answer("vector", [oldest("NaN"), *series("1")]), "NaN was measured, which is no number"),
        (answer("vector", [oldest("1", float("nan")), *series("1")]), "the answer is not as Prometheus answers"),
        (answer("vector", [oldest("1", 10**400), *series("1")]), "the answer is not as Prometheus answers"),
        (b"<html>", "the answer is not as Prometheus answers"),
        (b"", "the answer is not as Prometheus answers"),
        (b"[1]", "the answer is not as Prometheus answers"),
        (b"[" * 100_000, "the answer is not as Prometheus answers"),
        (b'{"status": "success", "data": ' + b"9" * 10_000 + b"}", "the answer is not as Prometheus answers"),
    ],
)
def test_an_answer_that_cannot_be_used_says_why(body, words):
    assert refused(body).startswith(words)


def test_what_prometheus_says_is_passed_on_cut_and_cleaned():
    error = {"status": "error", "errorType": "bad_data", "error": 'parse error:\n\x1b[31m unexpected "}"' + "x" * 10**6}
    words = refused(json.dumps(error).encode(), 400)
    assert words.startswith('Prometheus says: parse error: [31m unexpected "}"')
    assert len(words) < 250
    assert words.isprintable()


def test_an_error_of_something_before_prometheus_is_its_number():
    assert refused(b"upstream timed out", 503) == "the answer is 503"
    assert refused(answer("scalar", [1, "1"]), 503) == "the answer is 503"


def test_warnings_are_shown_beside_the_number():
    body = answer("vector", series("1"), warnings=["one store is away"], infos=["may be no counter"])
    assert answer_of(body).note == "one store is away; may be no counter"
    assert answer_of(answer("vector", series("1"), warnings="x", infos=[1, {}])).note == ""
    long = answer_of(answer("vector", series("1"), warnings=["x" * 5000] * 1000))
    assert long.lacks and len(long.note) <= 200 and len(long.lacks.why) <= 200


@pytest.mark.parametrize(
    ("more", "lacks"),
    [
        (
            {"warnings": ["receive series from Addr: store:10901: connection refused"]},
            "store:10901: connection refused",
        ),
        ({"warnings": ["remote_read: 503"], "infos": ["PromQL info: x"]}, "remote_read: 503"),
        ({"warnings": [*["PromQL warning: y"] * 9, "a shard is away"]}, "a shard is away"),
        ({"isPartial": True}, "isPartial"),
        ({"warnings": ["PromQL warning: bucket label is missing"]}, ""),
        ({"warnings": ["PromQL info: metric might not be a counter"]}, ""),
        ({"infos": ["PromQL info: metric might not be a counter"]}, ""),
        ({"warnings": [], "isPartial": False}, ""),
    ],
)
def test_an_answer_of_some_of_its_sources_lacks_a_part(more, lacks):
    found = answer_of(answer("vector", series("3"), **more)).lacks
    assert lacks in found.why and found.cause == Cause.NOT_ANSWERING if lacks else found is None


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_answer_breaks_the_reader(body):
    for status in (200, 400):
        with pytest.raises(SourceError):
            answer_of(body, status)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from(["resultType", "result", "value", "metric"]), inner)
        ),
    )
)
@settings(max_examples=50)
def test_no_data_breaks_the_reader(data):
    body = json.dumps({"status": "success", "data": data, "warnings": data}).encode()
    with pytest.raises(SourceError):
        answer_of(body)


def test_no_series_in_an_incomplete_answer_is_no_wrong_name():
    with pytest.raises(SourceError, match="the answer lacks a part: a store is away") as raised:
        answer_of(answer("vector", [], warnings=["a store is away"]))
    assert raised.value.cause == Cause.NOT_ANSWERING
