"""Each write is done by the writer that it may use, in order, until one fails."""

import inspect

import pytest

from controller.reconcile.applier import Applier
from controller.runtime.writes import Verb, Write, WrittenBy
from controller.store.protocol import ConflictError, ObjectWriter, Precondition
from tests.support.objects import a_model, a_service
from tests.support.store import MemoryStore

REF, RAW = a_service("made").ref, dict(a_service("made").port(80).raw)
LATEST = Precondition(resource_version="1")


class Named:
    """A writer that tells what it was asked, and fails when it shall."""

    def __init__(self, name, log, failing=""):
        self.name, self.log, self.failing = name, log, failing

    def __getattr__(self, verb):
        async def call(*arguments, **options):
            self.log.append((self.name, verb, arguments, options))
            if verb == self.failing:
                raise ConflictError(verb)

        return call


def applier(log, failing=""):
    return Applier(Named("leader", log, failing), Named("any", log, failing))


async def test_each_write_is_done_by_who_may():
    log = []
    writes = [Write(Verb.APPLY, REF, RAW, by=WrittenBy.ANY_REPLICA), Write(Verb.PATCH_STATUS, REF, {"a": 1}, LATEST)]
    await applier(log).apply(writes)
    assert [(name, verb) for name, verb, *_ in log] == [("any", "apply"), ("leader", "patch_status")]
    assert log[1][2] == (REF, {"a": 1}, LATEST)


async def test_what_follows_a_write_that_failed_is_not_done():
    log = []
    with pytest.raises(ConflictError):
        await applier(log, "patch").apply(
            [Write(Verb.CREATE, REF, RAW), Write(Verb.PATCH, REF), Write(Verb.DELETE, REF)]
        )
    assert [verb for _, verb, *_ in log] == ["create", "patch"]


async def test_every_verb_is_one_of_the_writer_and_reaches_it():
    for verb in Verb:
        log = []
        await applier(log).apply([Write(verb, REF, RAW, LATEST)])
        ((_, called, arguments, options),) = log
        assert called == verb.value
        inspect.signature(getattr(ObjectWriter, called)).bind(None, *arguments, **options)


async def test_over_a_store():
    store = MemoryStore([a_model().stored()])
    both = Applier(store, store)
    await both.apply([Write(Verb.CREATE, REF, RAW)])
    assert store[REF].raw["spec"] == RAW["spec"]
    await both.apply([Write(Verb.PATCH, REF, {"metadata": {"labels": {"a": "b"}}}, Precondition.unchanged(store[REF]))])
    assert store[REF].metadata["labels"] == {"a": "b"}
    stale = Precondition(resource_version="0")
    with pytest.raises(ConflictError):
        await both.apply([Write(Verb.DELETE, REF, precondition=stale)])
    await both.apply([Write(Verb.DELETE, REF)])
    with pytest.raises(KeyError):
        store[REF]
