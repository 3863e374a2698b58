"""Pages of `/metrics`: finding the series of a few names in them, piece by piece, and the level that they have. Pure.

The text is Prometheus' (text format 0.0.4) or OpenMetrics 1.0; where the two differ, nothing that is read here does.
Only lines that begin with a name that is asked for are looked into: a page is hostile until proven otherwise, and most
of a page is histograms that nobody asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from controller.api.resources.metrics import SelectorTerm

MOST_SERIES = 1000
"""Series of one page that are looked at."""
_LONGEST_LINE = 2**16
_MOST_LABELS = 64
_MOST_LINES = 200_000
_MOST_MATCHES = 10 * MOST_SERIES

_LABEL = re.compile(r'[ \t]*([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"((?:[^"\\]|\\.)*)"[ \t]*,?')
_END_OF_LABELS = re.compile(r"[ \t]*}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", re.ASCII)
_ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}
_ESCAPE = re.compile(r"\\.")
_LARGEST = 1e30

# Of a family `name` these are the samples. Those of the first kinds only grow; the others are no level either.
_SUFFIXES = ("_total", "_bucket", "_count", "_sum", "_created")
_NO_LEVEL = {
    "counter": "is a counter, which only grows: its rate is a matter of a Prometheus",
    "histogram": "is of a histogram, which only grows: its rate is a matter of a Prometheus",
    "gaugehistogram": "is of a histogram, and no level",
    "summary": "is of a summary, which only grows: its rate is a matter of a Prometheus",
}


class PageError(ValueError):
    """A page, or what it says of a metric, cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Where a level may stand: the name of the series, and labels that they must have."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked of a page: the first of the candidates that is there, of the series that all terms admit.

    The level of one page is the sum over these series or, of a share, their mean.
    """

    name: str
    candidates: tuple[Candidate, ...]
    terms: tuple[SelectorTerm, ...] = ()
    is_share: bool = False


_QUEUE = (
    Candidate("vllm:num_requests_waiting"),
    Candidate("sglang:num_queue_reqs"),
    Candidate("tgi_queue_size"),
    Candidate("trtllm_num_requests_waiting"),
    # Triton with the TensorRT-LLM backend shows both; the second is of its own scheduler alone.
    Candidate("nv_trt_llm_request_metrics", (("request_type", "waiting"),)),
    Candidate("nv_inference_pending_request_count"),
)
_KV_CACHE = (
    Candidate("vllm:kv_cache_usage_perc"),
    Candidate("vllm:gpu_cache_usage_perc"),
    Candidate("sglang:token_usage"),
    Candidate("trtllm_kv_cache_utilization"),
    Candidate("nv_trt_llm_kv_cache_block_metrics", (("kv_cache_block_type", "fraction"),)),
)
KNOWN: Mapping[str, tuple[Candidate, ...]] = {"queue": _QUEUE, "kv-cache": _KV_CACHE}
"""Names that are understood whatever serves the model, and where its servers show them.

Of vLLM, SGLang, Text Generation Inference, trtllm-serve and Triton, as their documentations and the model server
protocol of the Gateway API inference extension have them.
"""


def query_for(name: str, terms: tuple[SelectorTerm, ...] = ()) -> Query:
    """Say what to look for on a page for the metric of a name: one that is known, or the name of series."""
    return Query(name, KNOWN.get(name, (Candidate(name),)), terms, is_share=name == "kv-cache")


@dataclass(frozen=True, slots=True)
class Series:
    """One series of a page; no value is one that is no number, or beyond all numbers."""

    labels: Mapping[str, str]
    value: Decimal | None


class Page:
    """What was found on one page of what queries ask for. Give it the pieces in order, and `end` it."""

    def __init__(self, queries: Iterable[Query]) -> None:
        names = {candidate.name for query in queries for candidate in query.candidates}
        self._found: dict[str, list[Series]] = {name: [] for name in names}
        self._types: dict[str, str] = {}
        self._pattern = _pattern({family for name in names for family in _families_of(name)})
        self._rest = b"\n"
        self._lines = 0
        self._matches = 0

    def feed(self, piece: bytes) -> None:
        """Read a piece. Raises PageError for a line that is not of this format, or too much of anything."""
        text = self._rest + piece
        end = text.rfind(b"\n")
        if len(text) - end > _LONGEST_LINE:
            raise PageError("a line is longer than 64 KiB")
        self._rest = text[end:]
        if end:
            self._read(text[: end + 1])

    def end(self) -> None:
        """Read what stands behind the last end of a line. Raises PageError."""
        self._read(self._rest + b"\n")
        self._rest = b"\n"

    def level(self, query: Query) -> Decimal:
        """Return the level that the page has for a query. Raises PageError."""
        for candidate in query.candidates:
            found = self._found[candidate.name]
            matching = [one for one in found if _matches(one.labels, candidate.labels, query.terms)]
            if not matching:
                continue
            if why := _NO_LEVEL.get(self._kind(candidate.name)):
                raise PageError(f"{candidate.name} {why}")
            values = [one.value for one in matching if one.value is not None]
            if not values:
                raise PageError(f"{candidate.name} is no number")
            return sum(values, Decimal(0)) / (len(values) if query.is_share else 1)
        if any(self._found[one.name] for one in query.candidates):
            raise PageError(f"no series of {query.name} has the labels that are asked for")
        known = f": none of {', '.join(one.name for one in query.candidates)}" if len(query.candidates) > 1 else ""
        raise PageError(f"there is no {query.name}{known}")

    def _kind(self, name: str) -> str:
        return next((self._types[family] for family in _families_of(name) if family in self._types), "")

    def _read(self, text: bytes) -> None:
        self._lines += text.count(b"\n") - 1
        if self._lines > _MOST_LINES:
            raise PageError(f"it has more than {_MOST_LINES} lines")
        for line in self._pattern.finditer(text):
            self._matches += 1
            if self._matches > _MOST_MATCHES:
                raise PageError("too many lines begin with the names that are asked for")
            is_type, name, rest = line.groups()
            self._take(name.decode(), rest.decode(errors="replace"), is_type=bool(is_type))

    def _take(self, name: str, rest: str, *, is_type: bool) -> None:
        if is_type:
            self._types[name] = rest.strip()
        elif name in self._found:
            if sum(map(len, self._found.values())) >= MOST_SERIES:
                raise PageError(f"more than {MOST_SERIES} series have the names that are asked for")
            self._found[name].append(_series(name, rest))


def level_of(text: str) -> Decimal | None:
    """Read a number as Prometheus writes it; None for NaN, for what is infinite or nearly so. Raises PageError."""
    if text.lower() in ("nan", "+inf", "-inf", "inf"):
        return None
    if len(text) > 64 or not _NUMBER.fullmatch(text):
        raise PageError("it is no number")
    number = float(text)
    return Decimal(repr(number)) if abs(number) < _LARGEST else None


def _pattern(names: Iterable[str]) -> re.Pattern[bytes]:
    """Find the lines that begin with one of these names, or tell its type: one search, however many names there are."""
    any_name = b"|".join(re.escape(name.encode()) for name in sorted(names))
    return re.compile(rb"\n(# TYPE )?(%b)(?=[{ \t])([^\n]*)" % any_name)


def _families_of(name: str) -> tuple[str, ...]:
    return (name, *(name.removesuffix(suffix) for suffix in _SUFFIXES if name.endswith(suffix)))


def _series(name: str, line: str) -> Series:
    """Read what stands behind the name: labels in braces, a value, and what nobody reads (time, exemplar)."""
    rest, labels = line.lstrip(" \t"), dict[str, str]()
    if rest.startswith("{"):
        at = 1
        while found := _LABEL.match(rest, at):
            labels[found[1]] = _ESCAPE.sub(lambda one: _ESCAPES.get(one[0], one[0]), found[2])
            at = found.end()
            if len(labels) > _MOST_LABELS:
                raise PageError(f"a series of {name} has more than {_MOST_LABELS} labels")
        if not (closing := _END_OF_LABELS.match(rest, at)):
            raise PageError(f"a line of {name} is not as Prometheus has it")
        rest = rest[closing.end() :]
    value = rest.split(maxsplit=1)[:1]
    if not value:
        raise PageError(f"a line of {name} is not as Prometheus has it")
    try:
        return Series(labels, level_of(value[0]))
    except PageError as error:
        raise PageError(f"a line of {name} is not as Prometheus has it") from error


def _matches(labels: Mapping[str, str], needed: Iterable[tuple[str, str]], terms: Iterable[SelectorTerm]) -> bool:
    return all(labels.get(key) == value for key, value in needed) and all(one.admits(labels) for one in terms)
