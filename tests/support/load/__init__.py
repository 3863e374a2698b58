"""Load over HTTP/1.1: requests at given times or from a number of clients, and a report of every single one.

The way of one request through the modules::

    trace -> loops -> connection -> answer -> report

`open_loop` sends each request at its own time, whatever became of the ones before it; `closed_loop` has a number of
clients that each wait for their answer. Both return a `Report`. Nothing is ever sent twice, so no failure is hidden.
"""

from tests.support.load.answer import Answer
from tests.support.load.flight import Step, most, steps_of, sum_of
from tests.support.load.loops import Traffic, closed_loop, open_loop
from tests.support.load.report import Report, Sample, Summary, percentile, summary_of
from tests.support.load.trace import (
    TracedRequest,
    azure_code_trace,
    azure_conversation_trace,
    parse_trace,
    replay,
    window,
)

__all__ = [
    "Answer",
    "Report",
    "Sample",
    "Step",
    "Summary",
    "TracedRequest",
    "Traffic",
    "azure_code_trace",
    "azure_conversation_trace",
    "closed_loop",
    "most",
    "open_loop",
    "parse_trace",
    "percentile",
    "replay",
    "steps_of",
    "sum_of",
    "summary_of",
    "window",
]
