"""What a plain YAML scalar means to Kubernetes: the rules of kubectl's YAML library, then its way through JSON.

kubectl reads YAML with sigs.k8s.io/yaml, which is go-yaml v2: YAML 1.1 booleans (`yes`, `on`, `y` and their opposites),
octal numbers with a leading zero, underscores in numbers, timestamps that stay strings, no sexagesimal numbers. The
result becomes JSON, where `1.0` and `1e3` are the integers 1 and 1000, and infinity and NaN do not exist.
"""

from __future__ import annotations

import math
import re

Scalar = str | int | float | bool | None

_CONSTANTS: dict[str, bool | None] = {
    **{cased: True for word in ("y", "yes", "true", "on") for cased in (word, word.title(), word.upper())},
    **{cased: False for word in ("n", "no", "false", "off") for cased in (word, word.title(), word.upper())},
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
}
_NOT_A_NUMBER = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_INTEGER = re.compile(
    r"(?P<sign>[-+]?)(?:0[xX](?P<hex>[0-9a-fA-F]+)|0[bB](?P<bin>[01]+)|0[oO]?(?P<oct>[0-7]+)|(?P<dec>0|[1-9][0-9]*))"
)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_BASES = {"hex": 16, "bin": 2, "oct": 8, "dec": 10}
_LARGEST_WRITTEN_OUT = 1e21  # From here on Go's JSON writes a float with an exponent, which is read back as a float.
_LONGEST_NUMBER = 400  # Characters. Longer ones are nobody's number, and converting them is slow.


def resolve_plain(text: str) -> Scalar:
    """Give the value of a scalar written without quotes. Raises ValueError for numbers that JSON does not have."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if text[0] not in "+-.0123456789" or len(text) > _LONGEST_NUMBER:
        return text
    if _NOT_A_NUMBER.fullmatch(text):
        raise ValueError("must be a finite number")
    digits = text if text[0] == "." else text.replace("_", "")
    if match := _INTEGER.fullmatch(digits):
        base = match.lastgroup or "dec"
        return int(match["sign"] + match[base], _BASES[base])
    if _FLOAT.fullmatch(digits):
        return _as_json(float(digits))
    return text


def _as_json(number: float) -> int | float:
    if math.isinf(number):
        raise ValueError("must be a finite number")
    return int(number) if number.is_integer() and abs(number) < _LARGEST_WRITTEN_OUT else number
