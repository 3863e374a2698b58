"""What may still be written by who led, led no longer, or leads while it takes too long."""

import asyncio
import inspect
import math

import pytest

from controller.runtime.election import NoElection
from controller.runtime.fencing import Fenced, Leadership, NotLeaderError
from controller.store.protocol import ConflictError, ObjectClient, ObjectReader, ObjectStore, ObjectWriter, Precondition
from tests.support.objects import a_model
from tests.support.store import MemoryStore, at

MODEL = a_model().ref


def methods_of(protocol):
    return {name: method for name, method in inspect.getmembers(protocol, inspect.isfunction) if name[0] != "_"}


READS = {*methods_of(ObjectReader), "watch"}
WRITES = methods_of(ObjectWriter)
ARGUMENTS = {
    "raw": a_model().raw,
    "ref": MODEL,
    "changes": {"spec": {}},
    "status": {"split": 1},
    "manager": "one",
    "force": True,
    "precondition": Precondition("uid", "1"),
}
"""One for every parameter that a verb has."""


def arguments_of(verb):
    """Every argument that a verb takes, none of them its default."""
    return {name: ARGUMENTS[name] for name in inspect.signature(WRITES[verb]).parameters if name != "self"}


class Recording:
    """Implements `ObjectWriter`, whatever its verbs are: keeps what was called, answers when it shall."""

    def __init__(self):
        self.called = []
        self.answers = asyncio.Event()

    def __getattr__(self, verb):
        async def call(*args, **kwargs):
            self.called.append((verb, inspect.signature(WRITES[verb]).bind(self, *args, **kwargs).arguments))
            await self.answers.wait()
            return verb

        return call


def test_every_method_of_a_store_is_known_to_read_or_to_write():
    assert methods_of(ObjectStore).keys() == READS | WRITES.keys()
    assert methods_of(ObjectClient).keys() <= READS | WRITES.keys()
    assert not READS & WRITES.keys()
    assert methods_of(Fenced).keys() == READS | WRITES.keys()


@pytest.mark.parametrize("verb", WRITES)
def test_every_verb_takes_what_the_protocol_says(verb):
    assert inspect.signature(getattr(Fenced, verb)) == inspect.signature(WRITES[verb])


@pytest.mark.parametrize("verb", WRITES)
async def test_every_verb_passes_as_it_is_while_the_lease_is_young_enough(verb):
    store = Recording()
    store.answers.set()
    arguments = arguments_of(verb)
    answer = await getattr(Fenced(store, Leadership(lambda: 10.0)), verb)(**arguments)
    ((called, given),) = store.called
    assert (called, {name: value for name, value in given.items() if name != "self"}) == (verb, arguments)
    assert answer == (None if verb == "delete" else verb)


@pytest.mark.parametrize("verb", WRITES)
@pytest.mark.parametrize("remaining", [0.0, -1.0, -math.inf])
async def test_every_verb_is_refused_once_the_lease_is_too_old(verb, remaining):
    store = Recording()
    with pytest.raises(NotLeaderError, match="we lead no longer"):
        await getattr(Fenced(store, Leadership(lambda: remaining)), verb)(**arguments_of(verb))
    assert store.called == []


@pytest.mark.parametrize("verb", WRITES)
async def test_every_verb_ends_that_takes_longer_than_the_lease(verb):
    store = Recording()
    with pytest.raises(NotLeaderError, match="during the write"):
        await getattr(Fenced(store, Leadership(lambda: 0.01)), verb)(**arguments_of(verb))
    assert [called for called, _ in store.called] == [verb]


async def test_who_has_no_other_replicas_may_write_for_ever():
    store = MemoryStore([a_model().stored()])

    async def work(leadership):
        await Fenced(store, leadership).patch_status(MODEL, {"split": 1}, at("1"))

    await NoElection().run(work)
    assert store[MODEL].status == {"split": 1}


async def test_a_write_passes_while_the_lease_is_young_enough():
    store = MemoryStore([a_model().stored()])
    await Fenced(store, Leadership(lambda: 0.5)).patch_status(MODEL, {"split": 1}, at("1"))
    assert store[MODEL].status == {"split": 1}


@pytest.mark.parametrize("remaining", [0.0, -1.0, -math.inf])
async def test_a_write_is_refused_once_the_lease_is_too_old(remaining):
    store = MemoryStore([a_model().stored()])
    with pytest.raises(NotLeaderError, match="we lead no longer"):
        await Fenced(store, Leadership(lambda: remaining)).patch_status(MODEL, {"split": 1}, at("1"))
    assert store[MODEL].status == {}


async def test_a_write_that_takes_longer_than_the_lease_is_ended():
    class Slow(MemoryStore):
        async def patch_status(self, ref, status, precondition):
            await asyncio.Event().wait()

    with pytest.raises(NotLeaderError, match="during the write"):
        await Fenced(Slow(), Leadership(lambda: 0.01)).patch_status(MODEL, {"split": 1}, at("1"))


async def test_what_the_store_raises_stays_what_it_is():
    store = MemoryStore([a_model().stored()])
    with pytest.raises(ConflictError):
        await Fenced(store, Leadership(lambda: 1.0)).patch_status(MODEL, {"split": 1}, at("old"))


async def test_everybody_may_read():
    store = MemoryStore([a_model().stored()])
    assert await Fenced(store, Leadership(lambda: -1.0)).read(MODEL) is store[MODEL]
    async for batch in Fenced(store, Leadership(lambda: -1.0)).watch(["ModelDeployment"]):
        assert batch.complete
        break
