"""What the load of several tests has in common."""

from __future__ import annotations

from benchmarks.load import Answer


def named_wrongly(answer: Answer) -> str:
    """Tell whether `x-beamlit-route` is another side than the one whose server answered."""
    side = answer.headers["x-served-by"].partition("-")[0]
    return "" if answer.route == side else f"{answer.route} instead of {side}"
