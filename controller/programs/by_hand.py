"""What `beamlit pause`, `resume`, `set-split`, `failover` and `failback` do: they write annotations, and nothing else.

In a cluster they patch the object, as `kubectl annotate` does. In a folder the file is its author's: they say what to
write there, and where (docs/adr/0034).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from functools import partial

from controller.api.schema.text import printable
from controller.api.timing import Timing
from controller.plan.by_hand import (
    PAUSE,
    RESUME,
    Annotations,
    Enforcement,
    Standing,
    beside_limit,
    enforcement,
    in_words,
    is_already,
    other_managers,
    overruling,
    to_split,
    unanswered,
    undo,
    with_annotations,
)
from controller.plan.explanation import explain
from controller.programs.models import (
    ClusterModels,
    FoundModel,
    ModelError,
    Place,
    RunModels,
    UnreachableError,
    models_at,
)
from controller.store.objects import StoredObject
from controller.store.protocol import ConflictError

# So often another write may come in between: the controller writes the status of a busy model twice a second at most.
_ATTEMPTS = 5


class Outcome(Enum):
    """What became of what somebody asked for."""

    DONE = "written or, if it was waited for, in force"
    LEFT_TO_AUTHOR = "nothing was written: the file is its author's"
    NOT_IN_FORCE = "written, and not in force: overruled, or not in time"


@dataclass(frozen=True, slots=True)
class Direction:
    """What somebody asks for: to pause, or a share in percent that leaves, for a while or not, or to resume."""

    pause: bool = False
    remote: int | None = None
    lasting: timedelta | None = None

    def annotations(self, now: datetime) -> Annotations:
        """Return what to write at `now` (UTC). Raises ValueError for a while that is too short."""
        if self.remote is not None:
            return to_split(self.remote, self.lasting, now)
        return PAUSE if self.pause else RESUME


@dataclass(frozen=True, slots=True)
class Hand:
    """Somebody who directs: what he is told is given to `say`, line by line. `wait` is how long for it to be in force.

    `same_place` are the options by which the next command finds the same model.
    """

    say: Callable[[str], None]
    clock: Callable[[], datetime]
    timing: Timing
    wait: timedelta | None = None
    same_place: str = ""

    def tell(self, line: str) -> None:
        """Tell one line, without any character that a terminal would obey."""
        self.say(printable(line))


def direct(place: Place, name: str, direction: Direction, hand: Hand) -> Outcome:
    """Direct the model of this name by hand. Raises ModelError, and ValueError for a while that is too short."""
    direction.annotations(hand.clock())
    return asyncio.run(_direct(place, name, direction, hand))


async def _direct(place: Place, name: str, direction: Direction, hand: Hand) -> Outcome:
    async with models_at(place, hand.timing) as models:
        found = await models.find(name)
        if isinstance(models, RunModels):
            wanted = direction.annotations(hand.clock())
            is_done = is_already(found.stored, wanted)
            _say_what_to_write(found, wanted, models, hand)
        else:
            # What is written ends by the clock of those who read it, and not by that of whoever types.
            ahead = await models.ahead(hand.clock)
            hand = replace(hand, clock=partial(_shifted, hand.clock, ahead))
            wanted = direction.annotations(hand.clock())
            before, after = await _write(models, found.stored, wanted)
            _say_what_was_written(before, after, wanted, models, hand)
            if ahead and direction.lasting:
                _say_whose_time(ahead, models, hand)
            found, is_done = FoundModel(after), True
        if hand.wait is not None:
            return await _in_force(models, found, wanted, hand)
        return Outcome.DONE if is_done else Outcome.LEFT_TO_AUTHOR


def _shifted(clock: Callable[[], datetime], ahead: timedelta) -> datetime:
    return clock() + ahead


async def _write(models: ClusterModels, stored: StoredObject, wanted: Annotations) -> tuple[StoredObject, StoredObject]:
    """Write annotations; return the object as it was right before that, and as it is then. Both are one if it is so."""
    for _ in range(_ATTEMPTS):
        if is_already(stored, wanted):
            return stored, stored
        with contextlib.suppress(ConflictError):
            return stored, await models.annotate(stored, wanted)
        stored = (await models.find(stored.ref.name)).stored
    raise ModelError(f"{stored.ref} is written all the time: {_ATTEMPTS} attempts met a newer one. Try again")


def _say_what_was_written(
    before: StoredObject, after: StoredObject, wanted: Annotations, models: ClusterModels, hand: Hand
) -> None:
    now = hand.clock()
    hand.tell(f"{after.ref.namespace}/{after.ref.name} in {models.where}")
    if after is before:
        hand.tell(f"  now    {in_words(before, now)}: as it was, nothing is written")
    else:
        hand.tell(f"  was    {in_words(before, now)}")
        hand.tell(f"  now    {in_words(after, now)}")
        for command in undo(before, after, now):
            hand.tell(f"  undo   beamlit {command} {after.ref.name} {hand.same_place}".rstrip())
    if others := other_managers(before, wanted):
        hand.tell(
            f"  note   {', '.join(others)} manages this annotation too, and may set it back: change it there as well"
        )
    _say_what_is_in_the_way(after, wanted, hand)


def _say_whose_time(ahead: timedelta, models: ClusterModels, hand: Hand) -> None:
    off = "behind" if ahead > timedelta(0) else "ahead of"
    seconds = abs(ahead).total_seconds()
    hand.tell(f"  note   the clock here is {seconds:.0f} s {off} that of {models.where}, by which it ends")


def _say_what_is_in_the_way(stored: StoredObject, wanted: Annotations, hand: Hand) -> None:
    known = explain(stored, hand.clock())
    if wanted != RESUME and (rule := overruling(known)):
        hand.tell(f"  note   {rule.rule} comes before it and decides for now: {rule.message}")
        return
    for words in filter(None, (unanswered(known, wanted), beside_limit(known, wanted))):
        hand.tell(f"  note   {words}")


def _say_what_to_write(found: FoundModel, wanted: Annotations, models: RunModels, hand: Hand) -> None:
    stored, now = found.stored, hand.clock()
    hand.tell(f"{stored.ref.namespace}/{stored.ref.name} in {models.where}")
    if is_already(stored, wanted):
        hand.tell(f"  now    {in_words(stored, now)}: as it was, nothing is to be written")
        return
    hand.tell(f"  now    {in_words(stored, now)}; nothing is written: its file is yours to edit")
    hand.tell(f"  then   {in_words(with_annotations(stored, wanted), now)}")
    hand.tell(f"  where  {found.file or 'the file that defines it'}, in metadata.annotations:")
    for name, value in wanted.items():
        if value is not None:
            hand.tell(f'         write   {name}: "{value}"')
        elif name in (stored.metadata.get("annotations") or {}):
            hand.tell(f"         remove  {name}")
    _say_what_is_in_the_way(stored, wanted, hand)


async def _in_force(models: RunModels | ClusterModels, found: FoundModel, wanted: Annotations, hand: Hand) -> Outcome:
    """Wait until these annotations are there and in force, or a rule that comes before them decides."""
    assert hand.wait is not None
    latest = _enforcement(found, wanted, hand.clock())
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(hand.wait.total_seconds()):
            while latest.standing not in (Standing.IN_FORCE, Standing.OVERRULED):
                await asyncio.sleep(hand.timing.status_looked_at_every)
                try:
                    found = await models.find(found.stored.ref.name)
                    latest = _enforcement(found, wanted, hand.clock())
                except UnreachableError as error:
                    latest = Enforcement(Standing.PENDING, str(error))
    if latest.standing is Standing.IN_FORCE:
        hand.tell(f"  in force      {latest.message}")
        return Outcome.DONE
    hand.tell(f"  not in force  {latest.message}")
    return Outcome.NOT_IN_FORCE


def _enforcement(found: FoundModel, wanted: Annotations, now: datetime) -> Enforcement:
    if not is_already(found.stored, wanted):
        return Enforcement(Standing.PENDING, f"not written: {in_words(found.stored, now)}")
    return enforcement(explain(found.stored, now, found.envoys))
