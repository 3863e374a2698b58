"""When the keys of a namespace are asked for in one question, and when each by itself. Pure.

One question for all is no more than a cheaper way to ask. What it costs is bounded by whoever asks it, in proportion to
how many keys there are; where it does not work, each key is asked for by itself.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from controller.decision.facts import Cause

FROM = 8
"""So many keys are asked for as one: of fewer there is little to save."""

# A question for one key would fail by this as well. Not so by what is forbidden: an authorizer is told the selector,
# too (KEP-4601), so whoever may not ask for all may ask for some.
_OF_ALL_ALIKE = (Cause.NO_SOURCE,)
# That there is no answer may be due to how much was asked for: so many in a row are taken for that.
_UNANSWERED = 3
# A rest is doubled so often at most: half a minute becomes eight.
_DOUBLED = 4

Key = TypeVar("Key", bound=Hashable)


@dataclass(slots=True)
class Together(Generic[Key]):
    """The keys of one namespace. `rest` are the seconds after a question for all of them that did not work.

    A question for all that fails as any other there would (nobody serves it, no answer) is the failure of each key. One
    that is not permitted, whose answer cannot be used, as it is too large or a part of it is wrong, or that had no
    answer three times in a row, is followed by a rest in which each key is asked for by itself; the next rest is twice
    as long. It ends early when there are twice as many keys: what was too much for few may be worth it for many.
    """

    rest: float
    keys: dict[Key, None] = field(default_factory=dict)
    """All of them, in the order in which they came."""
    alone: set[Key] = field(default_factory=set)
    """Those that are asked for by themselves first."""
    next_at: float = 0.0
    failures: int = 0
    again_from: float = math.inf

    def forget(self, key: Key) -> None:
        """A key is asked for no more."""
        self.keys.pop(key, None)
        self.alone.discard(key)

    def takes(self, key: Key, now: float) -> bool:
        """Say whether a key that is due is asked for together with the others; if not, it is asked for alone."""
        if key in self.alone:
            self.alone.remove(key)
            return False
        is_time = is_due(self.next_at, now, self.rest * (1 << _DOUBLED)) or len(self.keys) >= self.again_from
        return len(self.keys) >= FROM and is_time

    def begin(self, next_at: float) -> AbstractSet[Key]:
        """All are asked for now, and next then. Returns them."""
        self.next_at, self.again_from = next_at, math.inf
        return self.keys.keys() - self.alone

    def succeed(self, without: AbstractSet[Key]) -> None:
        """There was an answer, which says nothing of some: those are asked for alone."""
        self.failures = 0
        self.alone |= without & self.keys.keys()

    def fail(self, cause: Cause, now: float) -> bool:
        """There was none. Say whether that is the failure of each; if not, each is asked for alone."""
        self.failures += 1
        is_unanswered = cause is Cause.NOT_ANSWERING and self.failures < _UNANSWERED
        if cause in _OF_ALL_ALIKE or is_unanswered:
            return True
        self.next_at = now + self.rest * (1 << min(self.failures - 1, _DOUBLED))
        self.again_from = 2 * len(self.keys)
        self.alone.update(self.keys)
        return False


def is_due(next_at: float, now: float, longest: float) -> bool:
    """Whether something is to be done now: nothing is further ahead than that, unless the clock was set back."""
    return next_at <= now or next_at > now + longest
