"""One reader of the loads: is told what each stream counted, once, and then what changed."""

from __future__ import annotations

from controller.api.reports import Count, LoadReport
from xds_server.loads.counts import StreamCounts
from xds_server.loads.loads import Loads
from xds_server.resources.names import is_backend
from xds_server.stream.load_streams import LoadStream


class LoadReader:
    """Remembers what was told. Who begins to read is told all of it."""

    def __init__(self, loads: Loads) -> None:
        self._loads = loads
        self._told: dict[LoadStream, dict[str, Count | None]] = {}
        self._told_at: dict[LoadStream, float] = {}

    def news(self, now: float) -> tuple[LoadReport, ...]:
        """Return a report for each stream that was heard since the last call."""
        streams = self._loads.streams()
        for gone in self._told.keys() - streams.keys():
            del self._told[gone], self._told_at[gone]
        return tuple(
            self._report(stream, counts, now)
            for stream, counts in tuple(streams.items())
            if counts.heard_at != self._told_at.get(stream)
        )

    def _report(self, stream: LoadStream, counts: StreamCounts, now: float) -> LoadReport:
        known: dict[str, Count | None] = {
            name: None if name in counts.unknown else count
            for name, count in counts.counts.items()
            if not is_backend(name)
        }
        told = self._told.get(stream, {})
        changed = {name: count for name, count in known.items() if name not in told or told[name] != count}
        self._told[stream], self._told_at[stream] = known, counts.heard_at
        return LoadReport(
            node=stream.node,
            began=stream.began,
            seconds=counts.seconds,
            age=max(now - counts.heard_at, 0.0),
            counts=changed,
        )
