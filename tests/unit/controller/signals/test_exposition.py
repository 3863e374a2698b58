"""Pages of /metrics: what is found in them, and that nothing on them does harm."""

import contextlib
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.api.resources.metrics import LabelSelector
from controller.api.schema.values import parse
from controller.signals.exposition import KNOWN, MOST_SERIES, Page, PageError, query_for

VLLM = """\
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="meta-llama/Llama-3.1-8B"} 3.0
vllm:num_requests_waiting{engine="1",model_name="meta-llama/Llama-3.1-8B"} 4.0
# HELP vllm:num_requests_waiting_by_reason The same, by reason.
# TYPE vllm:num_requests_waiting_by_reason gauge
vllm:num_requests_waiting_by_reason{reason="capacity"} 100.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0"} 0.5
vllm:kv_cache_usage_perc{engine="1"} 0.75
# TYPE vllm:e2e_request_latency_seconds histogram
vllm:e2e_request_latency_seconds_bucket{le="0.3"} 2.0
vllm:e2e_request_latency_seconds_bucket{le="+Inf"} 9.0
vllm:e2e_request_latency_seconds_sum 4.5
vllm:e2e_request_latency_seconds_count 9.0
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total 123.0
"""
TRITON = """\
# TYPE nv_trt_llm_request_metrics gauge
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="waiting",version="1"} 6
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="scheduled",version="1"} 50
# TYPE nv_trt_llm_kv_cache_block_metrics gauge
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="tokens_per",model="tensorrt_llm",version="1"} 64
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="tensorrt_llm",version="1"} 0.25
# TYPE nv_inference_pending_request_count gauge
nv_inference_pending_request_count{model="tensorrt_llm",version="1"} 0
"""


def query(name, **selector):
    return query_for(name, parse(LabelSelector, selector).terms)


def page_of(text, *queries, piece=10**9):
    page, data = Page(queries), text if isinstance(text, bytes) else text.encode()
    for at in range(0, len(data), piece):
        page.feed(data[at : at + piece])
    page.end()
    return page


def level(text, name, piece=10**9, **selector):
    asked = query(name, **selector)
    return page_of(text, asked, piece=piece).level(asked)


def why_not(text, name, **selector):
    with pytest.raises(PageError) as caught:
        level(text, name, **selector)
    return str(caught.value)


@pytest.mark.parametrize("piece", [1, 7, 64, 10**9])
def test_series_add_up_however_the_page_comes(piece):
    assert level(VLLM, "vllm:num_requests_waiting", piece) == 7


def test_a_name_that_begins_as_another_is_another():
    assert level(VLLM, "vllm:num_requests_waiting_by_reason") == 100


@pytest.mark.parametrize(
    ("text", "queue", "share"),
    [
        (VLLM, "7", "0.625"),
        ("vllm:num_requests_waiting 1\nvllm:gpu_cache_usage_perc 0.5", "1", "0.5"),
        ('sglang:num_queue_reqs{model_name="m"} 2\nsglang:token_usage{model_name="m"} 0.28', "2", "0.28"),
        ("trtllm_num_requests_waiting 3\ntrtllm_kv_cache_utilization 0.1", "3", "0.1"),
        (TRITON, "6", "0.25"),
    ],
)
def test_the_queue_and_the_cache_are_found_whatever_serves_the_model(text, queue, share):
    assert level(text, "queue") == Decimal(queue)
    assert level(text, "kv-cache") == Decimal(share)


def test_text_generation_inference_has_a_queue_and_no_share():
    assert level("tgi_queue_size 8\n", "queue") == 8
    assert why_not("tgi_queue_size 8\n", "kv-cache").startswith("there is no kv-cache: none of vllm:kv_cache_usage")


def test_a_server_that_shows_an_old_and_a_new_name_counts_once():
    assert level("vllm:kv_cache_usage_perc 0.4\nvllm:gpu_cache_usage_perc 0.4\n", "kv-cache") == Decimal("0.4")


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ({"matchLabels": {"engine": "1"}}, 4),
        ({"engine": "0"}, 3),
        ({"matchExpressions": [{"key": "engine", "operator": "In", "values": ["0", "1"]}]}, 7),
        ({"matchExpressions": [{"key": "engine", "operator": "NotIn", "values": ["0"]}]}, 4),
        ({"matchExpressions": [{"key": "engine", "operator": "Exists"}]}, 7),
        ({"matchExpressions": [{"key": "reason", "operator": "DoesNotExist"}]}, 7),
    ],
)
def test_a_selector_says_which_series_count(selector, found):
    assert level(VLLM, "queue", **selector) == found


def test_series_without_the_labels_are_no_zero():
    assert why_not(VLLM, "queue", engine="7") == "no series of queue has the labels that are asked for"
    assert why_not(VLLM, "queues") == "there is no queues"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("vllm:prompt_tokens_total", "counter"),
        ("vllm:e2e_request_latency_seconds_sum", "histogram"),
        ("vllm:e2e_request_latency_seconds_count", "histogram"),
        ("vllm:e2e_request_latency_seconds_bucket", "histogram"),
    ],
)
def test_what_only_grows_is_no_level(name, kind):
    assert f"{kind}, which only grows" in why_not(VLLM, name)


def test_a_counter_of_openmetrics_is_named_without_its_suffix():
    assert "is a counter" in why_not("# TYPE served counter\nserved_total 5\nserved_created 1\n# EOF\n", "served_total")


def test_a_gauge_may_be_named_as_counts_are():
    text = "# TYPE queue_count gauge\nqueue_count 5\n# TYPE queue counter\nqueue_total 9\n"
    assert level(text, "queue_count") == 5


def test_openmetrics_with_an_exemplar_and_a_time():
    assert level('# TYPE q gauge\nq{a="}"} 5 1700000000.5 # {trace="x"} 1\n# EOF', "q", a="}") == 5


@pytest.mark.parametrize(
    "text", ['q{a="x\\"y\\\\\\n",} 1', 'q { a = "x\\"y\\\\\\n" } 1', '\nq\t{a="x\\"y\\\\\\n"}\t1\r\n']
)
def test_labels_as_servers_write_them(text):
    assert level(text, "q", a='x"y\\\n') == 1


@pytest.mark.parametrize("number", ["NaN", "nan", "+Inf", "-Inf", "1e300", "-1e31"])
def test_what_is_no_number_is_missing(number):
    assert why_not(f"q {number}\n", "q") == "q is no number"
    assert level(f'q{{a="1"}} {number}\nq{{a="2"}} 3\n', "q") == 3


@pytest.mark.parametrize(
    "line", ["q", "q ", "q{", 'q{a="1"', "q{a=1} 2", "q x", "q 1_000", "q 0x10", "q ٣", "q 1" + "0" * 100, 'q{"q"} 1']
)
def test_a_line_that_is_not_of_the_format_is_refused(line):
    if line == "q":
        # Its name is all there is of it: nothing that is asked for.
        assert why_not(line, "q") == "there is no q"
    else:
        assert why_not(f"{line}\n", "q") == "a line of q is not as Prometheus has it"


def test_a_page_of_something_else_has_nothing():
    assert why_not("<html><body>q 5</body></html>", "q") == "there is no q"
    assert why_not(b"\xff\xfe\x00" * 100, "q") == "there is no q"


def test_too_much_of_anything_is_refused():
    many = "".join(f'q{{a="{number}"}} 1\n' for number in range(MOST_SERIES + 1))
    assert why_not(many, "q") == f"more than {MOST_SERIES} series have the names that are asked for"
    assert "too many lines" in why_not("# TYPE q gauge\n" * 11 * MOST_SERIES, "q")
    assert why_not("\n" * 10**6, "q") == "it has more than 200000 lines"
    assert why_not("q" + " " * 2**17, "q") == "a line is longer than 64 KiB"
    labels = ",".join(f'a{number}="1"' for number in range(100))
    assert "more than 64 labels" in why_not(f"q{{{labels}}} 1\n", "q")


def test_two_queries_read_one_page():
    first, second = query("queue"), query("kv-cache")
    page = page_of(VLLM, first, second)
    assert (page.level(first), page.level(second)) == (7, Decimal("0.625"))


@given(st.binary(max_size=300), st.integers(1, 50))
def test_no_page_breaks_the_reader(data, piece):
    with contextlib.suppress(PageError):
        level(b'q{a="1"} 1\nq' + data, "q", piece)


@given(st.dictionaries(st.text("abcxyz_", min_size=1, max_size=5), st.text(max_size=20), max_size=4))
def test_labels_come_back_as_they_were_written(labels):
    written = ",".join(
        '{}="{}"'.format(key, value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n"))
        for key, value in labels.items()
    )
    assert level(f"q{{{written}}} 1\n", "q", matchLabels=labels) == 1


def test_every_known_name_has_places():
    assert all(KNOWN[name] for name in ("queue", "kv-cache"))
