"""A message that is written once, and then used again and again with another number in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Template:
    """The bytes of a message before and behind a number from 1 to 127.

    Such a number is one byte, itself (Protocol Buffers, "Encoding", "Base 128 Varints"): whatever it is, nothing else
    in the message changes.
    """

    before: bytes
    behind: bytes

    @classmethod
    def of(cls, write: Callable[[int], bytes]) -> Self:
        """Build the template of a message that `write` serialises with the number it is given.

        Raises ValueError unless that number is in the message once.
        """
        one, two = write(1), write(2)
        at = next((at for at, pair in enumerate(zip(one, two, strict=False)) if pair == (1, 2)), None)
        if at is None or one[:at] != two[:at] or one[at + 1 :] != two[at + 1 :]:
            raise ValueError("the number is not one byte of the message")
        return cls(one[:at], one[at + 1 :])

    def filled(self, number: int) -> bytes:
        """Give the message with this number. Raises ValueError unless it is from 1 to 127."""
        if not 1 <= number <= 127:
            raise ValueError(f"{number} is not from 1 to 127")
        return self.before + bytes((number,)) + self.behind
