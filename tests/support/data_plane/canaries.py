"""Requests that carry canaries, models that share one remote host, and what must have become of every single request.

Whatever must not leave has `inside` in it, whatever belongs to the remote backend `outside`. A place where the wrong
word turns up is a leak, whatever way it went; and each request that a server saw is compared, header by header, with
what it must be there.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from controller.api.schema.client_headers import PRIVATE, REMOVED_PREFIXES, WRITTEN_ANEW
from tests.support.data_plane.model import Model
from tests.support.data_plane.witness import Pairs, Seen, Witness
from tests.support.load.answer import Answer, AnswerError
from tests.support.load.connection import Connections

CLIENTS = 32
CLIENT = "127.0.0.1"
"""Where they come from."""

# Of the client's own headers, those that the replicas alone may see, but for what the front takes off or writes itself.
INSIDE = tuple(name for name in PRIVATE if name not in WRITTEN_ANEW and not name.startswith(REMOVED_PREFIXES))
# Each request has these, which the front adds to one that lacks them, and some of the others.
_IN_EACH = ("x-forwarded-for", "x-request-id")
_OTHERS = tuple(name for name in INSIDE if name not in _IN_EACH)
_OTHERS_OF_EACH = 11


@dataclass(frozen=True)
class Site:
    """A model, its one replica, and how the remote backend knows it.

    `credential` is the header with it, and whether a value is one of this model's.
    """

    model: Model
    replica: Witness
    credential: tuple[str, Callable[[str], bool]] | None = None


@dataclass(frozen=True)
class Canary:
    """One request, unlike any other; `failing` is a header that has a side fail it."""

    number: int
    site: Site
    failing: tuple[str, str] | None

    @property
    def target(self) -> str:
        return f"/v1/{self.number}/meta-llama%2FLlama?of={self.number}"

    @property
    def host(self) -> str:
        return f"inside-{self.number}.test"

    @property
    def body(self) -> bytes:
        return f'{{"prompt": "canary {self.number}"}}'.encode()

    @property
    def pairs(self) -> Pairs:
        """All headers but the Host."""
        others = [_OTHERS[(self.number + each) % len(_OTHERS)] for each in range(_OTHERS_OF_EACH)]
        own = [(name, f"inside {name} {self.number}") for name in (*_IN_EACH, *others)]
        # Some models overwrite these for the remote backend, others do not.
        passing = [(name, f"of client {self.number}") for name in ("x-tenant", "x-key", "accept")]
        steering = [self.failing] if self.failing else []
        return [*own, *passing, *steering, ("canary", str(self.number)), ("content-length", str(len(self.body)))]

    @property
    def bytes(self) -> bytes:
        lines = [f"POST {self.target} HTTP/1.1", f"host: {self.host}", *(f"{n}: {v}" for n, v in self.pairs)]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + self.body

    @property
    def at_replica(self) -> Pairs:
        """Give what a replica must see: what was sent, and that Envoy says where it came from."""
        return [("host", self.host), *self.pairs, ("x-forwarded-proto", "http"), ("x-envoy-external-address", CLIENT)]

    @property
    def at_remote(self) -> Pairs:
        """Give what the remote backend must see, the credential aside."""
        wanted, credential = self.site.model.wanted, self.site.credential
        gone = {*INSIDE, *dict(wanted.headers_to_add), *([credential[0]] if credential else [])}
        kept = [pair for pair in self.pairs if pair[0] not in gone]
        return [("host", self.site.model.authority), *kept, *wanted.headers_to_add]


@dataclass
class Outcome:
    """What became of all requests. `leaks` is in words, empty if nothing was seen where it should not be."""

    failed: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    direct: int = 0
    """Requests that the remote backend got and no replica: by the split, or since no replica was there."""
    both: int = 0
    """Requests that a replica and the remote backend got, in whatever order."""
    local: int = 0


async def sent(canaries: Sequence[Canary], remote: Witness) -> Outcome:
    """Send them all, some at a time, and compare what everybody saw."""
    outcome = Outcome()
    remaining = iter(canaries)
    await asyncio.gather(*(_one_after_another(remaining, outcome) for _ in range(CLIENTS)))
    by_number = {str(canary.number): canary for canary in canaries}
    replicas = {canary.site.replica.host: canary.site.replica for canary in canaries}
    at_remote = list(_compared(remote, by_number, outcome, _at_remote))
    at_replicas: list[str] = []
    for replica in replicas.values():
        for_it = {number: one for number, one in by_number.items() if one.site.replica is replica}
        at_replicas += _compared(replica, for_it, outcome, _at_replica)
    _count(outcome, at_remote, at_replicas)
    return outcome


def _count(outcome: Outcome, at_remote: list[str], at_replicas: list[str]) -> None:
    for where, numbers in (("the remote backend", at_remote), ("a replica", at_replicas)):
        outcome.leaks += [f"{where} got {number} twice" for number in _repeated(numbers)]
    outcome.both = len({*at_remote} & {*at_replicas})
    outcome.direct = len({*at_remote} - {*at_replicas})
    outcome.local = len({*at_replicas} - {*at_remote})


def _repeated(numbers: list[str]) -> Iterator[str]:
    return (number for number, group in itertools.groupby(sorted(numbers)) if len(list(group)) > 1)


async def _one_after_another(canaries: Iterator[Canary], outcome: Outcome) -> None:
    connections: dict[str, Connections] = {}
    for canary in canaries:
        url = urlsplit(canary.site.model.url)
        way = connections.setdefault(url.netloc, Connections(url.hostname or "", url.port or 80, keepalive=True))
        try:
            answer = await way.exchange(canary.bytes)
        except (AnswerError, OSError) as error:
            outcome.failed.append(f"{canary.number}: {error!r}")
            continue
        if answer.status != 200 or answer.body.decode() != answer.route:
            outcome.failed.append(f"{canary.number}: {answer.status} {answer.route} {answer.body!r}")
        if _told(answer):
            outcome.leaks.append(f"the client of {canary.number} is told {answer}")
    for way in connections.values():
        way.close()


def _told(answer: Answer) -> bool:
    """Tell whether an answer has anything in it that was for the servers only."""
    return any(word in f"{answer.headers}{answer.body!r}" for word in ("inside", "outside"))


Check = Callable[[Canary, Seen], Iterator[str]]


def _compared(witness: Witness, canaries: dict[str, Canary], outcome: Outcome, check: Check) -> Iterator[str]:
    """Check each request that a server saw; yield its number."""
    for seen in witness.seen:
        number = "".join(seen.values("canary"))
        canary = canaries.get(number)
        if canary is None:
            outcome.leaks.append(f"{witness.host} got a request of another model: {seen.head!r}")
            continue
        outcome.leaks += [f"{number} at {witness.host}: {leak}" for leak in check(canary, seen)]
        yield number


def _at_replica(canary: Canary, seen: Seen) -> Iterator[str]:
    if b"outside" in seen.head + seen.rest:
        yield f"something of the remote backend's came in: {seen.head!r}"
    # Behind the comma is an address of the host, by which Envoy was reached.
    pairs = [(name, value.partition(",")[0] if name == "x-forwarded-for" else value) for name, value in seen.pairs]
    yield from _unlike("target", seen.target, canary.target)
    yield from _unlike("body", seen.rest, canary.body)
    yield from _other(pairs, canary.at_replica)


def _at_remote(canary: Canary, seen: Seen) -> Iterator[str]:
    if b"inside" in seen.head + seen.rest:
        yield f"something of the client's left: {seen.head!r}"
    pairs = seen.pairs
    if canary.site.credential:
        name, is_ours = canary.site.credential
        values = seen.values(name)
        if len(values) != 1 or not is_ours(values[0]):
            yield f"{name} is {values}"
        pairs = [pair for pair in pairs if pair[0] != name]
    yield from _unlike("target", seen.target, canary.site.model.wanted.path_prefix + canary.target)
    yield from _unlike("body", seen.rest, canary.body)
    yield from _other(pairs, canary.at_remote)


def _other(seen: Pairs, wanted: Pairs) -> Iterator[str]:
    """Compare headers, in whatever order; repeated ones count as often as they are there."""
    if Counter(seen) != Counter(wanted):
        yield f"headers {Counter(seen) - Counter(wanted)}, not {Counter(wanted) - Counter(seen)}"


def _unlike(what: str, seen: object, wanted: object) -> Iterator[str]:
    if seen != wanted:
        yield f"{what} {seen}, not {wanted}"
