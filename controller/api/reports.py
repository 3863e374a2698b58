"""What one replica of the xDS server says of one model: the contract of its `/reports` stream.

The stream is lines of JSON (`application/x-ndjson`), each a `ModelReport` or a `ReplicaReport`. First comes a report
for each model there is, then one whenever something of it changed. A `ReplicaReport` ends what was told at once; it
comes every `ALIVE_EVERY` seconds also when there is nothing to tell.
"""

from __future__ import annotations

from controller.api.base import ForeignValue

PATH = "/reports"
ALIVE_EVERY = 2.0


class ModelReport(ForeignValue):
    """How many Envoys of this replica serve a model, how many of them acknowledged all of it, and what is wrong.

    `route` is the digest of the route they were given (`ModelRoute.digest`), empty when the model is not served.
    """

    namespace: str
    name: str
    route: str = ""
    connected: int = 0
    programmed: int = 0
    refusals: tuple[str, ...] = ()


class ReplicaReport(ForeignValue):
    """How many Envoys are with this replica, whatever they serve."""

    envoys: int
