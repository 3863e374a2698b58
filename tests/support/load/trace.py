"""A trace of real requests, and the replay of a stretch of it in less time. Pure, but for reading the file."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

_TRACES = Path(__file__).parent / "traces"


@dataclass(frozen=True, slots=True)
class TracedRequest:
    """One request of a trace."""

    at: float
    """Seconds from the start of the trace."""
    context_tokens: int
    generated_tokens: int


def parse_trace(text: str) -> tuple[TracedRequest, ...]:
    """Read `milliseconds,context tokens,generated tokens` lines below one line of titles. Raises ValueError."""
    requests = []
    for line in text.splitlines()[1:]:
        milliseconds, context, generated = (int(field) for field in line.split(","))
        requests.append(TracedRequest(milliseconds / 1000, context, generated))
    if any(later.at < earlier.at for earlier, later in pairwise(requests)):
        raise ValueError("the trace is not in the order of time")
    return tuple(requests)


def azure_code_trace() -> tuple[TracedRequest, ...]:
    """Return the Azure LLM inference trace 2023, code: an hour, 8,819 requests (see the README beside it)."""
    return parse_trace((_TRACES / "azure-code-2023.csv").read_text(encoding="ascii"))


def azure_conversation_trace() -> tuple[TracedRequest, ...]:
    """Return the Azure LLM inference trace 2023, conversation: an hour, 19,366 requests (see its README)."""
    return parse_trace((_TRACES / "azure-conversation-2023.csv").read_text(encoding="ascii"))


def replay(trace: Sequence[TracedRequest], start: float, count: int, seconds: float) -> tuple[TracedRequest, ...]:
    """Return the `count` requests from `start` (seconds into the trace) on, moved to 0 and compressed to `seconds`.

    The request after them would arrive at `seconds`. Bursts keep their place and their height relative to the mean.
    Raises ValueError when the trace ends before.
    """
    first = bisect_left(trace, start, key=lambda request: request.at)
    stretch = trace[first : first + count]
    if count < 1 or len(stretch) < count:
        raise ValueError(f"the trace has {len(stretch)} requests from {start:g} s on, not {count}")
    length = trace[min(first + count, len(trace) - 1)].at - start
    scale = seconds / length if length else 0.0
    return tuple(
        TracedRequest((request.at - start) * scale, request.context_tokens, request.generated_tokens)
        for request in stretch
    )


def window(trace: Sequence[TracedRequest], start: float, length: float, speed: float) -> tuple[TracedRequest, ...]:
    """Return `length` seconds of requests from `start` (seconds into the trace) on, moved to 0, `speed` times as fast.

    Pauses at its beginning and end are part of it.
    """
    first, last = (bisect_left(trace, at, key=lambda request: request.at) for at in (start, start + length))
    return tuple(
        TracedRequest((request.at - start) / speed, request.context_tokens, request.generated_tokens)
        for request in trace[first:last]
    )
