"""What one client is told to report: the state machine of a load reporting stream. Pure.

The rules are those of `envoy/service/load_stats/v3/lrs.proto`: the server says which clusters it wants to hear of and
how often, and says it again only when that changes. `send_all_clusters` is for clients that know it.
"""

from __future__ import annotations

from xds_server.stream.load_reporting.wire import LoadTerms


class LoadSession:
    """One stream, from its first message on, which says whether the client `supports_all`.

    `clusters` are those there are; a client that must be told them by name is told nothing while there are none, for
    an empty list would be the end of reporting.
    """

    def __init__(self, interval: float, supports_all: bool, clusters: frozenset[str]) -> None:
        self._interval = interval
        self._supports_all = supports_all
        self._clusters = clusters
        self._told: LoadTerms | None = None

    def publish(self, clusters: frozenset[str]) -> None:
        """Take in which clusters there are now."""
        self._clusters = clusters

    def news(self) -> LoadTerms | None:
        """Return what to tell the client; None when it knows."""
        wanted = LoadTerms(self._interval, None if self._supports_all else self._clusters)
        if wanted == self._told or (self._told is None and wanted.clusters == frozenset()):
            return None
        self._told = wanted
        return wanted
