"""A lease as the object that it is kept in."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from controller.store.lease import LeaseRecord, lease_object, lease_record
from controller.store.objects import ObjectRef, StoredObject

REF = ObjectRef("Lease", "beamlit-system", "beamlit-controller")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
RECORD = LeaseRecord("replica-0", 15, NOON, NOON, transitions=2)


def stored(raw: Any, version: str = "7") -> StoredObject:
    return StoredObject(REF, {**raw, "metadata": {**raw["metadata"], "resourceVersion": version}})


def test_a_lease_says_what_client_go_says() -> None:
    assert lease_object(REF, RECORD) == {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"namespace": "beamlit-system", "name": "beamlit-controller"},
        "spec": {
            "holderIdentity": "replica-0",
            "leaseDurationSeconds": 15,
            "acquireTime": "2026-01-01T12:00:00.000000Z",
            "renewTime": "2026-01-01T12:00:00.000000Z",
            "leaseTransitions": 2,
        },
    }


def test_what_was_written_is_read() -> None:
    record = lease_record(stored(lease_object(REF, RECORD)))
    assert record == RECORD
    assert record.version == "7"


def test_what_others_wrote_into_a_lease_stays() -> None:
    before = {
        "metadata": {"name": REF.name, "namespace": REF.namespace, "uid": "u", "labels": {"team": "x"}},
        "spec": {"holderIdentity": "other", "strategy": "OldestEmulationVersion"},
    }
    raw = lease_object(REF, RECORD, before)
    assert raw["metadata"] == before["metadata"]
    assert raw["spec"]["strategy"] == "OldestEmulationVersion"
    assert raw["spec"]["holderIdentity"] == "replica-0"


def test_a_lease_that_was_left_half_empty_is_nobodys() -> None:
    metadata = {"name": REF.name, "namespace": REF.namespace}
    for spec in ({}, {"spec": None}, {"spec": {"renewTime": "yesterday", "acquireTime": "2026-01-01T12:00:00"}}):
        assert lease_record(stored({"metadata": metadata, **spec})) == LeaseRecord("", 0)
