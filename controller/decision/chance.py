"""What varies by chance at a constant demand: requests that arrive by themselves (a Poisson process). Pure.

Their number has a standard deviation of its root, whether it is one that arrives in some seconds or one in flight.
"""

from __future__ import annotations

import math
from typing import Literal

from controller.decision.demand import LEAST_SECONDS
from controller.decision.facts import SentRequests, Signal
from controller.intent.intent import Terms

# A number of requests differs from another one by more than chance: three standard deviations.
_DEVIATIONS = 3

# A peak of requests in flight is above the mean at which they are kept by more than chance: of so many standard
# deviations is one look in two thousand, and there are two in a second.
_PEAK = 3.3

# Of fewer requests in flight than this, a mean says nothing of what there will be.
_MOST_NOISE = 0.5

# What was sent to replicas and has not ended there may just be on its way. So they were sent no more than so many times
# what they served, whatever is counted.
_MOST_TIMES = 2.0

# Requests that take longer than so many seconds end too late to tell what the replicas bear: a surge may be over long
# before as many are in flight as it asks for, and what left for it comes back only when those have ended.
_LONGEST_REQUEST = 120.0

Change = Literal["fewer", "as many", "more"]


def change_of(rate: float, was: float, seconds: float, tolerance: float) -> Change:
    """Compare how many requests a second arrive, counted for some seconds, with how many there were (above zero)."""
    # Of as many requests a second, so many were to be expected now, and at the least so many when it was learned.
    chance = _DEVIATIONS * math.sqrt(1 / (was * seconds) + 1 / (was * LEAST_SECONDS))
    if rate and abs(rate / was - 1) <= max(tolerance, chance):
        return "as many"
    return "more" if rate > was else "fewer"


def times_served(traffic: SentRequests) -> float:
    """Say how many times as many requests were sent to the replicas as ended there, if that is more than chance is.

    No more than `_MOST_TIMES`: requests that take longer than they are counted for have not ended yet. And no more
    than once as many where they take longer than `_LONGEST_REQUEST`, by Little's law: what is in flight by what ends a
    second.
    """
    sent, served = traffic.local, traffic.served
    if traffic.seconds < LEAST_SECONDS or sent - served <= _DEVIATIONS * math.sqrt(sent):
        return 1.0
    if traffic.in_flight * traffic.seconds > _LONGEST_REQUEST * served:
        return 1.0
    return min(sent / served, _MOST_TIMES) if served else 1.0


def noise(terms: Terms, signal: Signal) -> float:
    """Say by what part of its target a signal varies: the standard deviation of a number of requests in flight.

    With a limit Envoy sends away each request for which there is no place, so nothing has to be kept free for a peak.
    """
    if signal.counts <= 0 or terms.behavior.max_requests_per_replica is not None:
        return 0.0
    return min(1 / math.sqrt(signal.counts), _MOST_NOISE)


def peak(signal: Signal, varies: float) -> float:
    """Say up to which multiple of its target a signal comes by chance that is kept below it by what `varies`.

    What is in flight varies by the root of its own mean, and that is less than the target.
    """
    mean = 1 - varies
    return mean + _PEAK * math.sqrt(mean / signal.counts) if varies else 1.0
