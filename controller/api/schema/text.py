"""Words that somebody else chose, as they are shown."""

from __future__ import annotations


def one_line(text: str) -> str:
    """Write on one line what is printable of a text, as `printable` does."""
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """Write what a terminal would obey as Python does; who writes objects or names files chooses words."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
