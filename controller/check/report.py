"""What was found when a cluster was looked at: findings, put together into a report, as text and as JSON. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from controller.api.schema.text import one_line

_WIDTH = 9  # Of the column that says how it stands.
_MOST_ALIKE = 20
"""So many findings of one check that is not well are written; a mistake that all models make is read in the first."""


class Health(StrEnum):
    """How one thing that was looked at stands."""

    OK = "ok"
    WARNING = "warning"
    """It works, and somebody should look at it."""
    FAILED = "failed"
    UNSEEN = "unseen"
    """It could not be looked at: for want of a right, or since nothing answered."""


class Topic(StrEnum):
    """What a finding is about. The order is that of the report, which is the order in which things depend."""

    API_SERVER = "Kubernetes API"
    DEFINITIONS = "Custom resources"
    INSTALL = "Rights to install"
    RIGHTS = "Rights of the programs"
    CONTROLLER = "Controller"
    XDS = "xDS servers"
    GATEWAY = "Gateway"
    MODELS = "Models"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: the name of the check, how it stands, in a sentence, and what to do about it."""

    topic: Topic
    check: str
    health: Health
    message: str
    remedy: str = ""

    @property
    def name(self) -> str:
        """The topic and the check, such as `api-server/version`."""
        return f"{self.topic.name.lower().replace('_', '-')}/{self.check}"

    def as_object(self) -> dict[str, Any]:
        """Return it as JSON."""
        written = {
            "check": self.name,
            "topic": self.topic.value,
            "result": self.health.value,
            "message": self.message,
        }
        return {**written, "remedy": self.remedy} if self.remedy else written


@dataclass(frozen=True, slots=True)
class TopicFindings:
    """The findings of one topic, said in few words: `topic.ok("version", "...")`."""

    topic: Topic

    def ok(self, check: str, message: str) -> Finding:
        """Say that all is well."""
        return Finding(self.topic, check, Health.OK, message)

    def warning(self, check: str, message: str, remedy: str = "") -> Finding:
        """Say that somebody should look at it."""
        return Finding(self.topic, check, Health.WARNING, message, remedy)

    def failed(self, check: str, message: str, remedy: str = "") -> Finding:
        """Say that it is not well."""
        return Finding(self.topic, check, Health.FAILED, message, remedy)

    def unseen(self, check: str, message: str, remedy: str = "") -> Finding:
        """Say that it could not be looked at."""
        return Finding(self.topic, check, Health.UNSEEN, message, remedy)


@dataclass(frozen=True, slots=True)
class CheckReport:
    """All findings, in the order of their topics."""

    findings: tuple[Finding, ...]

    @classmethod
    def of(cls, findings: Iterable[Finding]) -> CheckReport:
        """Put findings into order."""
        places = {topic: place for place, topic in enumerate(Topic)}
        return cls(tuple(sorted(findings, key=lambda one: places[one.topic])))

    @property
    def is_well(self) -> bool:
        """Whether nothing failed. What could not be seen is said, and fails nothing."""
        return all(one.health is not Health.FAILED for one in self.findings)

    @property
    def counts(self) -> Mapping[str, int]:
        """How many findings there are of each health."""
        found = Counter(one.health for one in self.findings)
        return {health.value: found[health] for health in Health}

    @property
    def failed(self) -> tuple[Finding, ...]:
        """Those that are not well."""
        return tuple(one for one in self.findings if one.health is Health.FAILED)

    def as_object(self) -> dict[str, Any]:
        """Return it as JSON: `result` (ok or failed), how many there are of each, and every finding."""
        return {
            "result": "ok" if self.is_well else "failed",
            "counts": dict(self.counts),
            "findings": [one.as_object() for one in self.findings],
        }

    def as_text(self) -> str:
        """Write it for people: by topic, each with what to do."""
        return "".join(f"{line}\n" for line in _lines(self))

    @property
    def summary(self) -> str:
        """Count it in one line."""
        counts = self.counts
        words = [f"{counts['ok']} ok"]
        words += [f"{counts['warning']} to look at"] * bool(counts["warning"])
        words += [f"{counts['failed']} failed"] * bool(counts["failed"])
        words += [f"{counts['unseen']} not seen"] * bool(counts["unseen"])
        return f"{len(self.findings)} checks: {', '.join(words)}"


def _lines(report: CheckReport) -> Iterator[str]:
    for topic in Topic:
        findings = [one for one in report.findings if one.topic is topic]
        if not findings:
            continue
        yield topic.value
        alike = Counter[tuple[str, Health]]()
        for one in findings:
            kind = (one.check, one.health)
            alike[kind] += 1
            if one.health is Health.OK or alike[kind] <= _MOST_ALIKE:
                yield from _lines_of(one)
        for (check, health), number in alike.items():
            if health is not Health.OK and number > _MOST_ALIKE:
                yield f"  {'...':<{_WIDTH}}and {number - _MOST_ALIKE} more of {check} ({health}): -o json has all"
        yield ""
    yield report.summary


def _lines_of(finding: Finding) -> Iterator[str]:
    yield f"  {finding.health:<{_WIDTH}}{one_line(finding.message)}"
    if finding.remedy:
        yield f"  {'':<{_WIDTH}}do: {one_line(finding.remedy)}"
