"""Which question gives way to others, and that it is found without a search."""

from __future__ import annotations

import random

from controller.signals.shares import KeysByShare


def test_the_newest_of_a_share_that_has_the_most_gives_way_until_both_have_as_many() -> None:
    shares: KeysByShare[str] = KeysByShare(30.0)
    for number in range(4):
        shares.add(f"a/{number}", "a")
    found = []
    while key := shares.gives_way("b"):
        shares.forget(key, "a")
        shares.add(f"b/{len(found)}", "b")
        found.append(key)
    assert found == ["a/3", "a/2"]
    assert shares.gives_way("a") is None


def test_a_share_without_keys_is_forgotten() -> None:
    shares: KeysByShare[str] = KeysByShare(30.0)
    shares.add("a/0", "a")
    assert list(shares["a"].keys) == ["a/0"]
    shares.forget("a/0", "a")
    assert shares.get("a") is None
    assert shares.gives_way("b") is None


def test_whatever_came_and_went_the_one_that_gives_way_is_the_newest_of_a_largest_share() -> None:
    chance, shares = random.Random(7), KeysByShare[int](30.0)
    there: dict[int, str] = {}
    for key in range(2_000):
        if there and chance.random() < 0.45:
            gone = chance.choice(list(there))
            shares.forget(gone, there.pop(gone))
        else:
            there[key] = chance.choice("abcd")
            shares.add(key, there[key])
        newest = {share: one for one, share in there.items()}
        sizes = {share: sum(1 for one in there.values() if one == share) for share in "abcde"}
        for share in "ae":
            key_that_goes = shares.gives_way(share)
            if max(sizes.values()) <= sizes[share] + 1:
                assert key_that_goes is None
            else:
                assert key_that_goes in {newest[one] for one, size in sizes.items() if size == max(sizes.values())}
