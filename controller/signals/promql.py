"""External metrics from a Prometheus: what is asked of it in PromQL, and what its answer says.

The query of a model is that of its author, and is asked with the rights of the controller: what one may read there, all
may. What a query costs is bounded (time, series, bytes), one that many models of a namespace need is asked once, and
namespaces take turns.
"""

from __future__ import annotations

import contextlib
import json
import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from controller.api.resources.configuration import PrometheusConfiguration
from controller.api.resources.metrics import MetricByName, MetricIdentifier, MetricSpec, SelectorTerm
from controller.api.timing import PollTiming
from controller.decision.facts import Cause, Known, Measurement, Sample, Unknown, WindowFrom
from controller.signals.bounded_http import BoundedHttp, BoundedRequest, cause_of
from controller.signals.exposition import PageError, level_of
from controller.signals.poller import Poller, SourceError, Tell
from controller.signals.ranges import range_of
from controller.signals.source import ASSUMED, Subject

MOST_SERIES = 1000
"""Series of one answer: more are no metric, but a mistake."""
_MOST_BYTES = 4 * 2**20
_LONGEST_TOKEN = 2**16
_LONGEST_WORDS = 200
_MOST_NOTES = 5
_LATEST = 1e12  # Seconds since 1970 that are a time.
_OLDEST_SAMPLE = 86_400.0  # Seconds: what is older is shown as that old.

# Prometheus documentation, "Data model": what needs no quotes in a query.
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
# The same, "Querying": "Instant vector selectors". What is in braces is read as far as its texts.
_SELECTOR = re.compile(
    r"""\s*(?:[a-zA-Z_:][a-zA-Z0-9_:]*\s*|(?=\{))"""
    r"""(?:\{(?:[^{}"'`\#]|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`)*\}\s*)?"""
)
# RE2, "Syntax": what has a meaning of its own.
_SPECIAL = re.compile(r"[\\.+*?()|\[\]{}^$]")

# util/annotations of Prometheus: what is about the query and its samples begins with one of these; before there were
# `infos`, warnings were of both kinds, and in Thanos they are yet. Any other warning is of who was asked for samples: a
# remote storage, or a store of Thanos, that gave none does not make a query fail.
_OF_THE_QUERY = ("PromQL warning", "PromQL info")

# Prometheus documentation, "HTTP API": 400, 422 and 503 say in JSON what is wrong with a query.
_STATUSES = (200, 400, 422, 503)


def query_for(metric: MetricIdentifier) -> str | Unknown:
    """Write what is asked: the series of a name that the selector admits, or the expression that the name is."""
    terms = metric.selector.terms if metric.selector else ()
    if not _NAME.fullmatch(metric.name):
        if terms:
            why = "a selector goes with the name of a metric: an expression has its own"
            return Unknown(why, cause=Cause.INVALID)
        return metric.name
    return metric.name + (f"{{{','.join(map(_matcher, terms))}}}" if terms else "")


def _matcher(term: SelectorTerm) -> str:
    key = term.key if _LABEL.fullmatch(term.key) else _quoted(term.key)
    match term.operator:
        case "Exists":
            return f'{key}=~".+"'
        case "DoesNotExist":
            return f'{key}=""'
        case "NotIn":
            return f"{key}!~{_quoted(_any_of(term.values))}"
    if len(term.values) == 1:
        return f"{key}={_quoted(term.values[0])}"
    return f"{key}=~{_quoted(_any_of(term.values))}"


def _any_of(values: Sequence[str]) -> str:
    return "|".join(_SPECIAL.sub(r"\\\g<0>", value) for value in values)


def _quoted(text: str) -> str:
    # The escapes of JSON are among those of PromQL.
    return json.dumps(text, ensure_ascii=False)


def dated(query: str) -> str:
    """Ask for the same, and when the oldest of these samples was taken, where series are selected and nothing else.

    The last sample of each counts, of up to five minutes ago, and the time in an answer is that of the query. Of an
    expression nobody knows it. What is older than the newest of them by more than a minute is taken to be that old: a
    series that is gone without a staleness marker (docs/adr/0083).
    """
    if not _SELECTOR.fullmatch(query):
        return query
    taken_at = f"timestamp({query})"
    oldest = f"clamp_min(min({taken_at}), scalar(max({taken_at}) - {ASSUMED.total_seconds():.0f}))"
    return f'{query} or label_replace({oldest}, "beamlit_oldest", "1", "", "")'


@dataclass(frozen=True, slots=True)
class Answer:
    """A number, what Prometheus says beside it, and how old the oldest of its samples is; None for not said.

    It `lacks` what was not there to be asked, as Prometheus says: the number is of the rest.
    """

    value: Decimal
    note: str = ""
    age: timedelta | None = None
    lacks: Unknown | None = None


def answer_of(body: bytes, status: int = 200) -> Answer:
    """Read an answer: a number, or the sum of several series as the HPA takes it. Raises SourceError."""
    answer, age = _answer(body, status), None
    warnings, infos = _texts(answer.get("warnings")), _texts(answer.get("infos"))
    partial = [one for one in warnings if not one.startswith(_OF_THE_QUERY)]
    if answer.get("isPartial") is True:
        partial.append("isPartial")
    lacks = Unknown(_words(f"the answer lacks a part: {_listed(partial)}"), cause=Cause.NOT_ANSWERING)
    match answer.get("data"):
        case {"resultType": "scalar", "result": [_, str(number)]}:
            value = _number(number)
        case {"resultType": "vector", "result": list(found)}:
            series, age = _without_age(found)
            if partial and not series:
                raise SourceError(lacks.why, Cause.NOT_ANSWERING)  # who was not asked may have it
            value = _sum(series)
        case {"resultType": "string"}:
            raise SourceError("the answer is a text, not a number", Cause.INVALID)
        case {"resultType": "matrix"}:
            raise SourceError("the answer is a range of values: ask for one, as with avg_over_time", Cause.INVALID)
        case _:
            raise SourceError("the answer is not as Prometheus answers")
    return Answer(value, _listed([*warnings[:_MOST_NOTES], *infos]), age, lacks if partial else None)


def _answer(body: bytes, status: int) -> Mapping[str, Any]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    match answer:
        case {"status": "success"} if status == 200:
            return dict(answer)
        case {"status": "error", "error": str(error)}:
            # 400 and 422 are for what was asked, 503 for a query that took too long.
            cause = Cause.INVALID if status in (400, 422) else cause_of(status)
            raise SourceError(f"Prometheus says: {_words(error)}", cause)
    if status == 200:
        raise SourceError("the answer is not as Prometheus answers")
    raise SourceError(f"the answer is {status}", cause_of(status))


def _without_age(found: Sequence[Any]) -> tuple[Sequence[Any], timedelta | None]:
    """Separate the series from what `dated` asked for beside them. It is compared by the clock of Prometheus alone."""
    series, age = [], None
    for one in found:
        match one:
            case {"metric": {"beamlit_oldest": _}, "value": [float() | int() as now, str(number)]}:
                if not abs(now) < _LATEST:  # nor is NaN
                    raise SourceError("the answer is not as Prometheus answers")
                age = timedelta(seconds=min(max(now - float(_number(number)), 0.0), _OLDEST_SAMPLE))
            case _:
                series.append(one)
    return series, age


def _sum(series: Sequence[Any]) -> Decimal:
    if not series:
        raise SourceError("no series matches", Cause.NO_SUCH_METRIC)
    if len(series) > MOST_SERIES:
        raise SourceError(f"more than {MOST_SERIES} series match: ask for less, as with sum()", Cause.INVALID)
    total = Decimal(0)
    for one in series:
        match one:
            case {"value": [_, str(number)]}:
                total += _number(number)
            case {"histogram": _}:
                why = "a histogram is no number: ask for one of it, as with histogram_quantile()"
                raise SourceError(why, Cause.INVALID)
            case _:
                raise SourceError("the answer is not as Prometheus answers")
    return total


def _number(text: str) -> Decimal:
    try:
        number = level_of(text)
    except PageError as error:
        raise SourceError("the answer is not as Prometheus answers") from error
    if number is None:
        raise SourceError(f"{text} was measured, which is no number")
    return number


def _texts(given: object) -> list[str]:
    return [one for one in given if isinstance(one, str)] if isinstance(given, list) else []


def _listed(texts: Sequence[str]) -> str:
    return "; ".join(map(_words, texts[: 2 * _MOST_NOTES]))[:_LONGEST_WORDS]


def _words(text: str) -> str:
    """Cut what somebody else wrote to one short line that can be printed."""
    line = " ".join("".join(one if one.isprintable() else " " for one in text[: 10 * _LONGEST_WORDS]).split())
    return line if len(line) <= _LONGEST_WORDS else f"{line[: _LONGEST_WORDS - 3]}..."


class _Asked(NamedTuple):
    """A query, and on whose behalf it is asked: what is expensive to one namespace is no other's matter."""

    namespace: str
    query: str


@dataclass(frozen=True, slots=True)
class _Measured:
    """What was measured, and how long before its answer. The same number of another moment is no news."""

    measurement: Measurement
    before: timedelta = field(compare=False)


class Prometheus:
    """Measures External metrics by instant queries; what was asked lately is asked again and again.

    Raises OSError (or ssl.SSLError, which is one) for a file of authorities that cannot be read. `clock` is UTC.
    """

    def __init__(
        self, configuration: PrometheusConfiguration, timing: PollTiming, clock: Callable[[], datetime]
    ) -> None:
        self._configuration = configuration
        self._timeout = timing.answer
        self._clock = clock
        self._authorities = _state_of(configuration.ca_file)
        self._tls = ssl.create_default_context(cafile=configuration.ca_file)
        self._http = BoundedHttp(_MOST_BYTES, timing.at_once, self._tls)
        self._poller: Poller[_Asked, _Measured] = Poller(self._ask, timing, clock, lambda one: one.namespace)

    def sample(self, subject: Subject, metric: MetricSpec, now: datetime) -> Sample:
        """See `MetricSource`."""
        source = metric.source
        assert isinstance(source, MetricByName), "External metrics have names"
        query = query_for(source.metric)
        if isinstance(query, Unknown):
            return query
        found = self._poller.look(_Asked(subject.ref.namespace, query), subject.ref, now)
        if isinstance(found, Unknown):
            return found
        measured = found.value
        # The answer is one for all who ask so, and each of them divides it by its own replicas for an average.
        return Known(replace(measured.measurement, pods=subject.scale), found.at - measured.before)

    async def run(self, tell: Tell) -> None:
        """See `PolledSource`."""
        async with self._http.opened():
            await self._poller.run(tell)

    async def _ask(self, asked: _Asked) -> _Measured:
        self._renew_authorities()
        body, begun = bytearray(), self._clock()
        form = urlencode(
            # One series more than is good tells that there are too many; another one tells how old they are.
            {"query": dated(asked.query), "timeout": f"{self._timeout:g}s", "limit": MOST_SERIES + 2},
            errors="replace",
        )
        request = BoundedRequest(
            f"{self._configuration.url}/api/v1/query", self._headers(), form.encode(), statuses=_STATUSES
        )
        status = await self._http.read(request, body.extend)
        answer, window, said_by = answer_of(bytes(body), status), range_of(asked.query), WindowFrom.QUERY
        if answer.age is None and not window:
            # A range has all of its samples in it. Without one they are of before, by as much as a scrape is ago.
            window, said_by = ASSUMED, WindowFrom.ASSUMED
        measured = Measurement(answer.value, window=window, window_from=said_by, note=answer.note, lacks=answer.lacks)
        took = max(self._clock() - begun, timedelta(0))
        return _Measured(measured, took + (answer.age or timedelta(0)))

    def _renew_authorities(self) -> None:
        """Trust those that are in the file since it was replaced, from the next connection on.

        A file that cannot be read, or is written just now, is read again before the next question.
        """
        state = _state_of(self._configuration.ca_file)
        if state is None or state == self._authorities:
            return
        with contextlib.suppress(OSError):  # an ssl.SSLError is one
            self._tls.load_verify_locations(self._configuration.ca_file)
            self._authorities = state

    def _headers(self) -> Mapping[str, str]:
        configuration, headers = self._configuration, {"accept": "application/json"}
        if configuration.tenant:
            headers["x-scope-orgid"] = configuration.tenant
        if configuration.bearer_token_file:
            # Read each time: the kubelet and others renew it.
            headers["authorization"] = f"Bearer {_token(Path(configuration.bearer_token_file))}"
        return headers


def _state_of(file: str | None) -> tuple[int, ...] | None:
    """Say what changes when a file is replaced or written; None for one that is not there."""
    try:
        found = Path(file).stat() if file else None
    except OSError:
        return None
    return (found.st_ino, found.st_mtime_ns, found.st_size) if found else None


def _token(path: Path) -> str:
    try:
        with path.open("rb") as file:
            token = file.read(_LONGEST_TOKEN).decode("ascii").strip()
    except (OSError, UnicodeError) as error:
        raise SourceError("the file of the token (bearerTokenFile) cannot be read", Cause.NOT_PERMITTED) from error
    if not token or not token.isprintable() or " " in token:
        raise SourceError("the file of the token (bearerTokenFile) holds no token", Cause.NOT_PERMITTED)
    return token
