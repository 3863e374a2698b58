"""State of the world: a response lists what is, not what changed. Source: xDS protocol, "ACK/NACK and versioning"."""

from __future__ import annotations

from xds_server.snapshot.snapshot import CLUSTER, LISTENER, SHORT, Resource, ResourceKey, content_version
from xds_server.stream.protocol.ledger import Ledger
from xds_server.stream.protocol.plan import OVERHEAD_BYTES, Plan
from xds_server.stream.protocol.requests import Held, Output, Response, ResponseTooLargeError, SotwRequest
from xds_server.stream.protocol.session import Session

COMPLETE = (CLUSTER, LISTENER)


class SotwSession(Session):
    """One client that gets full sets of clusters and listeners, and whatever changed of the other types."""

    def receive(self, request: SotwRequest, now: float) -> Output:
        """Take a request: an ACK or NACK, a new list of names, or both (X17, X26)."""
        ledger = self._ledgers.get(request.type_url)
        first = ledger is None
        if ledger is None:
            ledger = self._ledgers.setdefault(request.type_url, Ledger(request.type_url))
        else:
            self._answer(ledger, request.nonce, request.error, now)
        self._subscribe(ledger, request, first)
        return self._advance(now)

    def _subscribe(self, ledger: Ledger, request: SotwRequest, first: bool) -> None:
        before = ledger.subscription
        after = before.after_sotw(request.names, first)
        if after == before and not first:
            return
        self._change(ledger, after)
        if request.type_url not in SHORT:
            return  # X03: nothing is ever said about a type that is not served
        if after.wildcard and not before.wildcard:
            if first and not after.names and self._is_up_to_date(ledger, request.version):
                return
            ledger.dirty.update(self._visible_names(ledger.type_url))
            ledger.reply_due = True
        added = after.names - before.names
        ledger.force(added)
        ledger.reply_due = ledger.reply_due or (bool(added) and request.type_url in COMPLETE)

    def _is_up_to_date(self, ledger: Ledger, version: str) -> bool:
        """Adopt a reconnecting client that has everything already (X10)."""
        resources = self._subscribed(ledger)
        if not version or version != content_version(resources):
            return False
        ledger.held.update((name, Held(resource.version, resource)) for name, resource in resources.items())
        ledger.acknowledged = True
        return True

    def _splits(self, ledger: Ledger) -> bool:
        return ledger.type_url not in COMPLETE

    def _removes(self, ledger: Ledger) -> bool:
        return ledger.type_url in COMPLETE

    def _response(self, ledger: Ledger, plan: Plan) -> Response | None:
        missing = tuple(name for name in plan.remove if name in ledger.forced)
        if ledger.type_url in COMPLETE:
            return self._full(ledger, plan, missing)
        if not (plan.send or missing or ledger.reply_due):
            return None
        version = content_version(self._subscribed(ledger))
        return Response(ledger.type_url, self._nonce(ledger), version, tuple(plan.send.values()), missing=missing)

    def _full(self, ledger: Ledger, plan: Plan, missing: tuple[str, ...]) -> Response:
        """Say the full set, since what is left out is deleted (X23).

        What the client keeps for now, because its successor or its removal has to wait or was refused, is repeated.
        """
        kept = {n: held.resource for n, held in ledger.held.items() if held.resource and n not in plan.remove}
        full = dict(sorted({**kept, **plan.send}.items()))
        size = sum(len(resource.body) + len(name) + OVERHEAD_BYTES for name, resource in full.items())
        if size > self._terms.max_response_bytes:
            raise ResponseTooLargeError(f"{len(full)} resources, {size} bytes, in one response")
        version = content_version(full)
        return Response(ledger.type_url, self._nonce(ledger), version, tuple(full.values()), missing=missing)

    def _subscribed(self, ledger: Ledger) -> dict[str, Resource]:
        names = self._visible_names(ledger.type_url) if ledger.subscription.wildcard else ledger.subscription.names
        found = {name: self._visible(ResourceKey(ledger.type_url, name)) for name in names}
        return {name: resource for name, resource in found.items() if resource is not None}
