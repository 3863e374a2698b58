"""The incremental dialect. Source: xDS protocol, "Incremental xDS"; discovery.proto, DeltaDiscoveryRequest."""

from __future__ import annotations

from xds_server.snapshot.snapshot import CLUSTER, LISTENER, ResourceKey
from xds_server.stream.protocol.ledger import Ledger
from xds_server.stream.protocol.plan import Plan
from xds_server.stream.protocol.requests import DeltaRequest, Held, Output, Response
from xds_server.stream.protocol.session import Session
from xds_server.stream.protocol.subscription import EVERYTHING, WILDCARD


class DeltaSession(Session):
    """One client that is told of changes only."""

    def receive(self, request: DeltaRequest, now: float) -> Output:
        """Take a request: an ACK or NACK, a change of subscription, or both (X17, X40)."""
        ledger = self._ledgers.get(request.type_url)
        first = ledger is None
        if ledger is None:
            ledger = self._ledgers.setdefault(request.type_url, Ledger(request.type_url))
        else:
            self._answer(ledger, request.nonce, request.error, now)
        self._subscribe(ledger, request, first)
        if first:
            self._claim(ledger, request)
        return self._advance(now)

    def _subscribe(self, ledger: Ledger, request: DeltaRequest, first: bool) -> None:
        before = ledger.subscription
        unnamed = not request.subscribe and not request.unsubscribe
        if first and unnamed and request.type_url in (CLUSTER, LISTENER):
            self._change(ledger, EVERYTHING)
        elif not unnamed:
            self._change(ledger, before.after_delta(request.subscribe, request.unsubscribe))
        if ledger.subscription.wildcard and not before.wildcard:
            ledger.dirty.update(self._visible_names(ledger.type_url))
            ledger.reply_due = True
        # Every name asked for is answered (X32), one that a wildcard still covers when it is given up as well (X38).
        given_up = before.names.intersection(request.unsubscribe) if ledger.subscription.wildcard else ()
        ledger.force(name for name in request.subscribe if name != WILDCARD and name not in request.claimed)
        ledger.force(given_up)
        if not first:
            ledger.force(name for name in request.subscribe if name in request.claimed)

    def _claim(self, ledger: Ledger, request: DeltaRequest) -> None:
        """Believe the client what it has from an earlier stream (X39); claims subscribe to nothing."""
        for name, version in request.claimed.items():
            if not ledger.subscription.covers(name):
                continue
            current = self._visible(ResourceKey(ledger.type_url, name))
            known = current is not None and current.version == version
            ledger.held[name] = Held(version, current if known else None)
            if known:
                ledger.dirty.discard(name)
            else:
                ledger.dirty.add(name)

    def _response(self, ledger: Ledger, plan: Plan) -> Response:
        nonce = self._nonce(ledger)
        resources, removed = tuple(plan.send.values()), tuple(plan.remove)
        return Response(ledger.type_url, nonce, nonce, resources, removed)

    def _splits(self, ledger: Ledger) -> bool:
        return True

    def _removes(self, ledger: Ledger) -> bool:
        return True
