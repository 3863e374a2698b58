"""What the steps of an event loop take, in CPU time of its thread, and what the longest one is a part of."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import Context
from typing import Any, TypeVarTuple, Unpack

Ts = TypeVarTuple("Ts")

_OURS = ("/xds_server/", "/controller/", "/benchmarks/")
_LONGEST_NAME = 200
_LOOKS_EVERY = 0.001


class LongestSteps(ctypes.Structure):
    """Memory that two processes share: seconds of CPU, since it was reset.

    `between` is the longest time that goes by when a millisecond should: what is ready then has to wait. `callback` is
    the longest that was given to the loop, with `garbage`, what of it Python's search for garbage took, and its name.
    """

    _fields_ = (
        ("between", ctypes.c_double),
        ("callback", ctypes.c_double),
        ("garbage", ctypes.c_double),
        ("name", ctypes.c_char * _LONGEST_NAME),
    )
    between: float
    callback: float
    garbage: float
    name: bytes

    def reset(self) -> None:
        """Begin anew."""
        self.between = self.callback = self.garbage = 0.0
        self.name = b""

    def __str__(self) -> str:
        """Write what the longest callback was."""
        garbage = f", garbage {self.garbage * 1000:.0f}" if self.garbage >= _LOOKS_EVERY else ""
        return f"{self.callback * 1000:.0f}{garbage} {self.name.decode()}" if self.name else "-"


class MeasuredLoop(asyncio.SelectorEventLoop):
    """An event loop that notes what takes longest of what it is given."""

    def __init__(self, longest: LongestSteps) -> None:
        super().__init__()
        self._longest = longest
        self._garbage, self._search_began = 0.0, 0.0
        gc.callbacks.append(self._note_search)

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """See `AbstractEventLoop`."""
        return super().call_soon(self._measure, callback, args, context=context)

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """See `AbstractEventLoop`."""
        return super().call_at(when, self._measure, callback, args, context=context)

    def add_reader(self, fd: Any, callback: Callable[[Unpack[Ts]], Any], *args: *Ts) -> None:
        """See `AbstractEventLoop`."""
        super().add_reader(fd, self._measure, callback, args)

    def close(self) -> None:
        """See `AbstractEventLoop`."""
        if not self.is_closed():
            gc.callbacks.remove(self._note_search)
        super().close()

    async def note(self) -> None:
        """Note what goes by when a millisecond should, until cancelled."""
        while True:
            before = time.thread_time()
            await asyncio.sleep(_LOOKS_EVERY)
            self._longest.between = max(self._longest.between, time.thread_time() - before)

    def _measure(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        # Where a task stands is known before it goes on.
        began, self._garbage, name = time.thread_time(), 0.0, tuple(_names(callback))
        callback(*args)
        took = time.thread_time() - began
        if took > self._longest.callback:
            self._longest.callback, self._longest.garbage = took, self._garbage
            self._longest.name = " > ".join(name).encode()[:_LONGEST_NAME]

    def _note_search(self, phase: str, _search: Mapping[str, int]) -> None:
        if phase == "start":
            self._search_began = time.thread_time()
        else:
            self._garbage += time.thread_time() - self._search_began


def _names(callback: Callable[..., Any]) -> Iterator[str]:
    """Name a callback: of a task its first coroutine, and those of ours that it waits in."""
    task = getattr(callback, "__self__", None)
    if not isinstance(task, asyncio.Task):
        yield getattr(callback, "__qualname__", type(callback).__name__)
        return
    coroutine: Any = task.get_coro()
    is_first = True
    while coroutine is not None:
        code = getattr(coroutine, "cr_code", None)
        if is_first or (code is not None and any(one in code.co_filename for one in _OURS)):
            yield getattr(coroutine, "__qualname__", type(coroutine).__name__)
        coroutine, is_first = getattr(coroutine, "cr_await", None), False
