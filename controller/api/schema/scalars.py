"""Single values that several objects have: durations, ports, quantities, text of a certain form."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from controller.api.schema.cel import CelRules, Rule, matches, with_rules
from controller.api.schema.errors import type_name

# Of a kind that YAML writes without quotes: "yes", 1 and "true" in quotes are mistakes, as for the API server.
Flag = Annotated[bool, Field(strict=True)]
WholeNumber = Annotated[int, Field(strict=True, le=2**31 - 1)]
Number = Annotated[float, Field(strict=True)]
Percent = Annotated[int, Field(strict=True, ge=0, le=100)]
Port = Annotated[int, Field(strict=True, ge=1, le=65535)]


@dataclass(frozen=True, slots=True)
class Shape:
    """The form of a text, as an annotation: a regular expression, and `words` that describe it to people.

    The text is not repeated: it may be a secret that got into the wrong field.
    """

    pattern: str
    words: str

    def check(self, text: str) -> str:
        """Return the text, or raise ValueError with the words."""
        if not re.fullmatch(self.pattern, text):
            raise ValueError(f"must be {self.words}")
        return text

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        rule = Rule(matches(self.pattern), f"must be {self.words}")
        return with_rules({**handler(schema), "pattern": f"^({self.pattern})$"}, (rule,))


# RFC 1123, as the API server checks the names of Secrets.
SecretName = Annotated[
    str,
    Field(max_length=253),
    Shape(
        r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
        "the name of a Secret: lower case letters, digits, '-' and '.'",
    ),
]

_DURATION = re.compile(
    r"(?:(?P<h>\d+(?:\.\d+)?)h)?(?:(?P<m>\d+(?:\.\d+)?)m)?(?:(?P<s>\d+(?:\.\d+)?)s)?(?:(?P<ms>\d+)ms)?", re.ASCII
)
# Longer is a slip of the keyboard, and sums of it with a date would leave the calendar.
_LONGEST = timedelta(days=365)
LONGEST_WINDOW = timedelta(days=1)
"""What a metric is an average over, at most: one over longer tells of no demand in time."""
# Envoy and the controller do something once per interval.
_SHORTEST_INTERVAL = timedelta(milliseconds=100)


def parse_duration(text: object) -> timedelta:
    """Parse what Kubernetes calls a Duration: `300ms`, `5s`, `1m30s`, `1.5h`; at most a year."""
    if isinstance(text, timedelta):
        return text
    match = _DURATION.fullmatch(text) if isinstance(text, str) and text else None
    if match is None:
        raise ValueError(f'must be a duration such as "30s", "1m30s" or "500ms", is {text!r}')
    part = {unit: float(value or 0) for unit, value in match.groupdict().items()}
    if sum(part[unit] * seconds for unit, seconds in _SECONDS.items()) > _LONGEST.total_seconds():
        raise ValueError("must be at most a year (8760h)")
    return timedelta(hours=part["h"], minutes=part["m"], seconds=part["s"], milliseconds=part["ms"])


_SECONDS = {"h": 3600, "m": 60, "s": 1, "ms": 0.001}


def format_duration(duration: timedelta) -> str:
    """Write a duration in the one form that `parse_duration` of any version reads: seconds, or milliseconds."""
    milliseconds = round(duration / timedelta(milliseconds=1))
    return f"{milliseconds // 1000}s" if milliseconds % 1000 == 0 else f"{milliseconds}ms"


def _check_interval(interval: timedelta) -> timedelta:
    if interval < _SHORTEST_INTERVAL:
        raise ValueError(f"must be at least {format_duration(_SHORTEST_INTERVAL)}, is {format_duration(interval)}")
    return interval


def _check_window(window: timedelta) -> timedelta:
    if window > LONGEST_WINDOW:
        raise ValueError("must be at most a day (24h)")
    return window


# As CEL's `duration()` takes it, with so few digits that no number overflows there.
_WRITTEN_DURATION = (
    r"([0-9]{1,6}([.][0-9]{1,9})?h)?([0-9]{1,7}([.][0-9]{1,9})?m)?([0-9]{1,9}([.][0-9]{1,9})?s)?([0-9]{1,12}ms)?"
)
_DURATION_RULES = (
    Rule(f"self != '' && {matches(_WRITTEN_DURATION)}", 'must be a duration such as "30s", "1m30s" or "500ms"'),
    Rule(f"!{matches(_WRITTEN_DURATION)} || duration(self) <= duration('8760h')", "must be at most a year (8760h)"),
)
_AS_DURATION = with_rules({"type": "string", "pattern": f"^{_WRITTEN_DURATION}$", "maxLength": 64}, _DURATION_RULES)

Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(_AS_DURATION),
]


def _format_time(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


# What Kubernetes calls `metav1.Time`: UTC, to the second.
Time = Annotated[datetime, PlainSerializer(_format_time, return_type=str)]
Interval = Annotated[
    Duration,
    AfterValidator(_check_interval),
    CelRules(
        Rule(f"!{matches(_WRITTEN_DURATION)} || duration(self) >= duration('100ms')", "must be at least 100ms"),
    ),
]
Window = Annotated[
    Duration,
    AfterValidator(_check_window),
    CelRules(
        Rule(f"!{matches(_WRITTEN_DURATION)} || duration(self) <= duration('24h')", "must be at most a day (24h)"),
    ),
]


def _check_number_or_name(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise ValueError(f"must be the number or the name of a port, is {type_name(value)}")
    return value


def _check_port_range(port: int | str) -> int | str:
    if isinstance(port, int) and not 1 <= port <= 65535:
        raise ValueError(f"must be a port from 1 to 65535, is {port}")
    if isinstance(port, str) and not _PORT_NAME.fullmatch(port):
        raise ValueError("must be the name of a port: lower case letters, digits and '-', at most 63 of them")
    return port


_PORT_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")

# A port as objects of Kubernetes have it, and one of our own objects: there only a number or name that a port can have.
AnyPortNumberOrName = Annotated[int | str, BeforeValidator(_check_number_or_name)]
PortNumberOrName = Annotated[
    AnyPortNumberOrName,
    AfterValidator(_check_port_range),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "minimum": 1,
            "maximum": 65535,
            "maxLength": 63,
            "pattern": f"^({_PORT_NAME.pattern})$",
        }
    ),
]
"""No rules of CEL: before 1.34 Kubernetes takes what may be a number or a string for as long as a request may be,
whatever its maxLength is, and refuses a definition with a rule that compares such a string with a pattern."""

# API reference, "Quantity".
_WRITTEN_QUANTITY = r"[+-]?([0-9]+([.][0-9]*)?|[.][0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]+)?"
_QUANTITY = re.compile(_WRITTEN_QUANTITY)


def _check_quantity(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float | str) or not _QUANTITY.fullmatch(str(value)):
        raise ValueError(f'must be a quantity such as 10, "500m" or "2Gi", is {value!r}')
    return value


Quantity = Annotated[
    str | int | float,
    BeforeValidator(_check_quantity),
    # As for a port, no rules.
    WithJsonSchema({"x-kubernetes-int-or-string": True, "maxLength": 64, "pattern": f"^({_WRITTEN_QUANTITY})$"}),
]


_PARTS = re.compile(r"([+-]?[0-9.]+)(?:([numkMGTPE]i?)|[eE]([+-]?[0-9]+))?")
_SUFFIXES = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = "KMGTPE"


# No larger exponent makes another number of what has `maxLength` characters: it is too large, or next to nothing.
_LARGEST_EXPONENT = 200


def number_of(quantity: str | int | float) -> Decimal:
    """Read a quantity that was accepted, such as 10, "500m" or "2Gi"; an exponent counts up to 200."""
    text = str(quantity)
    if text.endswith("i"):
        return Decimal(text[:-2]) * Decimal(1024) ** (_BINARY.index(text[-2]) + 1)
    matched = _PARTS.fullmatch(text)
    assert matched, "an accepted quantity has this form"
    number, suffix, exponent = matched.groups()
    power = _SUFFIXES[suffix] if suffix else int(exponent or 0)
    return Decimal(number).scaleb(max(min(power, _LARGEST_EXPONENT), -_LARGEST_EXPONENT))


def text_of(number: Decimal) -> str:
    """Write a measured number, to three decimal places at most."""
    rounded = f"{number:.3f}".rstrip("0").rstrip(".")
    return rounded or "0"
