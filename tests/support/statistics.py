"""The statistics of a model: which docs/data-plane.md names, and which the bootstrap keeps.

A name is written with `*` for what may be anything, such as a namespace.
"""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from controller.gateway.bootstrap import Provision, bootstrap_for
from tests.support.envoy import ANY_PORT

_DOCUMENT = Path(__file__).parents[2] / "docs" / "data-plane.md"


def documented() -> frozenset[str]:
    """Read the names of the table: in a cell, `downstream_rq_` `total`, `active` are a prefix and what follows it."""
    table = _DOCUMENT.read_text().partition("## Statistics")[2].partition("\n\nWhat a cluster counts")[0]
    found: set[str] = set()
    for of, kept in re.findall(r"^\| ([^|]*`[^|]*) \| (.*) \|$", table, re.MULTILINE):
        of_whom = [re.sub(r"<\w+>", "*", prefix) for prefix in re.findall(r"`([^`]+)`", of)]
        for part in kept.split(";"):
            first, *rest = re.findall(r"`([^`]+)`", part)
            names = [f"{first}{one}" for one in rest] if first.endswith(("_", ".")) else [first, *rest]
            found |= {prefix + name for prefix in of_whom for name in names}
    return frozenset(found)


def matchers() -> tuple[str, ...]:
    """Read the expressions of the bootstrap that keep what is of a model: whole names have to match."""
    text = bootstrap_for("", "", ANY_PORT, None, Provision())
    patterns = yaml.safe_load(text)["stats_config"]["stats_matcher"]["inclusion_list"]["patterns"]
    own = ("(cluster_manager|", r"(cluster\.xds_server|")
    return tuple(regex for one in patterns if not (regex := str(one["safe_regex"]["regex"])).startswith(own))


def taken_by(regex: str) -> frozenset[str]:
    """List the names that an expression takes, of those that the list is made of."""
    return frozenset(_alternatives(re.findall(r"\\\.|\[\^[^]]*\]\+|\.\*|\[\w+\]|[()|?]|[\w/]", regex)))


def _alternatives(tokens: list[str]) -> set[str]:
    found, ways = set[str](), {""}
    while tokens and tokens[0] != ")":
        token = tokens.pop(0)
        if token == "|":
            found, ways = found | ways, {""}
            continue
        inner = {token.removeprefix("\\")}
        if token == "(":
            inner = _alternatives(tokens)
            tokens.pop(0)
            if tokens[:1] == ["?"]:
                tokens.pop(0)
                inner |= {""}
        elif token == ".*" or token.startswith("[^"):
            inner = {"*"}
        elif token.startswith("["):
            inner = {*token[1:-1]}
        ways = {one + other for one in ways for other in inner}
    return found | ways
