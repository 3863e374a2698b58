"""What the README promises, held against what happened. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from demo.outcome import Outcome, Phase
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
    hasty = left_too_early(outcome, burst)
    lost = sum(kill.in_flight for kill in outcome.kills)
    return (
        Promise("no request fails", whole.failed == 0, f"{whole.failed} of {whole.requests} failed"),
        Promise(
            "only answers that had begun are cut off, by the death of their server",
            whole.cut <= lost,
            f"{whole.cut} cut, of {lost} at the servers that were killed",
        ),
        Promise("below capacity nothing leaves", calm.tally.remote == 0, f"{calm.tally.remote} left in the calm"),
        Promise(
            "the replicas get what they take, and one request for each further worker of Envoy",
            burst.most <= capacity + workers - 1,
            f"up to {burst.most} at {capacity} places, {workers} workers",
        ),
        Promise(
            "only the excess leaves",
            burst.tally.remote > 0 and hasty == 0,
            f"{burst.tally.remote} left in the burst, {hasty} of them while there was room",
        ),
        Promise(
            "with no replica left the remote backend serves everything",
            dead.tally.remote > 0 and dead.tally.local == 0,
            f"{dead.tally.remote} remote, {dead.tally.local} local",
        ),
        Promise("what is ready again serves again", back.tally.local > 0, f"{back.tally.local} local after the return"),
        Promise(
            "with the remote backend gone everything stays, slower",
            remote_gone.tally.local > 0 and remote_gone.tally.remote == 0 and remote_gone.most > capacity,
            f"{remote_gone.tally.local} local, {remote_gone.tally.remote} remote, "
            f"up to {remote_gone.most} at {capacity} places",
        ),
    )


def left_too_early(outcome: Outcome, phase: Phase) -> int:
    """Count the requests of a phase that left although there was room for them.

    Envoy decided between the arrival and the first byte. What it had in flight locally then, the client had too: a
    request is on its way for the client before Envoy knows of it, and until after Envoy has passed its end on. A cut
    answer does not say where it came from; it may have been local. What waited when a replica was killed left for that.
    """
    local = steps_of((one.start, one.end) for one in outcome.report.samples if one.error or one.route == "local")
    return sum(
        one.route == "remote"
        and one.start + one.first_byte < phase.end
        and most(local, one.start, one.start + one.first_byte) < outcome.capacity
        for one in phase.samples
    )
