import contextlib
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.api.schema.scalars import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0s", 0), ("300ms", 0.3), ("5s", 5), ("1m30s", 90), ("1.5h", 5400), ("2h3m4s5ms", 7384.005), ("8760h", 31536000)],
)
def test_a_duration(text, seconds):
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "5s ", "1s1m", "-1s", "1d", "１s", "1e3s", 5, None, ["5s"]])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="must be a duration such as"):
        parse_duration(text)


@given(st.integers(0, 365 * 86_400_000))
def test_a_duration_that_is_written_reads_the_same(milliseconds):
    duration = timedelta(milliseconds=milliseconds)
    assert parse_duration(format_duration(duration)) == duration


@given(st.text(alphabet="0123456789.hms", max_size=400))
def test_nothing_but_a_value_error_comes_of_a_text(text):
    with contextlib.suppress(ValueError):
        assert parse_duration(text) >= timedelta(0)
