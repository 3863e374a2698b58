"""Objects of a store, and how they are read."""

from __future__ import annotations

import pytest

from controller.api.kubernetes.objects import EndpointSlice, Service
from controller.api.schema.errors import InvalidObjectError
from controller.store.objects import ObjectRef
from controller.store.protocol import UNCONDITIONAL, ConflictError, Precondition
from tests.support.objects import a_service


def test_an_object_is_parsed_once_for_all_who_read_it() -> None:
    stored = a_service().port(80).stored()
    parsed = stored.parsed_as(Service)
    assert parsed.spec.ports[0].port == 80
    assert stored.parsed_as(Service) is parsed


def test_an_object_that_does_not_fit_says_so_to_everybody_who_reads_it() -> None:
    stored = a_service().port(0).stored()
    errors = []
    for _ in range(2):
        with pytest.raises(InvalidObjectError) as invalid:
            stored.parsed_as(Service)
        errors.append(invalid.value)
    assert str(errors[0]) == str(errors[1])
    assert errors[0].errors == errors[1].errors
    assert errors[0] is not errors[1], "each has a traceback of its own"


def test_an_object_is_parsed_by_each_schema_on_its_own() -> None:
    stored = a_service().port(80).stored()
    with pytest.raises(InvalidObjectError):
        stored.parsed_as(EndpointSlice)
    assert stored.parsed_as(Service).spec.ports


def test_what_was_parsed_is_no_part_of_what_an_object_is() -> None:
    one, other = a_service().port(80).stored(), a_service().port(80).stored()
    before = repr(one)
    one.parsed_as(Service)
    assert one == other
    assert repr(one) == before


def test_an_object_without_a_namespace_is_in_the_default_one() -> None:
    assert ObjectRef.of({"kind": "Service", "metadata": {"name": "a"}}) == ObjectRef("Service", "default", "a")


def test_a_precondition_holds_for_the_object_and_version_that_it_names() -> None:
    stored = a_service().stored(version="7")
    for precondition in (UNCONDITIONAL, Precondition(uid=stored.uid), Precondition.unchanged(stored)):
        precondition.check(stored)
    with pytest.raises(ConflictError, match="is at resourceVersion 7, not 6"):
        Precondition(resource_version="6").check(stored)
    with pytest.raises(ConflictError, match="has the uid uid-of-a, not another"):
        Precondition(uid="another", resource_version="7").check(stored)
