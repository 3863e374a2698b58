"""A token is good for those who have the key, and for a time."""

import pytest

from demo.bearer import is_good, token_until

TOKEN = token_until(100.0, b"key")


def test_a_token_is_good_until_it_ends():
    assert is_good(f"Bearer {TOKEN}", b"key", 99.0)
    assert not is_good(f"Bearer {TOKEN}", b"key", 100.0)


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        TOKEN,
        f"Basic {TOKEN}",
        f"Bearer 9{TOKEN}",
        f"Bearer {TOKEN}0",
        "Bearer é.é",
        "Bearer ².",
    ],
)
def test_nothing_else_is(authorization):
    assert not is_good(authorization, b"key", 1.0)


def test_nor_is_one_of_another_key():
    assert not is_good(f"Bearer {TOKEN}", b"another", 1.0)
