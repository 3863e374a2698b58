from __future__ import annotations

import pytest

from controller.store.manifest.nodes import resolve_plain


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True),
        ("On", True),
        ("y", True),
        ("TRUE", True),
        ("no", False),
        ("OFF", False),
        ("n", False),
        ("yEs", "yEs"),
        ("", None),
        ("~", None),
        ("null", None),
        ("Null", None),
        ("12", 12),
        ("+12", 12),
        ("-0", 0),
        ("010", 8),
        ("0o17", 15),
        ("0x1F", 31),
        ("-0b11", -3),
        ("1_000", 1000),
        ("08", 8),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1.0", 1),
        ("1e3", 1000),
        ("1e21", 1e21),
        ("12:30", "12:30"),
        ("1.2.3", "1.2.3"),
        ("2026-01-01", "2026-01-01"),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("500m", "500m"),
        ("1Gi", "1Gi"),
        ("-", "-"),
        (".", "."),
        ("_1", "_1"),
        ("=", "="),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("9" * 401, "9" * 401),
    ],
)
def test_a_plain_scalar_is_what_kubectl_makes_of_it(text: str, value: object) -> None:
    resolved = resolve_plain(text)
    assert resolved == value
    assert type(resolved) is type(value)


@pytest.mark.parametrize("text", [".inf", "-.Inf", ".NaN", "1e400"])
def test_numbers_that_json_does_not_have_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="finite"):
        resolve_plain(text)
