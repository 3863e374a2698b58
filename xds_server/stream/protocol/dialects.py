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
from xds_server.stream.protocol.session import Session

ROOT_TYPES = (CLUSTER, LISTENER, SCOPED_ROUTE)
"""The types of which an Envoy asks for all there is. No names in a first delta request mean all of them (X30), and a
response in state of the world lists all there is, so that what it leaves out is deleted (X23)."""


class DeltaSession(Session):
    """One client that is sent changes only.

    Source: xDS protocol, "Incremental xDS"; discovery.proto, DeltaDiscoveryRequest.
    """

    def receive(self, request: DeltaRequest, now: float) -> Output:
        """Handle a request: an ACK or NACK, a change of subscription, or both (X17, X40)."""
        ledger, first = self._book_answer(request, now)
        if first:
            self._open(ledger, request)
        elif request.subscribe or request.unsubscribe:
            self._change_subscription(ledger, request, first)
        return self._answered(request, now)

    def _open(self, ledger: Ledger, request: DeltaRequest) -> None:
        """Handle the first request of a type: as that of another client, if that said the same of the same snapshot."""
        resources = self._view.of_type(ledger.type_url) if request.shared else None
        openings = None if resources is None else resources.derived(Openings)
        known = None if openings is None else openings.find(request)
        if known is not None and len(known.subscription.names) <= self._terms.max_names:
            ledger.open(known)
            return
        self._change_subscription(ledger, request, first=True)
        self._accept_claims(ledger, request)
        if openings is not None:
            openings.keep(request, ledger.opening)

    def _change_subscription(self, ledger: Ledger, request: DeltaRequest, first: bool) -> None:
        before = ledger.subscription
        unnamed = not request.subscribe and not request.unsubscribe
        if first and unnamed and request.type_url in ROOT_TYPES:
            self._subscribe(ledger, EVERYTHING)
        elif not unnamed:
            self._subscribe(ledger, before.after_delta(request.subscribe, request.unsubscribe))
        if ledger.subscription.wildcard and not before.wildcard:
            ledger.mark(self._visible_names(ledger.type_url))
            ledger.owe_reply()
        # Every name asked for is answered (X32), one that a wildcard still covers when it is given up as well (X38).
        given_up = before.names.intersection(request.unsubscribe) if ledger.subscription.wildcard else ()
        ledger.resend(name for name in request.subscribe if name != WILDCARD and name not in request.claimed)
        ledger.resend(given_up)
        if not first:
            ledger.resend(name for name in request.subscribe if name in request.claimed)

    def _accept_claims(self, ledger: Ledger, request: DeltaRequest) -> None:
        """Believe the client what it has from an earlier stream (X39); claims subscribe to nothing."""
        catalog = self._catalog(ledger.type_url)
        claimed = request.claimed
        current = ledger.claim_all(claimed, catalog) if catalog is not None and claimed else frozenset[str]()
        there = catalog.names if catalog is not None else frozenset[str]()
        # Whoever claims what nobody has may claim a lot of it.
        ledger.claim_unknown({name: claimed[name] for name in claimed.keys() - there if ledger.wants(name)})
        for name in (claimed.keys() & there) - current:
            if ledger.wants(name):
                ledger.claim(name, claimed[name], self._view.find(ResourceKey(ledger.type_url, name)))

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

    def receive(self, request: SotwRequest, now: float) -> Output:
        """Handle a request: an ACK or NACK, a new list of names, or both (X17, X26)."""
        ledger, first = self._book_answer(request, now)
        self._change_subscription(ledger, request, first)
        return self._answered(request, now)

    def _change_subscription(self, ledger: Ledger, request: SotwRequest, first: bool) -> None:
        before = ledger.subscription
        after = before.after_sotw(request.names, first)
        if after == before and not first:
            return
        self._subscribe(ledger, after)
        if request.type_url not in SHORT:
            return  # X03: nothing is ever said about a type that is not served
        if after.wildcard and not before.wildcard:
            if first and not after.names and self._is_up_to_date(ledger, request.version):
                return
            ledger.mark(self._visible_names(ledger.type_url))
            ledger.owe_reply()
        added = after.names - before.names
        ledger.resend(added)
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
        missing = tuple(name for name in plan.remove if ledger.owes(name))
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
        names = there if ledger.subscription.wildcard else ledger.subscription.names
        return {name: resource for name in names if (resource := there.get(name)) is not None}
