"""The two dialects of the protocol: delta, and state of the world."""

from __future__ import annotations

from collections.abc import Mapping

from xds_server.snapshot.snapshot import CLUSTER, LISTENER, SCOPED_ROUTE, SHORT, Resource, ResourceKey, content_version
from xds_server.stream.protocol.holdings import OVERHEAD_BYTES
from xds_server.stream.protocol.ledger import Ledger
from xds_server.stream.protocol.messages import (
    EVERYTHING,
    WILDCARD,
    DeltaRequest,
    Output,
    Response,
    ResponseTooLargeError,
    SotwRequest,
)
from xds_server.stream.protocol.openings import Openings
from xds_server.stream.protocol.ordering import ResponsePlan
from xds_server.stream.protocol.parts import MANY, Parts, batches
from xds_server.stream.protocol.session import Session

ROOT_TYPES = (CLUSTER, LISTENER, SCOPED_ROUTE)
"""The types of which an Envoy asks for all there is. No names in a first delta request mean all of them (X30), and a
response in state of the world lists all there is, so that what it leaves out is deleted (X23)."""


class DeltaSession(Session):
    """One client that is sent changes only.

    Source: xDS protocol, "Incremental xDS"; discovery.proto, DeltaDiscoveryRequest.
    """

    def receive(self, request: DeltaRequest, now: float) -> Parts[Output]:
        """Handle a request: an ACK or NACK, a change of subscription, or both (X17, X40)."""
        ledger, first = yield from self._book_answer(request, now)
        if first:
            yield from self._open(ledger, request)
        elif request.subscribe or request.unsubscribe:
            yield from self._change_subscription(ledger, request, first)
        return (yield from self._advance(now))

    def _says_much(self, request: DeltaRequest | SotwRequest) -> bool:
        if not request.is_long or not isinstance(request, DeltaRequest) or request.type_url in self.types:
            return request.is_long
        openings = self._openings(request)
        known = None if openings is None else openings.find(request)
        return known is None or len(known.pending) > MANY

    def _openings(self, request: DeltaRequest) -> Openings | None:
        resources = self._view.of_type(request.type_url) if request.shared else None
        return None if resources is None else resources.derived(Openings)

    def _open(self, ledger: Ledger, request: DeltaRequest) -> Parts[None]:
        """Handle the first request of a type: as that of another client, if that said the same of the same snapshot."""
        openings = self._openings(request)
        known = None if openings is None else openings.find(request)
        if known is not None and len(known.subscription.names) <= self._terms.max_names:
            ledger.open(known)
            return
        yield from self._change_subscription(ledger, request, first=True)
        yield from self._accept_claims(ledger, request)
        if openings is not None:
            openings.keep(request, ledger.opening)

    def _change_subscription(self, ledger: Ledger, request: DeltaRequest, first: bool) -> Parts[None]:
        before = ledger.subscription
        unnamed = not request.subscribe and not request.unsubscribe
        if first and unnamed and request.type_url in ROOT_TYPES:
            yield from self._subscribe(ledger, EVERYTHING)
        elif not unnamed:
            yield from self._subscribe(ledger, before.after_delta(request.subscribe, request.unsubscribe))
        if ledger.subscription.wildcard and not before.wildcard:
            ledger.mark(self._visible_names(ledger.type_url))
            ledger.owe_reply()
        # Every name asked for is answered (X32), one that a wildcard still covers when it is given up as well (X38).
        for names in batches(request.subscribe):
            ledger.resend(name for name in names if name != WILDCARD and not (first and name in request.claimed))
            yield
        for names in batches(before.names.intersection(request.unsubscribe) if ledger.subscription.wildcard else ()):
            ledger.resend(names)
            yield

    def _accept_claims(self, ledger: Ledger, request: DeltaRequest) -> Parts[None]:
        """Believe the client what it has from an earlier stream (X39); claims subscribe to nothing."""
        catalog = self._catalog(ledger.type_url)
        claimed = request.claimed
        current = ledger.claim_all(claimed, catalog) if catalog is not None and claimed else frozenset[str]()
        yield
        there = catalog.names if catalog is not None else frozenset[str]()
        # Whoever claims what nobody has may claim a lot of it.
        for names in batches(claimed.keys() - there):
            ledger.claim_unknown((name, claimed[name]) for name in names if ledger.wants(name))
            yield
        for names in batches((claimed.keys() & there) - current):
            for name in names:
                if ledger.wants(name):
                    ledger.claim(name, claimed[name], self._view.find(ResourceKey(ledger.type_url, name)))
            yield

    def _response(self, ledger: Ledger, plan: ResponsePlan) -> Response:
        nonce = self._nonce(ledger)
        everything = self._view.snapshot.by_type[ledger.type_url] if plan.catalog is not None else None
        sent, removed = tuple(plan.send.values()), tuple(plan.remove)
        return Response(ledger.type_url, nonce, nonce, sent, removed, everything=everything)

    def _splits(self, ledger: Ledger) -> bool:
        return True

    def _removes(self, ledger: Ledger) -> bool:
        return True


class SotwSession(Session):
    """One client that is sent full sets of clusters and listeners, and whatever changed of the other types.

    A response lists what is, not what changed. Source: xDS protocol, "ACK/NACK and versioning".
    """

    def receive(self, request: SotwRequest, now: float) -> Parts[Output]:
        """Handle a request: an ACK or NACK, a new list of names, or both (X17, X26)."""
        ledger, first = yield from self._book_answer(request, now)
        yield from self._change_subscription(ledger, request, first)
        return (yield from self._advance(now))

    def _change_subscription(self, ledger: Ledger, request: SotwRequest, first: bool) -> Parts[None]:
        before = ledger.subscription
        after = before.after_sotw(request.names, first)
        if after == before and not first:
            return
        yield from self._subscribe(ledger, after)
        if request.type_url not in SHORT:
            return  # X03: nothing is ever said about a type that is not served
        if after.wildcard and not before.wildcard:
            if first and not after.names and self._is_up_to_date(ledger, request.version):
                return
            ledger.mark(self._visible_names(ledger.type_url))
            ledger.owe_reply()
        yield
        added = after.names - before.names
        for names in batches(added):
            ledger.resend(names)
            yield
        if added and request.type_url in ROOT_TYPES:
            ledger.owe_reply()

    def _is_up_to_date(self, ledger: Ledger, version: str) -> bool:
        """Adopt a reconnecting client that has everything already (X10)."""
        resources = self._subscribed(ledger)
        if not version or version != content_version(resources):
            return False
        ledger.adopt(resources)
        return True

    def _splits(self, ledger: Ledger) -> bool:
        return ledger.type_url not in ROOT_TYPES

    def _removes(self, ledger: Ledger) -> bool:
        return ledger.type_url in ROOT_TYPES

    def _response(self, ledger: Ledger, plan: ResponsePlan) -> Response | None:
        missing = ledger.owed_of(plan.remove)
        if ledger.type_url in ROOT_TYPES:
            return self._full(ledger, plan, missing)
        if not (plan.send or missing or ledger.reply_due):
            return None
        version = content_version(self._subscribed(ledger))
        return Response(ledger.type_url, self._nonce(ledger), version, tuple(plan.send.values()), missing=missing)

    def _full(self, ledger: Ledger, plan: ResponsePlan, missing: tuple[str, ...]) -> Response:
        """Say the full set, since what is left out is deleted (X23).

        What the client keeps for now, because its successor or its removal has to wait or was refused, is repeated.
        """
        remain = {n: held.resource for n, held in ledger.held.items() if held.resource and n not in plan.remove}
        full = dict(sorted({**remain, **plan.send}.items()))
        size = sum(len(resource.body) + len(name) + OVERHEAD_BYTES for name, resource in full.items())
        if size > self._terms.max_response_bytes:
            raise ResponseTooLargeError(f"{len(full)} resources, {size} bytes, in one response")
        version = content_version(full)
        return Response(ledger.type_url, self._nonce(ledger), version, tuple(full.values()), missing=missing)

    def _subscribed(self, ledger: Ledger) -> dict[str, Resource]:
        there: Mapping[str, Resource] = self._view.of_type(ledger.type_url) or {}
        named = ledger.subscription.names
        if ledger.subscription.wildcard:
            return dict(there.items())
        # Whoever names what nobody has may name a lot of it.
        names = named if len(named) <= len(there) else [name for name in there if name in named]
        return {name: resource for name in names if (resource := there.get(name)) is not None}
