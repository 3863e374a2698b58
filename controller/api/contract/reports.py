"""What one replica of the xDS server says of one route: the contract of its `/reports` stream.

The stream is lines of JSON (`application/x-ndjson`), each a `RouteReport`, a `LoadReport` or a `ServerReport`. First
comes a report for each route there is, then one whenever something of it changed. A `LoadReport` comes whenever an
Envoy reported its load. A `ServerReport` ends what is sent at the beginning; it comes again and again also when there
is no news (`ReportTiming`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from controller.api.contract.health import RemoteHealth
from controller.api.contract.route import REMOTE, RemoteName, RouteKey, RouteKind
from controller.api.schema.values import ForeignValue

PATH = "/reports"


class RemoteReport(RemoteHealth):
    """What this replica found out about one remote backend of an object, which is called `name` there.

    `backend` is the digest of what was checked (`Remote.digest`). `healthy` is absent until the first check has ended,
    and with a `reason` while it cannot be used. It is told `byRequests` if real requests were answered of late, or if
    none is, and else by a check alone.
    """

    backend: str
    name: RemoteName = REMOTE
    by_requests: bool = False


class EntranceReport(ForeignValue):
    """What is wrong with the certificates, the authorities or the keys at the entrance of a route."""

    reason: str
    message: str


class RouteReport(ForeignValue):
    """How many Envoys of this replica serve a route, how many of them acknowledged all of it, and what is wrong.

    `route` is the digest of the route that they were sent (`Route.digest`), empty when the object is not served.
    `remotes` lacks the remote backends that this replica does not check. `waiting` names some of the Envoys that have
    not acknowledged it, `refusals` say what some of them refuse. `entrance` says what is wrong at the entrance.

    The report on a single remote backend is written as `remote`, which every version reads.
    """

    kind: RouteKind = RouteKind.MODEL
    namespace: str
    name: str
    route: str = ""
    connected: int = 0
    programmed: int = 0
    refusals: tuple[str, ...] = ()
    remotes: tuple[RemoteReport, ...] = ()
    waiting: tuple[str, ...] = ()
    entrance: tuple[EntranceReport, ...] = ()

    @property
    def key(self) -> RouteKey:
        """Whose route it is."""
        return RouteKey(self.kind, self.namespace, self.name)

    def remote(self, name: str) -> RemoteReport | None:
        """Find the report on the remote backend of this name."""
        return next((one for one in self.remotes if one.name == name), None)

    @model_validator(mode="before")
    @classmethod
    def _read_the_form_of_one_remote(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or given.get("remote") is None:
            return given
        return {**{name: value for name, value in given.items() if name != "remote"}, "remotes": (given["remote"],)}

    @model_serializer(mode="wrap")
    def _write_the_form_of_one_remote(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = write(self)
        if [one.name for one in self.remotes] == [REMOTE]:
            (written["remote"],) = written.pop("remotes")
        return written


class ServerReport(ForeignValue):
    """How many Envoys are with this replica, whatever they serve, and which of them report no load.

    `knownAs` are their node ids, and the addresses that they come from; absent where they are too many to say.
    `refused` says what is wrong with a client that comes and is none of them, if there is one. `ports` are those that
    programs of the gateway listen on, as far as this replica knows: it serves no model there.
    """

    envoys: int
    silent: tuple[str, ...] = ()
    known_as: tuple[str, ...] | None = None
    refused: str = ""
    ports: tuple[int, ...] = ()


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
    seconds ago. `counts` are by `model/NAMESPACE/NAME/SIDE`, the side being `local` or the name of a remote backend:
    all in the first report of a stream, then those that changed. None stands for a side that cannot be told from those
    of other objects.
    """

    node: str
    began: float
    seconds: float
    age: float
    counts: dict[str, Count | None]

    @model_validator(mode="before")
    @classmethod
    def _read_names_without_a_kind(cls, given: Any) -> Any:
        """Read the names of a version that served models only: NAMESPACE/NAME/SIDE."""
        if not isinstance(given, Mapping) or not isinstance(given.get("counts"), Mapping):
            return given
        word = RouteKind.MODEL.word
        counts = {f"{word}/{name}" if name.count("/") == 2 else name: one for name, one in given["counts"].items()}
        return {**given, "counts": counts}
