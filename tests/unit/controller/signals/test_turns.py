"""Few questions at once, and nobody waits for another namespace's thousands."""

from __future__ import annotations

from controller.signals.turns import Turns


def take_all(turns: Turns[str]) -> list[str]:
    return list(iter(turns.take, None))


def test_a_share_has_no_more_than_its_part_at_once() -> None:
    turns: Turns[str] = Turns(at_once=4, of_one=2)
    for number in range(10):
        turns.add(f"many-{number}", "many")
    assert take_all(turns) == ["many-0", "many-1"]
    turns.add("one", "few")
    assert take_all(turns) == ["one"]
    turns.end("many-0")
    assert take_all(turns) == ["many-2"]


def test_one_with_thousands_delays_another_by_one_turn() -> None:
    turns: Turns[str] = Turns(at_once=1, of_one=1)
    for number in range(1000):
        turns.add(f"many-{number}", "many")
    turns.add("one", "few")
    order = []
    for _ in range(3):
        order += (taken := take_all(turns))
        turns.end(taken[0])
    assert order == ["many-0", "one", "many-1"]


def test_shares_take_turns_however_much_they_want() -> None:
    turns: Turns[str] = Turns(at_once=1, of_one=1)
    for share in ("a", "b", "c"):
        for number in range(3):
            turns.add(f"{share}{number}", share)
    order = []
    while taken := take_all(turns):
        order += taken
        turns.end(taken[0])
    assert order == ["a0", "b0", "c0", "a1", "b1", "c1", "a2", "b2", "c2"]


def test_what_waits_or_has_its_turn_is_not_taken_twice() -> None:
    turns: Turns[str] = Turns(at_once=2, of_one=2)
    turns.add("a", "x")
    turns.add("a", "x")
    assert take_all(turns) == ["a"]
    turns.add("a", "x")
    assert take_all(turns) == []
    turns.end("a")
    turns.add("a", "x")
    assert take_all(turns) == ["a"]
