"""Other controllers that write the statuses of the same objects: who yields, so that no status flips. Pure.

Controllers that share a Lease never meet; those of two installations do, if neither has a class of its own. A status
says who wrote it (`status.controller`). Who finds another's status may take the object over: the other may be gone for
good. If the other takes it back soon, he is not, and has it: whoever took it yields. So of two controllers that follow
this rule the one that was there first goes on, and to one that does not, the other yields (docs/adr/0031).

A status that was ours and names nobody was restored, or emptied by hand; or it is written by a controller that knows no
such names. Then it happens again at once, so to the third time in a row we yield as well.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from controller.api.timing import StatusTiming
from controller.store.objects import ObjectRef, StoredObject

# So many times in a row a status that was ours names nobody, until another one is taken to write it.
_NAMELESS = 3


@dataclass(frozen=True, slots=True)
class _Taken:
    writer: str
    at: datetime


@dataclass(slots=True)
class Rivals:
    """What is known of the other writers of each object; `own` is our name as a writer, empty if we have none."""

    own: str
    timing: StatusTiming
    _last: dict[ObjectRef, str] = field(default_factory=dict)
    _taken: dict[ObjectRef, _Taken] = field(default_factory=dict)
    _yields: dict[ObjectRef, datetime] = field(default_factory=dict)
    # How often in a row a status of ours named nobody, and when it did so last.
    _nameless: dict[ObjectRef, tuple[int, datetime]] = field(default_factory=dict)

    def see(self, ref: ObjectRef, writer: str, now: datetime, manager: str = "") -> str:
        """Take in who wrote the status that an object has; say in words what is new about that, if anything is.

        `writer` is empty if the status does not say it, `manager` is what Kubernetes knows of who wrote it last.
        """
        before, self._last[ref] = self._last.get(ref), writer
        if not self.own or writer == self.own or before != self.own:
            return ""
        if not writer:
            return self._see_nameless(ref, now, manager)
        taken = self._taken.get(ref)
        who = f"the controller {writer} writes this status too"
        remedy = "give each of them a class of its own (--controller-class and spec.controllerClass)"
        if taken and taken.writer == writer and now < taken.at + timedelta(seconds=self.timing.rival_answers_within):
            self._yields[ref] = now + timedelta(seconds=self.timing.yields_for)
            return f"{who}, and has it; {self.own} writes it no more for {self.timing.yields_for:.0f} s: {remedy}"
        return f"{who}; {self.own} takes it back once: {remedy}"

    def _see_nameless(self, ref: ObjectRef, now: datetime, manager: str) -> str:
        times, at = self._nameless.get(ref, (0, now))
        times = times + 1 if now < at + timedelta(seconds=self.timing.rival_answers_within) else 1
        self._nameless[ref] = (times, now)
        if times < _NAMELESS:
            return ""
        del self._nameless[ref]
        self._yields[ref] = now + timedelta(seconds=self.timing.yields_for)
        who = f"another controller{f' (field manager {manager})' if manager else ''}"
        return (
            f"{who} writes this status each time that {self.own} did, and says no name (status.controller); {self.own} "
            f"writes it no more for {self.timing.yields_for:.0f} s: let one of them alone watch this namespace"
        )

    def wrote(self, ref: ObjectRef, over: str, now: datetime) -> None:
        """Record that we wrote the status of an object, in place of one that `over` wrote."""
        self._last[ref] = self.own
        if over not in ("", self.own):
            self._taken[ref] = _Taken(over, now)

    def yields_until(self, ref: ObjectRef, now: datetime) -> datetime | None:
        """Say until when an object is left to another controller; None for one that is not."""
        until = self._yields.get(ref)
        if until and now < until <= now + timedelta(seconds=self.timing.yields_for):
            return until
        self._yields.pop(ref, None)
        return None

    def yielded(self, now: datetime) -> int:
        """Count the objects that are left to others."""
        return sum(now < until for until in self._yields.values())

    def forget(self, ref: ObjectRef) -> None:
        """Forget an object that is gone, or no longer ours."""
        for known in (self._last, self._taken, self._yields, self._nameless):
            known.pop(ref, None)


def status_manager(stored: StoredObject) -> str:
    """Name the field manager that wrote the status of an object last, by its `managedFields`; empty if nobody did."""
    entries = [one for one in stored.metadata.get("managedFields") or () if one.get("subresource") == "status"]
    if not entries:
        return ""
    return str(max(entries, key=lambda one: str(one.get("time"))).get("manager") or "")
