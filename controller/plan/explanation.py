"""Why a model's requests go where they go, read from its status: the record of one decision, and nothing computed anew.

The controller writes what every rule said into the status (`verdicts`), so an explanation is that of the program which
decided, whatever version explains it (docs/adr/0035). Rules are shown as they stand there: this module knows none.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from controller.api.contract.reports import RouteReport
from controller.api.contract.status import Condition, ModelDeploymentStatus, SignalStatus, SplitStatus, VerdictStatus
from controller.api.resources.model import OVERRIDE, PAUSED
from controller.api.schema.text import printable
from controller.decision import SentRequests
from controller.observe.index import previous_status
from controller.store.objects import StoredObject

_BY_HAND = (PAUSED, OVERRIDE)


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything that there is to say of one model at `now` (UTC).

    `envoys` is what the xDS server says of its route, `traffic` what Envoys sent lately by the present split and
    `counted_at` when a status said so; None where that is not known.
    """

    stored: StoredObject
    status: ModelDeploymentStatus
    now: datetime
    envoys: RouteReport | None = None
    traffic: SentRequests | None = None
    counted_at: datetime | None = None

    @property
    def verdicts(self) -> tuple[VerdictStatus, ...]:
        """What every rule said, in order."""
        return self.status.verdicts or ()

    @property
    def winner(self) -> VerdictStatus | None:
        """The rule that decided: the first that matched."""
        return next((one for one in self.verdicts if one.matched), None)

    @property
    def runner_up(self) -> VerdictStatus | None:
        """The rule that would decide without the winner, with all else as it is."""
        return next((one for one in self.verdicts if one.matched and one != self.winner), None)

    @property
    def attention(self) -> tuple[str, ...]:
        """What somebody should look at: a status that is behind, conditions that tell of a fault."""
        return tuple(_attention(self))

    @property
    def more(self) -> Mapping[str, str]:
        """What no status says, and the command that does: of a cluster, for who may read what runs there.

        What xDS servers report is of all models of all namespaces, and is told to controllers alone.
        """
        if self.envoys or not self.status.controller:
            return {}
        # Whoever may write a status chose that word, and somebody else gives it to a shell.
        kubectl = f"kubectl -n {shlex.quote(self.status.controller.partition('/')[0])}"
        pods, ref = f"{kubectl} get pods -l app.kubernetes.io/component", self.stored.ref
        forward = f"{kubectl} port-forward $({pods}=xds-server -o name | head -1) 19000"
        wanted = f'beamlit_model_requests.*name="{ref.name}",namespace="{ref.namespace}"'
        # Each may be given to a shell as it stands; the last while the one before it runs.
        return {
            "envoys": f"{pods}=gateway",
            "forward": forward,
            "requests": f"curl -s 127.0.0.1:19000/metrics | grep {shlex.quote(wanted)}",
        }

    def as_object(self) -> dict[str, Any]:
        """Return it as JSON: what the status says by the same names, and what follows from it."""
        written = self.status.as_object()
        winner, runner_up = self.winner, self.runner_up
        found: dict[str, Any] = {
            "namespace": self.stored.ref.namespace,
            "name": self.stored.ref.name,
            "at": _moment(self.now),
            "attention": list(self.attention),
            "split": written.get("split"),
            "traffic": _traffic(self),
            "detour": written.get("detour"),
            "offloading": _condition(written, "Offloading"),
            "failingOver": _condition(written, "FailingOver"),
            "signalsAvailable": _condition(written, "SignalsAvailable"),
            "byHand": by_hand(self.stored),
            "rules": [
                {**one, "decides": winner is not None and one["rule"] == winner.rule}
                for one in written.get("verdicts", ())
            ],
            "wouldDecideNext": runner_up.rule if runner_up else None,
            "notTheCause": [one.rule for one in self.verdicts if not one.matched],
            "programmed": _condition(written, "Programmed"),
            "envoys": self.envoys and self.envoys.model_dump(mode="json", by_alias=True),
            "more": self.more or None,
            **{name: written.get(name) for name in ("local", "remote", "signals", "history")},
        }
        return {name: value for name, value in found.items() if value is not None}

    def as_text(self) -> str:
        """Return it for people, without any character that a terminal would obey."""
        return "".join(f"{printable(line).rstrip()}\n" for line in _text(self))


def explain(
    stored: StoredObject, now: datetime, envoys: RouteReport | None = None, traffic: SentRequests | None = None
) -> Explanation:
    """Explain a model as the store has it; a part of the status that cannot be read counts as not written."""
    status = previous_status(stored)
    counted_at, written = None, status.traffic
    if traffic is None and written:
        traffic, counted_at = SentRequests(written.local, written.remote, written.seconds), written.at
    return Explanation(stored, status, now, envoys, traffic, counted_at)


def by_hand(stored: StoredObject) -> Mapping[str, str]:
    """Return those of its annotations by which somebody directs a model by hand."""
    annotations = stored.metadata.get("annotations") or {}
    return {name: str(annotations[name]) for name in _BY_HAND if name in annotations}


def _attention(known: Explanation) -> Iterator[str]:
    status, generation = known.status, known.stored.generation
    if not status.observed_generation:
        yield "no controller has looked at this model yet"
        return
    if status.observed_generation < generation:
        yield f"the last edit is not decided on yet: it is generation {generation}, not {status.observed_generation}"
    if status.split is None:
        yield "the model is not served, so nothing is decided"
    elif not known.verdicts:
        yield "a controller of an older version wrote this status: it does not say what each rule said"
    for one in status.conditions:
        if _is_a_fault(one):
            yield f"{one.type} is {one.status}, {one.reason}: {one.message}".removesuffix(": ")


def _is_a_fault(condition: Condition) -> bool:
    """Say whether a condition tells of something wrong; the health of both sides and the Envoys is told anyway."""
    match condition.type:
        case "Accepted":
            return condition.reason != "Accepted"
        case "ResolvedRefs" | "Ready":
            return condition.status != "True"
        case "SignalsAvailable":
            return condition.status == "False"
        case "FailingOver":
            return condition.status == "True"
    return False


def _text(known: Explanation) -> Iterator[str]:
    status, split = known.status, known.status.split
    leaves = " by the split, and some left by themselves lately" if _leaving_by_themselves(known) else ""
    yield f"{known.stored.ref.namespace}/{known.stored.ref.name}: {_where(split)}{leaves}"
    yield ""
    for label, words in _facts(known):
        yield f"  {label:<12} {words}"
    if known.attention:
        yield ""
        yield "Look at:"
        yield from (f"  {words}" for words in known.attention)
    if known.verdicts:
        yield ""
        yield "Rules: the first that applies decides."
        yield from _rules(known)
    if status.history:
        yield ""
        yield "Last decisions, newest first:"
        for one in status.history:
            often = f" ({one.times} times since {_moment(one.since)})" if one.times and one.since else ""
            yield f"  {_moment(one.at)}  {one.split:<6}  {one.reason}{often}: {one.message}"


def _where(split: SplitStatus | None) -> str:
    if split is None:
        return "not served"
    if not split.remote:
        return "every request stays local"
    if not split.local:
        return "every request goes to the remote backend"
    return f"{split.local} % of the requests stay local, {split.remote} % go to the remote backend"


def _leaving_by_themselves(known: Explanation) -> str:
    """Return what tells of requests that leave though the split keeps them; empty if none does."""
    status = known.status
    if status.split is None:
        return ""
    if status.detour:
        return status.detour.message if status.detour.to_remote else ""
    # The version before wrote none; it says so of those that leave while the split keeps all.
    offloading = status.condition("Offloading")
    return offloading.message if offloading and offloading.status == "True" and not status.split.remote else ""


def _facts(known: Explanation) -> Iterator[tuple[str, str]]:
    status, now = known.status, known.now
    if split := status.split:
        yield "decided", f"{split} {split.reason}, since {_moment(split.since)} ({_span(now - split.since)} ago)"
        yield "because", split.message
        if split.returns:
            yield "returns", split.returns
        if split.changes_at:
            yield "by itself", f"may change at {_moment(split.changes_at)} ({_ahead(split.changes_at - now)})"
        elif known.verdicts:
            yield "by itself", "time alone changes nothing"
    failing = status.condition("FailingOver")
    if detour := _leaving_by_themselves(known) or (failing and failing.message):
        ago = f", counted {_span(now - known.counted_at)} ago" if known.counted_at else ""
        sent = f"{_sent(known.traffic)}{ago}; " if known.traffic else ""
        yield "measured", f"{sent}{detour}"
    if known.runner_up and known.winner:
        yield "without it", f"{known.runner_up.rule} would decide: {known.runner_up.message}"
    if local := status.local:
        capacity = f", which take {local.capacity} requests in flight" if local.capacity is not None else ""
        yield "local", f"{local.ready} of {local.total} replicas are ready{capacity}"
    if remote := status.remote:
        answers = "answers" if remote.healthy else "is not checked yet" if remote.healthy is None else "does not answer"
        yield "remote", f"{remote.host} {answers}{f': {remote.message}' if remote.message else ''}"
    yield from (("metric", _metric(one, now)) for one in status.signals or ())
    for name, value in by_hand(known.stored).items():
        yield "by hand", f"{name}: {value!r}"
    if programmed := status.condition("Programmed"):
        count = f" ({_of_envoys(known.envoys)})" if known.envoys else ""
        yield "programmed", f"{programmed.status}: {programmed.message}{count}"
    if more := known.more:
        yield "see envoys", more["envoys"]
        yield "see requests", more["forward"]
        yield "meanwhile", more["requests"]


def _traffic(known: Explanation) -> Mapping[str, Any] | None:
    if known.traffic is None:
        return None
    at = {"at": _moment(known.counted_at)} if known.counted_at else {}
    return {**{name: getattr(known.traffic, name) for name in ("local", "remote", "seconds")}, **at}


def _sent(traffic: SentRequests) -> str:
    if not traffic.total:
        return "no request lately"
    span, share = f"{traffic.seconds:.0f} s, " if traffic.seconds else "", f"{traffic.remote / traffic.total:.0%}"
    return f"{traffic.remote} of the last {traffic.total} requests ({span}{share}) left"


def _metric(signal: SignalStatus, now: datetime) -> str:
    since = f" since {_moment(signal.since)}" if signal.since else ""
    if signal.current is None:
        return f"{signal.name} is not known{since}, its target is {signal.target}: {signal.message}"
    at = f", measured {_span(now - signal.at)} ago" if signal.at else ""
    over = f", over {signal.window}{_SAYS.get(signal.window_from or '', '')}" if signal.window else ""
    return f"{signal.name} is {signal.current}, its target is {signal.target}: {signal.state}{since}{at}{over}"


_SAYS = {
    "Query": " (the longest range of its query)",
    "Assumed": " (assumed, since its source does not say: the metric's `window` does)",
}
"""Who says what a metric is an average over, if neither its author nor its source does."""


def _rules(known: Explanation) -> Iterator[str]:
    longest = max(len(one.rule) for one in known.verdicts)
    for number, one in enumerate(known.verdicts, 1):
        verdict = "decides" if one == known.winner else "applies" if one.matched else "no"
        yield f"  {number:>2}  {one.rule:<{longest}}  {verdict:<7}  {one.message}"
    if excluded := [one.rule for one in known.verdicts if not one.matched]:
        yield f"  Not the cause: {', '.join(excluded)}."


def _of_envoys(report: RouteReport) -> str:
    waiting = f", waiting for {', '.join(report.waiting)}" if report.waiting else ""
    return f"{report.programmed} of {report.connected} Envoys{waiting}"


def _condition(written: Mapping[str, Any], type_: str) -> Mapping[str, Any] | None:
    return next((one for one in written["conditions"] if one["type"] == type_), None)


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _ahead(left: timedelta) -> str:
    return f"in {_span(left)}" if left > timedelta(0) else "any moment now"


def _span(span: timedelta) -> str:
    """Write a span of time in its two largest units, such as 2h5m; none is 0s."""
    seconds = max(int(span.total_seconds()), 0)
    units = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    parts: list[str] = []
    for unit, size in units:
        number, seconds = divmod(seconds, size)
        if number or parts:
            parts.append(f"{number}{unit}" if number else "")
        if len(parts) == 2:
            break
    return "".join(parts) or "0s"
