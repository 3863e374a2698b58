"""The table: what fails, what is promised while it does, and what that means."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum

from tests.support.data_plane.model import Wanted
from tests.support.failures import promise as share
from tests.support.failures import troubles
from tests.support.failures.promise import Promise
from tests.support.failures.site import Way
from tests.support.failures.troubles import Trouble, Which, behaving, both_sides, flapping, killed, one_replica
from tests.support.failures.troubles import remote as the_remote
from tests.support.failures.troubles import replicas as all_replicas


class Group(Enum):
    """What it is that fails."""

    REPLICAS = "The replicas fail"
    REMOTE = "The remote backend fails"
    BOTH = "Both sides fail"


_USUAL = Wanted()


@dataclass(frozen=True)
class Case:
    """One thing that fails. `name` ends a sentence that begins with the group's."""

    name: str
    group: Group
    means: str
    trouble: Trouble
    promise: Promise
    kept: Promise | None = None
    """What is promised when nothing may leave; None for what that has no bearing on."""
    way: Way = Way.PLAIN
    wanted: Wanted = _USUAL
    good: frozenset[int] = frozenset({200})
    """The statuses that are no failure."""
    patience: float = 30.0
    """Seconds that a client waits."""
    noticed: Which | None = None
    """The replicas that the health checks find ill before it ends, however quickly the requests are answered."""
    in_crowds: bool = False
    """Whether it takes requests that come in crowds: connections that break count in a row only if no other request
    finds a connection in between."""
    settles: bool = False
    """Whether requests may fail until the health checks have found that all is well again."""


@dataclass(frozen=True)
class Cell:
    """A case with one split; `is_kept` when nothing may leave."""

    case: Case
    away: int
    is_kept: bool = False

    def __str__(self) -> str:
        return f"{self.case.name}, {self.split}"

    @property
    def split(self) -> str:
        return "nothing may leave" if self.is_kept else f"{100 - self.away}/{self.away}"

    @property
    def promise(self) -> Promise:
        if not self.is_kept:
            return self.case.promise
        assert self.case.kept
        return replace(self.case.kept, remote=share.none, leaves=False)


# A request that reaches a dead server is asked of nobody.
_ALL_REMOTE = Promise(remote=share.every)
_ALL_LOCAL = Promise(remote=share.none)
_ONCE = Promise(remote=share.as_split, asked=(1, 1))
_NEARLY = Promise(remote=share.nearly_as_split, met=2, again=0.05)
_NO_FAILURE = Promise(remote=share.none)


def _failing(*errors: str, asked: tuple[int, int] = (0, 2)) -> Promise:
    """Promise of a model that may not leave that its failures are quick ones."""
    return Promise(remote=share.none, failed=share.every, errors=frozenset(errors), asked=asked, quick=2.0)


def _answering(status: int) -> Case:
    return Case(
        name=f"every replica answers {status}",
        group=Group.REPLICAS,
        means="The request is sent once more, to the remote backend. After three in a row a replica is left alone for "
        "a second, and longer each time, so that most requests go there at once.",
        trouble=behaving(all_replicas, f"status={status}"),
        promise=_ALL_REMOTE,
        kept=_failing(f"status {status}", asked=(1, 2)),
    )


_PATIENCE = timedelta(milliseconds=200)
_TRUNCATED = frozenset({"truncated"})
_LATE = Promise(remote=share.at_least_as_split, failed=share.some, errors=frozenset({"timeout"}), once_each=True)

EVERY_REPLICA: tuple[Case, ...] = (
    Case(
        name="every replica is killed",
        group=Group.REPLICAS,
        means="What was in flight and what meets a dead replica is sent once more, to the remote backend, which gets "
        "everything at once as soon as Envoy knows. The control plane has no part in it.",
        noticed=all_replicas,
        trouble=killed(all_replicas),
        promise=_ALL_REMOTE,
        kept=_failing("status 503"),
    ),
    _answering(502),
    _answering(503),
    _answering(504),
    Case(
        name="every replica breaks the connection before it answers",
        group=Group.REPLICAS,
        means="As with a replica that is killed: nothing of an answer has been seen, so the request is sent once more.",
        trouble=behaving(all_replicas, "reset=before"),
        promise=_ALL_REMOTE,
        kept=_failing("status 503", asked=(1, 2)),
    ),
    Case(
        name="every replica breaks off in the midst of its answer",
        group=Group.REPLICAS,
        means="The client has a part of the answer already, so nothing can be sent again: it sees the break at once, "
        "and each such request was asked once. Whether to ask anew is the client's to decide. After five in a row a "
        "replica is left alone for a second, and longer each time, so that most requests go to the remote backend.",
        trouble=behaving(all_replicas, "reset=after"),
        promise=Promise(
            remote=share.some, failed=share.at_most_of_replicas, errors=_TRUNCATED, asked=(1, 1), quick=2.0
        ),
        kept=Promise(remote=share.none, failed=share.every, errors=_TRUNCATED, asked=(1, 1), quick=2.0),
    ),
    Case(
        name="every replica answers 429",
        group=Group.REPLICAS,
        means="An answer like any other: no status of 4xx is sent again.",
        trouble=behaving(all_replicas, "status=429"),
        promise=_ONCE,
        kept=replace(_NO_FAILURE, asked=(1, 1)),
        good=frozenset({200, 429}),
    ),
)

SOME_REPLICAS: tuple[Case, ...] = (
    Case(
        name="one replica of three answers 503",
        group=Group.REPLICAS,
        means="The requests that meet it are sent once more, to the remote backend (to another replica if nothing may "
        "leave). It is left alone for a second, and longer each time, after three of them, so nearly nothing leaves.",
        trouble=behaving(one_replica, "status=503"),
        promise=_NEARLY,
        kept=_NO_FAILURE,
    ),
    Case(
        name="one replica of three is killed",
        group=Group.REPLICAS,
        means="The same, and its health check keeps requests away from it until it is back.",
        noticed=one_replica,
        trouble=killed(one_replica),
        promise=_NEARLY,
        kept=_NO_FAILURE,
    ),
    Case(
        name="one replica of three breaks the connection before it answers",
        group=Group.REPLICAS,
        means="The same; it is left alone for a second, and longer each time, after five of them.",
        in_crowds=True,
        trouble=behaving(one_replica, "reset=before"),
        promise=_NEARLY,
        kept=_NO_FAILURE,
    ),
    Case(
        name="the replicas are killed and revived again and again",
        group=Group.REPLICAS,
        means="Each request goes to a replica that is believed well, and once more to the remote backend if it is not. "
        "If nothing may leave, the second try is another replica, which may have died as well.",
        trouble=flapping(all_replicas),
        promise=Promise(remote=share.at_least_as_split),
        kept=Promise(remote=share.none, failed=share.some, errors=frozenset({"status 503"}), asked=(0, 2), quick=2.0),
    ),
    Case(
        name="the replicas are drained one after another, and come back",
        group=Group.REPLICAS,
        means="A replica that is terminating answers what it has and gets nothing new while another is ready. When "
        "none is left, which here do not even terminate any more, everything is the remote backend's; if nothing may "
        "leave, that is a quick 503.",
        trouble=troubles.drained,
        promise=_ALL_REMOTE,
        kept=_failing("status 503", asked=(0, 1)),
    ),
)

LATE_REPLICAS: tuple[Case, ...] = (
    Case(
        name="every replica is slow",
        group=Group.REPLICAS,
        means="Slow is not failed: nothing is sent again and nothing leaves. To move traffic for it is the split's "
        "business, or firstByteTimeout's.",
        trouble=behaving(all_replicas, "delay=0.1"),
        promise=_ONCE,
        kept=replace(_NO_FAILURE, asked=(1, 1)),
    ),
    Case(
        name="every replica accepts and never answers, with firstByteTimeout",
        group=Group.REPLICAS,
        means="A request that waits so long is sent to the remote backend as well, and its answer is the client's.",
        trouble=behaving(all_replicas, "silent=1", health=0),
        promise=_ALL_REMOTE,
        wanted=Wanted(first_byte_timeout=_PATIENCE),
    ),
    Case(
        name="every replica accepts and never answers, without firstByteTimeout",
        group=Group.REPLICAS,
        means="What waits there goes on waiting: only the client's patience ends it, or the kubelet's liveness probe "
        "by killing the replica. Later requests avoid it: here the health check has noticed within three seconds, for "
        "it asks each second and one failure is enough. No client waits in vain a second time.",
        trouble=behaving(all_replicas, "silent=1", health=0),
        promise=_LATE,
        patience=4.0,
        noticed=all_replicas,
    ),
    Case(
        name="one replica of three accepts and never answers, with firstByteTimeout",
        group=Group.REPLICAS,
        means="The requests that meet it are sent to the remote backend as well, until five in a row or its health "
        "check have it left alone.",
        trouble=behaving(one_replica, "silent=1", health=0),
        promise=_NEARLY,
        # Longer than replicas that are well take on a busy machine: what they answer late leaves too.
        wanted=Wanted(first_byte_timeout=timedelta(milliseconds=500)),
    ),
)

REMOTE: tuple[Case, ...] = (
    Case(
        name="it is killed",
        group=Group.REMOTE,
        means="What was in flight there, and what meets nobody, comes back and is answered by a replica, as the client "
        "sent it.",
        trouble=killed(the_remote),
        promise=_ALL_LOCAL,
    ),
    Case(
        name="it is killed, and would get a credential",
        group=Group.REMOTE,
        means="The same on the other way there: what gets a credential of ours goes through an internal listener.",
        trouble=killed(the_remote),
        promise=_ALL_LOCAL,
        way=Way.WITH_KEY,
    ),
    Case(
        name="it answers 503",
        group=Group.REMOTE,
        means="Each request is tried there first and answered by a replica. One that is reached directly is asked for "
        "as long as it has weight: only its health check keeps requests away.",
        trouble=behaving(the_remote, "status=503"),
        promise=_ALL_LOCAL,
    ),
    Case(
        name="it answers 503, and gets a credential",
        group=Group.REMOTE,
        means="On the way through the internal listener it is left alone for half a second after five in a row, and "
        "again.",
        trouble=behaving(the_remote, "status=503"),
        promise=_ALL_LOCAL,
        way=Way.WITH_KEY,
    ),
    Case(
        name="it breaks the connection before it answers",
        group=Group.REMOTE,
        means="As when it answers 503.",
        trouble=behaving(the_remote, "reset=before"),
        promise=_ALL_LOCAL,
    ),
    Case(
        name="it breaks off in the midst of its answer",
        group=Group.REMOTE,
        means="As with the replicas: the client sees the break at once, and each such request was asked once.",
        trouble=behaving(the_remote, "reset=after"),
        promise=Promise(remote=share.none, failed=share.as_split, errors=_TRUNCATED, asked=(1, 1), quick=2.0),
    ),
    Case(
        name="it is slow",
        group=Group.REMOTE,
        means="Slow is not failed: nothing is sent again.",
        trouble=behaving(the_remote, "delay=0.1"),
        promise=_ONCE,
    ),
    Case(
        name="it accepts and never answers, with timeouts.request",
        group=Group.REMOTE,
        means="A request that waits so long is answered by a replica. Without the timeout it waits until the client's "
        "patience ends.",
        trouble=behaving(the_remote, "silent=1", health=0),
        promise=_ALL_LOCAL,
        wanted=Wanted(answer_timeout=_PATIENCE),
    ),
    Case(
        name="it answers 401 of its own",
        group=Group.REMOTE,
        means="An answer like any other, the client's. (That Envoy has no credential is another thing, and a replica "
        "answers then.)",
        trouble=behaving(the_remote, "status=401"),
        promise=_ONCE,
        way=Way.WITH_KEY,
        good=frozenset({200, 401}),
    ),
)

WAY_TO_REMOTE: tuple[Case, ...] = (
    Case(
        name="it has a certificate of another authority",
        group=Group.REMOTE,
        means="Nothing leaves: the connection is refused before anything is sent, and a replica answers.",
        trouble=troubles.certificate_replaced,
        promise=replace(_ALL_LOCAL, asked=(1, 1)),
        way=Way.OVER_TLS,
    ),
    Case(
        name="its token endpoint is down",
        group=Group.REMOTE,
        means="The last token is used for as long as it lives; then nothing leaves, and the replicas answer.",
        trouble=troubles.no_tokens,
        promise=replace(_ALL_LOCAL, asked=(1, 1)),
        way=Way.WITH_TOKEN,
    ),
    Case(
        name="the name server does not answer",
        group=Group.REMOTE,
        means="Envoy goes on with the addresses it knows.",
        trouble=troubles.no_name_server,
        promise=_ONCE,
        way=Way.BY_NAME,
    ),
    Case(
        name="its name does not exist any more",
        group=Group.REMOTE,
        means="There is no address to connect to, so the replicas answer.",
        trouble=troubles.no_such_name,
        promise=replace(_ALL_LOCAL, asked=(1, 1)),
        way=Way.BY_NAME,
    ),
)

BOTH_SIDES: tuple[Case, ...] = (
    Case(
        name="every server is killed",
        group=Group.BOTH,
        means="A quick 503 of Envoy. Some requests get it for a second or two more when the servers are back, "
        "until a health check has found one of them.",
        settles=True,
        trouble=killed(both_sides),
        promise=Promise(
            remote=share.none, failed=share.every, errors=frozenset({"status 503"}), asked=(0, 0), quick=2.0
        ),
    ),
    Case(
        name="every server answers 503",
        group=Group.BOTH,
        means="The request is asked twice at the most, and the second 503 is the client's.",
        trouble=behaving(both_sides, "status=503"),
        promise=Promise(
            remote=share.none, failed=share.every, errors=frozenset({"status 503"}), asked=(1, 2), quick=2.0
        ),
    ),
)

CASES = (*EVERY_REPLICA, *SOME_REPLICAS, *LATE_REPLICAS, *REMOTE, *WAY_TO_REMOTE, *BOTH_SIDES)
"""In the order of the document."""


def cells(cases: Iterable[Case] = CASES) -> tuple[Cell, ...]:
    """Cross cases with the splits they have."""
    return tuple(cell for case in cases for cell in _cells(case))


def _cells(case: Case) -> Iterator[Cell]:
    yield from (Cell(case, away) for away in (0, 50, 100))
    if case.kept:
        yield Cell(case, 0, is_kept=True)
