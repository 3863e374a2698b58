"""Kubernetes quantities as numbers (API reference, "Quantity")."""

from __future__ import annotations

import re
from decimal import Decimal

_PARTS = re.compile(r"([+-]?[0-9.]+)(?:([numkMGTPE]i?)|[eE]([+-]?[0-9]+))?")
_SUFFIXES = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = "KMGTPE"


def number_of(quantity: str | int | float) -> Decimal:
    """Read a quantity that was accepted, such as 10, "500m" or "2Gi"."""
    text = str(quantity)
    if text.endswith("i"):
        return Decimal(text[:-2]) * Decimal(1024) ** (_BINARY.index(text[-2]) + 1)
    matched = _PARTS.fullmatch(text)
    assert matched, "what is no quantity is refused"
    number, suffix, exponent = matched.groups()
    return Decimal(number).scaleb(_SUFFIXES[suffix] if suffix else int(exponent or 0))


def text_of(number: Decimal) -> str:
    """Write a measured number, to three decimal places at most."""
    rounded = f"{number:.3f}".rstrip("0").rstrip(".")
    return rounded or "0"
