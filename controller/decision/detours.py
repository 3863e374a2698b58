"""Detours: requests that Envoy serves from the other side by itself, against the split. Pure.

Envoy fails over without asking anybody, and has its own opinion of replicas. So the split that was decided is not
always where requests go; what Envoys report of their load tells.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from controller.api.contract.route import Split
from controller.decision.facts import LocalFacts, SentRequests, Unknown

OVERFLOW = "Overflow"
"""The reason of requests that leave since the replicas are full."""

REPLICAS_FAIL = "ReplicasFail"
"""The reason of requests that leave since some replicas fail them, or Envoy's check."""

NOT_USED = ("ReplicasNotUsed", "RemoteNotUsed")
"""The reasons of requests that went elsewhere since one side gets nothing at all."""

_LATE = ", or they answer later than firstByteTimeout: a request is asked of both sides then, and counts at each"


@dataclass(frozen=True, slots=True)
class Detour:
    """That Envoy serves from the other side by itself: why, in one word, and in a sentence with what was counted."""

    reason: str
    message: str

    @property
    def to_remote(self) -> bool:
        """Whether what shall stay leaves."""
        return self.reason == OVERFLOW or self.reason.startswith("Replicas")


def elsewhere(
    split: Split, traffic: SentRequests | Unknown, local: LocalFacts, *, is_limited: bool, is_hedged: bool = False
) -> tuple[Detour | None, Detour | None]:
    """Say whether Envoy serves from the other side by itself, and whether the excess leaves by a limit: one at most.

    Unknown traffic is no sign of either. `is_hedged` says that there is a `firstByteTimeout`: a replica that is late is
    then a cause, too, and what it is late with was sent to both sides.
    """
    if isinstance(traffic, Unknown):
        return None, None
    found = detour(split, traffic, local, may_leave=is_limited)
    excess = overflow(split, traffic) if is_limited and not found else None
    return (_or_late(found), _or_late(excess)) if is_hedged else (found, excess)


def detour(split: Split, traffic: SentRequests, local: LocalFacts, *, may_leave: bool) -> Detour | None:
    """Say whether requests went elsewhere than the split sends them; `may_leave` says that the excess may, by a limit.

    Where all requests have one side, a single one at the other counts. Between, what is not by chance does: of the last
    seconds, or that one side got none for minutes. With a limit, what leaves is what the replicas have no room for,
    unless they get nothing at all, or half of it may have failed there.
    """
    away = split.remote / 100
    expected = away * traffic.total
    if 0 < away < 1 and not traffic.deviates(split):
        one_sided = (one for one in (traffic, traffic.run) if one and one.skips_a_side(split))
        return next((_unused(split, one, local) for one in one_sided), None)
    if (beyond := traffic.remote - expected) > 0:
        # A replica that is full refuses nothing: what failed there failed for another reason.
        has_no_room = may_leave and traffic.local and 2 * traffic.failed < beyond
        return None if has_no_room else _to_remote(split, traffic, local)
    return _to_local(split, traffic) if traffic.remote < expected else None


def overflow(split: Split, traffic: SentRequests) -> Detour | None:
    """Say whether requests left since the replicas were full: with a limit, that is as it shall be, and no detour.

    It is asked where there is no detour: where requests left since replicas fail them, there is one.
    """
    if not traffic.local or traffic.remote <= split.remote / 100 * traffic.total:
        return None
    if split.remote and not traffic.deviates(split):
        return None
    words = f"{_counted(traffic.remote, traffic)} went to the remote backend at a split of {split}"
    but = f", and {_failed(traffic)}" if traffic.failed else ""
    return Detour(OVERFLOW, f"{words}: what the replicas have no room for leaves{but}")


def still_unused(reason: str, split: Split, traffic: SentRequests, local: LocalFacts) -> Detour | None:
    """Say that a side that was told to get nothing, by a `reason`, still gets nothing of the few that come.

    They need not be as many as it took to tell it first: that number moves with each request.
    """
    run = traffic.run
    if run is None or not run.total or not 0 < split.remote < 100:
        return None
    found = _unused(split, run, local)
    return found if found.reason == reason else None


def _unused(split: Split, traffic: SentRequests, local: LocalFacts) -> Detour:
    return _to_remote(split, traffic, local) if traffic.remote else _to_local(split, traffic)


def _to_remote(split: Split, traffic: SentRequests, local: LocalFacts) -> Detour:
    went = f"{_counted(traffic.remote, traffic)} went to the remote backend at a split of {split}"
    ready = f"{local.ready} of {local.total} replicas are ready"
    and_failed = f"; {_failed(traffic)}" if traffic.failed else ""
    if traffic.local:
        return Detour(REPLICAS_FAIL, f"{went}, though {ready}{and_failed}: some fail requests or Envoy's check")
    words = "Envoy uses none, they fail requests or its check"
    return Detour("ReplicasNotUsed", f"{went}, though {ready}{and_failed}: {words}")


def _or_late(found: Detour | None) -> Detour | None:
    """Say that replicas may also be late; where they get nothing at all, they are not."""
    if found is None or found.reason not in (REPLICAS_FAIL, OVERFLOW):
        return found
    return replace(found, message=found.message + _LATE)


def _to_local(split: Split, traffic: SentRequests) -> Detour:
    words = f"{_counted(traffic.local, traffic)} went to the replicas at a split of {split}: the remote backend fails"
    return Detour("RemoteFails" if traffic.remote else "RemoteNotUsed", words)


def _failed(traffic: SentRequests) -> str:
    """Write how often replicas failed: one request may have failed at two of them."""
    return f"{traffic.failed} {'try' if traffic.failed == 1 else 'tries'} failed at replicas"


def _counted(number: int, traffic: SentRequests) -> str:
    span = f" ({traffic.seconds:.0f} s)" if traffic.seconds else ""
    return f"{number} of the last {traffic.total} requests{span}"
