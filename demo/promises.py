"""What the README promises, held against what happened. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from controller.api.timing import REAL
from demo.outcome import Outcome, Phase, broke_off
from tests.support.load import most, steps_of


@dataclass(frozen=True, slots=True)
class Promise:
    """One promise, whether it was kept, and what was measured."""

    text: str
    kept: bool
    measured: str


def promises_of(outcome: Outcome, workers: int) -> tuple[Promise, ...]:
    """Judge a run. `workers` are those of Envoy: as many less one may let a request pass at the same moment."""
    calm, burst, dead, back, remote_gone = outcome.phases
    whole, capacity = outcome.tally, outcome.capacity
    back_home = came_back(outcome, burst)
    at_once = most_but(outcome, burst, back_home) if back_home else burst.most
    early, hasty = (left_too_early(outcome, phase, workers) for phase in (calm, burst))
    broken = sum(map(broke_off, outcome.report.samples))
    lost = sum(kill.in_flight for kill in outcome.kills)
    (dead_local, dead_remote), (back_local, _) = dead.begun, back.begun
    return (
        Promise("no request fails", whole.failed == 0, f"{whole.failed} of {whole.requests} failed"),
        Promise(
            "only answers that had begun are cut off, by the death of their server",
            whole.cut == broken and whole.cut <= lost,
            f"{whole.cut} cut, of {lost} at the servers that were killed",
        ),
        Promise(
            "below capacity nothing leaves",
            calm.tally.local > 0 and early == 0,
            f"{calm.tally.remote} left in the calm, {early} of them while there was room",
        ),
        Promise(
            "the replicas get what they take, and one request for each further worker of Envoy",
            at_once <= capacity + workers - 1,
            f"up to {burst.most} at {capacity} places, {workers} workers{_came_back(back_home)}",
        ),
        Promise(
            "only the excess leaves",
            burst.tally.remote > 0 and hasty == 0,
            f"{burst.tally.remote} left in the burst, {hasty} of them while there was room",
        ),
        Promise(
            "with no replica left the remote backend serves everything",
            dead_remote > 0 and dead_local == 0,
            f"{dead_remote} remote, {dead_local} local",
        ),
        Promise("what is ready again serves again", back_local > 0, f"{back_local} local after the return"),
        Promise(
            "with the remote backend gone everything stays, slower",
            remote_gone.tally.local > 0 and remote_gone.tally.remote == 0 and remote_gone.most > capacity,
            f"{remote_gone.tally.local} local, {remote_gone.tally.remote} remote, "
            f"up to {remote_gone.most} at {capacity} places",
        ),
    )


def _came_back(answers: Collection[str]) -> str:
    return f"; {len(answers)} came there after the remote backend had taken no connection in time" if answers else ""


def came_back(outcome: Outcome, phase: Phase) -> frozenset[str]:
    """Name the answers of requests that reached a replica no sooner than Envoy gives up on a silent remote backend.

    On a machine that is busy enough the remote backend takes no connection for so long. Then the replicas take what had
    left, since that is better than to fail, and how many they have is no longer a matter of the limit.
    """
    patience = REAL.gateway.connect_far
    return frozenset(
        one.note
        for one in phase.samples
        if one.note in outcome.local_answers and outcome.local_answers[one.note][0] >= one.sent + patience
    )


def most_but(outcome: Outcome, phase: Phase, answers: Collection[str]) -> int:
    """Return the most requests in flight at the replicas in a phase, without these answers."""
    spans = (span for name, span in outcome.local_answers.items() if name not in answers)
    return most(steps_of(spans), phase.start, phase.end)


def left_too_early(outcome: Outcome, phase: Phase, workers: int) -> int:
    """Count the requests of a phase that left although there was room for them.

    Envoy decided between the sending and the first byte, however long that took. What it had in flight locally then,
    the client had too: a request is on its way for the client before Envoy knows of it, and until after Envoy has
    passed its end on. A cut answer does not say where it came from; it may have been local. What waited when a replica
    was killed left for that. What another worker of Envoy gives to a connection in that instant, it counts twice
    (`local_until_full` in xds_server/resources/overflow.py), so the last place may have looked taken.
    """
    killed = outcome.killed.begin
    full = outcome.capacity - (workers > 1)
    local = steps_of((one.sent, one.end) for one in outcome.report.samples if one.error or one.route == "local")
    return sum(
        one.route == "remote"
        and one.start + one.first_byte < killed
        and most(local, one.sent, one.start + one.first_byte) < full
        for one in phase.samples
    )
