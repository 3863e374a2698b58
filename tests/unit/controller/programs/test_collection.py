"""What of a program's memory is looked at for garbage."""

import gc

from controller.programs.lifetime import collect_seldom


def test_what_is_there_when_a_program_starts_is_not_looked_at_again():
    before, kept, new = gc.get_threshold()[0], [[]], None
    try:
        collect_seldom()
        new = [[]]
        looked_at = {id(one) for one in gc.get_objects()}
        assert id(new) in looked_at
        assert id(kept) not in looked_at
        assert gc.get_threshold()[0] > before
    finally:
        gc.unfreeze()
        gc.set_threshold(before)
