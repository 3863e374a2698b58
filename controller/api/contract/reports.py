"""What one replica of the xDS server says of one model: the contract of its `/reports` stream.

The stream is lines of JSON (`application/x-ndjson`), each a `ModelReport`, a `LoadReport` or a `ReplicaReport`. First
comes a report for each model there is, then one whenever something of it changed. A `LoadReport` comes whenever an
Envoy reported its load. A `ReplicaReport` ends what was told at once; it comes again and again also when there is
nothing to tell (`ReportTiming`).
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from controller.api.contract.route import RemoteRoute
from controller.api.schema.scalars import Time
from controller.api.schema.values import ForeignValue

PATH = "/reports"


class RemoteReport(ForeignValue):
    """What this replica found out about a remote backend: in one word, in a sentence, and since when it is so.

    `backend` is the digest of the remote side that it is about. `healthy` is absent until the first check has ended.
    """

    backend: str
    healthy: bool | None = None
    reason: str = ""
    message: str = ""
    since: Time | None = None


def digest_of(remote: RemoteRoute) -> str:
    """Hash a remote side: equal ones have equal digests, in every process."""
    return hashlib.blake2b(remote.model_dump_json(by_alias=True, exclude_none=True).encode(), digest_size=8).hexdigest()


class ModelReport(ForeignValue):
    """How many Envoys of this replica serve a model, how many of them acknowledged all of it, and what is wrong.

    `route` is the digest of the route they were given (`ModelRoute.digest`), empty when the model is not served.
    `remote` is absent when this replica checks no remote backend of the model.
    """

    namespace: str
    name: str
    route: str = ""
    connected: int = 0
    programmed: int = 0
    refusals: tuple[str, ...] = ()
    remote: RemoteReport | None = None


class ReplicaReport(ForeignValue):
    """How many Envoys are with this replica, whatever they serve, and which of them report no load."""

    envoys: int
    silent: tuple[str, ...] = ()


class Count(NamedTuple):
    """Requests sent so far, ended well and ended badly so far, and in flight now.

    Each try counts: a request that was sent again is two. One that reached nobody is not issued, and yet failed.
    """

    issued: int = 0
    succeeded: int = 0
    failed: int = 0
    in_flight: int = 0


class LoadReport(ForeignValue):
    """What one Envoy counted since its stream of load reports began.

    `began` (seconds since the epoch) and `node` name the stream. What is counted took `seconds`, and was heard `age`
    seconds ago. `counts` are by NAMESPACE/NAME/SIDE of a model, the side being `local` or `remote`: all in the first
    report of a stream, then those that changed. None stands for a side that cannot be told from those of other models.
    """

    node: str
    began: float
    seconds: float
    age: float
    counts: dict[str, Count | None]
