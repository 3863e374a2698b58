"""What of a program's memory is looked at for garbage."""

import gc
import resource
import sys
import weakref
from pathlib import Path

import pytest

from controller.programs.lifetime import collect_seldom


class Cycle:
    def __init__(self):
        self.itself = self


@pytest.fixture(autouse=True)
def as_it_was():
    thresholds, callbacks = gc.get_threshold(), tuple(gc.callbacks)
    gc.set_threshold(700, 10, 10)  # as a program of Python 3.11 starts, and not as the tests run (tests/conftest.py)
    yield
    for added in [one for one in gc.callbacks if one not in callbacks]:
        gc.callbacks.remove(added)
    gc.unfreeze()
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


def test_what_a_search_finds_in_use_is_not_looked_at_again_until_half_as_much_has_come_on_top():
    collect_seldom()
    kept, cycle = [[]], Cycle()
    gc.collect()
    assert not is_looked_at(kept)
    ended = weakref.ref(cycle)
    del cycle
    gc.collect()
    assert ended() is not None
    more = [float(number) for number in range(sys.getallocatedblocks() * 6 // 10)]
    gc.collect()
    assert ended() is None
    assert not is_looked_at(more)


def test_a_few_objects_that_hold_much_are_looked_at_again_when_half_as_much_memory_has_come_on_top():
    collect_seldom()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    cycle = Cycle()
    gc.collect()
    ended = weakref.ref(cycle)
    del cycle
    gc.collect()
    assert ended() is not None
    much = b"x" * (pages * resource.getpagesize() * 6 // 10)
    gc.collect()
    assert ended() is None
    del much
