"""What of a program's memory is looked at for garbage."""

import gc
import mmap
import sys
import weakref
from pathlib import Path

import pytest

from controller.programs.lifetime import collect_seldom, note_loaded


class Cycle:
    def __init__(self):
        self.itself = self


@pytest.fixture(autouse=True, scope="module")
def nothing_more_is_frozen():
    yield
    # What these tests froze is looked at again; what was frozen before, all tests and their modules, is not. To look at
    # all of it takes a third of a second: once for all of these.
    gc.unfreeze()
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def as_it_was():
    thresholds, callbacks = gc.get_threshold(), tuple(gc.callbacks)
    gc.set_threshold(700, 10, 10)  # as a program of Python 3.11 starts, and not as the tests run (tests/conftest.py)
    yield
    for added in [one for one in gc.callbacks if one not in callbacks]:
        gc.callbacks.remove(added)
    gc.set_threshold(*thresholds)


def is_looked_at(one):
    return id(one) in {id(other) for other in gc.get_objects()}


def test_what_is_there_when_a_program_starts_is_not_looked_at_again():
    before, kept = gc.get_threshold()[0], [[]]
    collect_seldom()
    new = [[]]
    assert is_looked_at(new)
    assert not is_looked_at(kept)
    assert gc.get_threshold()[0] > before


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def left_out():
    """A cycle that a search finds in use, and that ends then."""
    cycle = Cycle()
    gc.collect()
    ended = weakref.ref(cycle)
    del cycle
    gc.collect()
    assert ended() is not None
    return ended


def memory(part):
    """So much on top of the memory of this process, in one object, and none of the allocator's, which keeps some."""
    pages = int(int(Path("/proc/self/statm").read_text().split()[1]) * part)
    much = mmap.mmap(-1, pages * mmap.PAGESIZE)
    much[:: mmap.PAGESIZE] = b"x" * pages
    return much


def objects(part):
    return [float(number) for number in range(int(sys.getallocatedblocks() * part))]


@pytest.mark.parametrize("grow", [objects, memory])
def test_what_a_search_finds_in_use_is_looked_at_again_once_half_as_much_has_come_on_top_and_stayed_for_a_minute(grow):
    clock = Clock()
    collect_seldom(clock)
    kept, ended = [[]], left_out()
    assert not is_looked_at(kept)
    more = grow(0.6)
    for clock.now in (0.0, 59.0):
        gc.collect()
        assert ended() is not None
    clock.now = 60.0
    gc.collect()
    assert ended() is None
    assert not is_looked_at(more)


def test_what_comes_on_top_and_goes_has_nothing_looked_at_again():
    clock = Clock()
    collect_seldom(clock)
    ended, more = left_out(), memory(0.6)
    gc.collect()
    more.close()
    clock.now = 30.0
    gc.collect()
    more = memory(0.6)
    for clock.now in (30.0, 89.0):
        gc.collect()
        assert ended() is not None
    del more


@pytest.mark.parametrize("grow", [objects, memory])
def test_everything_is_looked_at_at_once_when_as_much_again_has_come_on_top(grow):
    collect_seldom(Clock())
    ended, more = left_out(), grow(1.2)
    gc.collect()
    assert ended() is None
    del more


def test_what_a_program_loads_first_is_nothing_that_has_come_on_top():
    clock = Clock()
    collect_seldom(clock)
    ended, loaded = left_out(), memory(0.6)
    note_loaded()
    gc.collect()
    clock.now = 60.0
    gc.collect()
    assert ended() is not None
    more = memory(0.6)
    note_loaded()
    gc.collect()
    clock.now = 120.0
    gc.collect()
    assert ended() is None
    del loaded, more
