"""`decide`, and the table of rules that it applies: each either matches with a split or says why it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from controller.api.contract.route import Shares, Split
from controller.api.schema.scalars import format_duration
from controller.decision.decision import Decision, Memory, Overload, Reason, Verdict, WouldBe
from controller.decision.demand import Demand, NotYet, Projected, local_share
from controller.decision.facts import Facts, RemoteFacts, SentRequests, in_words, listed
from controller.decision.laws import (
    changes_at,
    demands_of,
    follow,
    is_doubted,
    is_proportional,
    measure,
    tells_nothing_yet,
    words_of,
)
from controller.decision.proportional import DOUBTED
from controller.decision.waits import measured_from
from controller.intent.intent import Terms

ALL_LOCAL = Split.away(0)
ALL_REMOTE = Split.away(100)
_NONE_LEAVES = Shares(local=100)

_UNASKED = "; whether the remote backend answers is not looked at"


@dataclass(frozen=True, slots=True)
class Situation:
    """What a rule sees. The memory has already observed the facts.

    `measured` is the demand behind each metric while something leaves for one.
    """

    terms: Terms
    facts: Facts
    memory: Memory
    now: datetime
    measured: tuple[Projected, ...] = ()


@dataclass(frozen=True, slots=True)
class Match:
    """The rule applies: the split it wants, why, what would end it, and when to look again.

    `would_be` is what another rule wants in its place. `measured` is as in `Decision`.
    """

    split: Split
    message: str
    returns: str
    wake_at: datetime | None = None
    would_be: WouldBe | None = None
    measured: str = ""


@dataclass(frozen=True, slots=True)
class Miss:
    """The rule does not apply, and why."""

    message: str


Rule = Callable[[Situation], Match | Miss]


def disabled(s: Situation) -> Match | Miss:
    """Nothing leaves unless the object asks for it."""
    if not s.terms.enabled:
        return Match(ALL_LOCAL, "spec.enabled is false, so every request stays local", "set spec.enabled to true")
    return Miss("enabled")


def shadow(s: Situation) -> Match | Miss:
    """Nothing leaves, and what would be is said: the other rules decide as if it were Threshold.

    It comes before those that find no remote backend: that nothing could leave is part of what would be.
    """
    if s.terms.behavior.mode != "Shadow":
        return Miss(f"behavior.mode is {s.terms.behavior.mode}")
    answers = ((reason, rule(s)) for reason, rule in RULES if rule is not shadow)
    reason, match = next((reason, answer) for reason, answer in answers if isinstance(answer, Match))
    words = "behavior.mode is Shadow, so every request stays local; with Threshold the split would be"
    return Match(
        ALL_LOCAL,
        f"{words} {match.split} ({reason}): {match.message}{_UNASKED if s.facts.remotes else ''}",
        "set behavior.mode to Threshold or Proportional",
        match.wake_at,
        WouldBe(match.split, reason),
        match.measured,
    )


def nothing_answers(s: Situation) -> Match | Miss:
    """No replica is ready, and what cannot be used is no remote backend: there is nothing to choose from."""
    if s.facts.remotes:
        return Miss("there is a remote backend")
    if s.facts.local.ready:
        return Miss(f"{s.facts.local.ready} of {s.facts.local.total} local replicas are ready")
    if s.facts.local.leaving:
        return Miss(f"{s.facts.local.leaving} local replicas still answer while they terminate")
    return Match(
        ALL_LOCAL,
        f"{_none_ready(s)}, and nothing else may answer: {s.facts.no_remote}",
        "a local replica becomes ready, or the remote backend can be used",
    )


def no_remote_backend(s: Situation) -> Match | Miss:
    """Nothing leaves while there is nowhere to go."""
    if s.facts.remotes:
        return Miss("there is a remote backend")
    last = "" if s.facts.local.ready else f"; {_none_ready(s)}"
    words = f"every request stays local: {s.facts.no_remote}{last}"
    return Match(ALL_LOCAL, words, "the remote backend can be used")


def override(s: Situation) -> Match | Miss:
    """A split set by hand comes before everything that is measured."""
    wanted = s.terms.override
    if wanted is None:
        return Miss("no override is set")
    if not wanted.in_force(s.now):
        return Miss(f"the override ended at {wanted.until:%Y-%m-%dT%H:%M:%SZ}")
    end = f"until {wanted.until:%Y-%m-%dT%H:%M:%SZ}" if wanted.until else "until the annotation is removed"
    each = s.terms.behavior.max_requests_per_replica
    # Envoy goes by the limit whatever the split is, for what the split leaves to the replicas.
    beside = (
        f"; what is more than {each} in flight for each replica leaves, too" if each and wanted.remote < 100 else ""
    )
    return Match(
        Split.away(wanted.remote),
        f"set by hand: {wanted.remote} % of the requests go to the remote backend, {end}{beside}",
        f"the override holds {end}",
        wanted.until,
    )


def paused(s: Situation) -> Match | Miss:
    """A paused model keeps the split that it had when the pause began. Envoy's own failover goes on."""
    held = s.memory.held
    if held is None:
        return Miss("not paused")
    return Match(held, f"paused: the split stays {held}", "remove the annotation beamlit.com/paused")


def local_down(s: Situation) -> Match | Miss:
    """No replica is ready: everything leaves at once, unless replicas that leave are all that still answers."""
    local, down = s.facts.local, _not_answering(s)
    if local.ready:
        return Miss(f"{local.ready} of {local.total} local replicas are ready")
    if local.leaving and down is not None:
        return Miss(f"{_none_ready(s)}, and the remote backend does not answer{down}")
    which = f", which does not answer{down}" if down is not None else ""
    words = f"{_none_ready(s)}, so every request goes to the remote backend{which}"
    return Match(ALL_REMOTE, words, "a local replica becomes ready")


def _none_ready(s: Situation) -> str:
    local = s.facts.local
    words = f"none of {local.total} local replicas is ready" if local.total else "there is no local replica"
    if not local.leaving:
        return words
    words = words if local.total else "no local replica is ready"
    return f"{words}, and those that still answer terminate ({local.leaving})"


def _not_answering(s: Situation) -> str | None:
    """Say in brackets why no remote backend answers; None while one does, or may do so."""
    healths = [one.health for one in s.facts.remotes]
    if any(one.healthy is not False for one in healths):
        return None
    message = next((one.message for one in healths if one.message), "")
    return f" ({message})" if message else ""


def remote_down(s: Situation) -> Match | Miss:
    """Remote backends that are known not to answer get nothing. One that answers, or may do so, is enough."""
    healths = [one.health for one in s.facts.remotes]
    answering = next((one for one in healths if one.healthy is not False), None)
    if answering is not None:
        return Miss("the remote backend answers" if answering.healthy else answering.message)
    last = "" if s.facts.local.ready else f"; {_none_ready(s)}"
    return Match(
        ALL_LOCAL,
        f"the remote backend does not answer{_not_answering(s)}, so every request stays local{last}",
        "the remote backend answers again",
    )


def recovering(s: Situation) -> Match | Miss:
    """A local side that was gone gets its traffic back in equal steps over `recoverAfter`: cold replicas stand that."""
    back = s.memory.local_back_at
    if back is None:
        return Miss("local was not down")
    whole, step = s.terms.behavior.recover_after, s.terms.behavior.step_interval
    steps = -(-whole // step)
    # A clock that was set back has not undone the first step.
    done = max((s.now - back) // step, 0)
    if done >= steps or s.now - back >= whole:
        return Miss(f"local has been ready again for {format_duration(whole)}")
    share = round(100 * (done + 1) / (steps + 1))
    if (away := leaving(s)) and 100 - share <= away:
        return Miss(f"local has {share} % of its traffic back by now, and {away} % leave for what is measured")
    local = s.facts.local
    # Meanwhile a metric may have been at its target for long enough that more leaves for it.
    moments = (back + (done + 1) * step, back + whole, changes_at(s.terms, s.memory, s.now))
    return Match(
        Split(local=share, remote=100 - share),
        f"local is ready again ({local.ready} of {local.total} replicas) and takes its traffic back: {share} % now",
        f"every request is local again {format_duration(whole)} after the first replica was ready",
        min(at for at in moments if at),
    )


def leaving(s: Situation) -> int:
    """How many percent leave for what was measured."""
    overload = s.memory.overload
    if overload is None or overload.withdrawn_at is not None:
        return 0
    if not _all_unknown(s):
        return overload.share
    # Threshold sends `percentage` already, or keeps a few for a while, which an answer that fails does not cut short.
    remote = s.terms.behavior.percentage if is_proportional(s.terms) else overload.share
    return {"Local": 0, "Remote": remote}.get(s.terms.behavior.on_unknown, overload.share)


def _all_unknown(s: Situation) -> bool:
    if tells_nothing_yet(s.facts.signals):
        return s.memory.reason is Reason.SIGNALS_UNKNOWN  # as it was
    return all(one.is_unknown for one in s.measured)


def overloaded(s: Situation) -> Match | Miss:
    """A metric was at or over its target for `offloadAfter`, and the demand behind it is not clear yet."""
    overload = s.memory.overload
    if overload is None:
        return Miss(_not_overloaded(s))
    if _all_unknown(s):
        return Miss("no metric can be read")
    if overload.withdrawn_at is not None:
        again = overload.withdrawn_at + s.terms.behavior.restore_after
        return Miss(
            f"no metric could be read at {_clock(overload.withdrawn_at)}: none leaves again before {_clock(again)}"
        )
    if overload.cleared_since is not None:
        return Miss(f"the demand is below every target since {_clock(overload.cleared_since)}")
    share, measured = leaving(s), s.measured
    kept = _kept_for(s, overload, measured)
    words = f"{overload.cause} at {_clock(overload.since)}{kept}: {share} % of the requests go to the remote backend"
    if overload.probing_since:
        words = f"{words}; the others stay to find out what the demand is"
    words = f"{words}{_too_little(overload)}"
    moment = changes_at(s.terms, s.memory, s.now)
    now = demands_of(measured) if overload.since != s.now else ""
    return Match(Split.away(share), words, _comes_back(s, measured), moment, measured=now)


def _kept_for(s: Situation, overload: Overload, measured: Iterable[Projected]) -> str:
    """Say which metrics keep requests away once those are clear for which they left; nothing while one of them does.

    It has no numbers, which change with each measurement: `returns` has them.
    """
    below, held = 1 - s.terms.behavior.tolerance, list[str]()
    for one in measured:
        name = in_words(one.signal.name)
        if one.is_clear(below):
            continue
        if f", {name} is " in f", {overload.cause}" or isinstance(one.demand, NotYet):
            return ""
        held.append(f"{name}, which is not known" if one.signal.state == "Unknown" else name)
    return f", kept for {listed(held)}" if held else ""


def _too_little(overload: Overload) -> str:
    """Say what the law learned, as the end of a sentence; nothing where it did not."""
    if overload.over_at is None or overload.over_share is None or not (overload.rate or overload.misled):
        return ""
    number = f"for {overload.rate:.3g} requests a second" if overload.rate else "for requests that are not counted"
    return f"; {overload.over_share} % were found to be too little at {_clock(overload.over_at)} {number}"


def _not_overloaded(s: Situation) -> str:
    if not s.facts.signals:
        return "no metric is measured"
    words = listed((words_of(one) for one in s.facts.signals), ", ")
    if not s.terms.behavior.percentage:
        return f"{words}; behavior.percentage is 0, so no request leaves for it"
    if since := s.memory.breached_since:
        return f"{words}; at or over its target since {_clock(since)}, requests leave after {_offload_after(s)} of it"
    return words


def _offload_after(s: Situation) -> str:
    return format_duration(s.terms.behavior.offload_after)


def _comes_back(s: Situation, measured: Iterable[Projected]) -> str:
    """Say what brings requests back, with the demand behind each metric."""
    behavior = s.terms.behavior
    demands = listed(f"{in_words(one.signal.name)}: {_demand(one)}" for one in measured)
    below = f"{1 - behavior.tolerance:.0%} of its target for {format_duration(behavior.restore_after)}"
    return f"the demand behind every metric stays below {below} ({demands})"


def _demand(found: Projected) -> str:
    return f"now {found.in_words}" if isinstance(found.demand, Demand) else found.in_words


def cooling_down(s: Situation) -> Match | Miss:
    """The demand that would come back is clear, but not for `restoreAfter` yet."""
    overload = s.memory.overload
    if overload is None or overload.cleared_since is None:
        return Miss("nothing left for a metric" if overload is None else "the demand is not clear")
    share = leaving(s)
    after, measured = format_duration(s.terms.behavior.restore_after), s.measured
    below = f"the demand is below every target since {_clock(overload.cleared_since)} ({demands_of(measured)})"
    words = f"{below}: {share} % still leave{_too_little(overload)}"
    if is_doubted(s.terms, s.facts, measured, overload, s.now):
        longer = format_duration(s.terms.behavior.restore_after * DOUBTED)
        after = f"{after} with fewer requests than when it began, or for {longer} with as many"
    elif s.now >= overload.cleared_since + s.terms.behavior.restore_after:
        measured_at = measured_from(s.terms.behavior.restore_after, overload.cleared_since)
        after = f"{after}, and something measured at {_clock(measured_at)} or later says so"
    return Match(Split.away(share), words, f"it stays so for {after}", changes_at(s.terms, s.memory, s.now))


def signals_unknown(s: Situation) -> Match | Miss:
    """Requests left for a metric, and none can be read any more: `onUnknown` says what becomes of them."""
    if s.memory.overload is None:
        return Miss("nothing left for a metric")
    if not _all_unknown(s):
        return Miss("a metric can be read")
    why = listed(dict.fromkeys(words_of(one) for one in s.facts.signals))
    does = {"Local": "every request is local", "Remote": f"{leaving(s)} % leave"}
    then = does.get(s.terms.behavior.on_unknown, f"{leaving(s)} % leave as before")
    words, moment = f"no metric can be read ({why}): {then}", changes_at(s.terms, s.memory, s.now)
    return Match(Split.away(leaving(s)), words, "a metric can be read again", moment)


def _clock(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def steady(s: Situation) -> Match | Miss:
    """Nothing asks for anything else."""
    local, each = s.facts.local, s.terms.behavior.max_requests_per_replica
    wake_at = changes_at(s.terms, s.memory, s.now)
    ready = f"{local.ready} of {local.total} local replicas are ready"
    back = f"; the last that had left came back at {s.memory.returned}" if s.memory.returned else ""
    if each is None:
        return Match(ALL_LOCAL, f"{ready}; no request is sent away{back}", "nothing has left", wake_at)
    limit = f"what is more than {each * local.ready} requests in flight ({each} for each) {_is_sent_away(s, each)}"
    return Match(ALL_LOCAL, f"{ready}; {limit}{back}", "what leaves is found anew for each request", wake_at)


def _is_sent_away(s: Situation, each: int) -> str:
    """Say that the excess leaves; with Shadow that it would, and how much of what is in flight now, when any is."""
    if s.terms.may_leave:
        return "is sent away"
    flying = s.facts.traffic.in_flight if isinstance(s.facts.traffic, SentRequests) else 0
    room = each * s.facts.local.ready
    now = f": {flying - room} of {flying} now ({1 - room / flying:.0%})" if flying > room else ""
    return f"would be sent away{now}"


RULES: tuple[tuple[Reason, Rule], ...] = (
    (Reason.DISABLED, disabled),
    (Reason.SHADOW, shadow),
    (Reason.NOTHING_ANSWERS, nothing_answers),
    (Reason.NO_REMOTE_BACKEND, no_remote_backend),
    (Reason.OVERRIDE, override),
    (Reason.PAUSED, paused),
    (Reason.LOCAL_DOWN, local_down),
    (Reason.REMOTE_DOWN, remote_down),
    (Reason.RECOVERING, recovering),
    (Reason.OVERLOADED, overloaded),
    (Reason.COOLING_DOWN, cooling_down),
    (Reason.SIGNALS_UNKNOWN, signals_unknown),
    (Reason.STEADY, steady),
)


def allocate(split: Split, remotes: tuple[RemoteFacts, ...]) -> Shares:
    """Share out what leaves: all of it to the first remote backend that is not known to be down."""
    if not split.remote:
        return _NONE_LEAVES
    name = next((one.name for one in remotes if one.health.healthy is not False), remotes[0].name)
    return Shares.of({name: split.remote})


def decide(terms: Terms, facts: Facts, memory: Memory, now: datetime) -> tuple[Decision, Memory]:
    """Decide the split of one model at `now` (UTC), and what to remember of it.

    Every rule is asked, so that the record explains also why the others did not apply; the first match wins.
    """
    healthy = facts.remotes[0].health.healthy if facts.remotes else None
    memory = memory.not_after(now).observing(facts.local.ready, now).hearing(healthy, now).pausing(terms.paused)
    if memory.local_back_at is not None and now - memory.local_back_at >= terms.behavior.recover_after:
        memory = memory.recovered()
    memory = follow(terms, facts, memory, now)
    situation = Situation(terms, facts, memory, now, measure(facts, memory) if memory.overload else ())
    answers = [(reason, rule(situation)) for reason, rule in RULES]
    reason, match = next((reason, answer) for reason, answer in answers if isinstance(answer, Match))
    decision = Decision(
        split=match.split,
        shares=allocate(match.split, facts.remotes),
        reason=reason,
        message=match.message,
        returns=match.returns,
        verdicts=tuple([Verdict(reason, isinstance(answer, Match), answer.message) for reason, answer in answers]),
        wake_at=match.wake_at,
        would_be=match.would_be,
        measured=match.measured,
    )
    oldest = min((one.at - one.window for one in facts.signals if one.at), default=None)
    # What is counted is of the last seconds, and leaves out what failed at the remote backend: no more stayed before.
    stayed = min(local_share(facts, memory.split), memory.split.local / 100 if memory.split else 1.0)
    return decision, memory.deciding(decision, now, stayed, oldest)
