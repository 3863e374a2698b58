"""How a program starts, logs, and ends: at a signal, with all of its tasks stopped."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import math
import resource
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from controller.gateway.bootstrap import HostPort, XdsAddress

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_NEW_OBJECTS = 5_000
"""So many more make Python look for garbage among them; by default 700."""
_SEARCHES = 1
"""So many of newer objects, and the next is one of older ones, too; by default 10. One of the oldest looks at 45,000
new objects then, or at a fourth of what the one before it looked at: Python makes it no sooner."""
_EVERYTHING = 2
"""The oldest generation: a search of it is one of the others, too."""
_GROWN, _LASTS = 1.5, 60.0
"""As many objects as before, or as much memory, for so many seconds, and everything is looked at."""
_DOUBLED = 2.0
"""The same, and it is looked at at once."""
_MEMORY = Path("/proc/self/statm")
_NO_FILES = "socket.accept() out of system resource"
_NO_FILES_LEFT = "no connection can be taken: as many files are open as this program may have (ulimit -n)"
_SAID_EVERY = 60.0


class FieldFormatter(logging.Formatter):
    """Formats `12:00:01 info split changed model=default/a split=0/100`.

    Values with spaces stand in quotes, and control characters are written as `\\x1b`.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Format a record, its fields and its traceback, if it has one."""
        fields = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        record = logging.makeLogRecord({**vars(record), "levelname": record.levelname.lower()})
        written = "".join(f" {name.rstrip('_')}={_quoted(value)}" for name, value in fields.items())
        # A message is one line, whatever is in it; below it is the traceback.
        record.msg, record.args = record.getMessage().replace("\n", "\\n"), None
        first, newline, rest = _printable(super().format(record)).partition("\n")
        return f"{first}{written}{newline}{rest}"


def _quoted(value: object) -> str:
    text = str(value)
    return repr(text) if not text or any(one.isspace() or not one.isprintable() for one in text) else text


def _printable(text: str) -> str:
    """Leave no character that a terminal would obey: what others say may be in a message, or in a traceback."""
    return "".join(one if one.isprintable() or one == "\n" else ascii(one)[1:-1] for one in text)


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON: `time` (RFC 3339, UTC), `level`, `logger`, `message`, its fields, and
    `traceback`, if it has one.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Format a record; a field with a name of these has an underscore more."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        taken = {*line, "traceback"}
        for name, value in vars(record).items():
            if name not in _STANDARD:
                bare = name.rstrip("_")
                line[f"{bare}_" if bare in taken else bare] = _plain(value)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        # JSON itself writes this one character as it is.
        return json.dumps(line).replace("\x7f", "\\u007f")


def _plain(value: object) -> object:
    """Leave what JSON has a form for, and write all else as text: nothing that is logged may fail to be."""
    is_plain = value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
    return value if is_plain else str(value)


def raise_file_limit() -> None:
    """Have as many open files as this process may have: each connection is one, and the usual soft limit is 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def collect_seldom(clock: Callable[[], float] = time.monotonic) -> None:
    """Have Python look for garbage less often, and not at what is there now: modules and what they define stay.

    Whatever ends is freed at once, by the count of its references; what is left to look for are cycles, and they are
    few. While a thousand clients come, to look at everything over and over took an eighth of the xDS server's time.
    What a later search finds in use is left out from then on as well (`LongLived`).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, _SEARCHES, _SEARCHES)
    gc.callbacks.append(LongLived(clock))


def note_loaded() -> None:
    """Say that what the program needs to do its work is loaded, if it collects seldom; said again it changes nothing.

    While it loads that, it grows; else a search of everything would come at some moment after it.
    """
    for one in gc.callbacks:
        if isinstance(one, LongLived):
            one.note_loaded()


class LongLived:
    """Has Python's search for garbage leave out what an earlier one found in use: one of `gc.callbacks`.

    To look at what a thousand models are takes 0.13 to 0.25 s, in which nobody is answered. But a cycle that ends after
    it was found in use is garbage that nobody finds. So a search of the oldest is one of everything when half as many
    objects, or half as much memory, have come on top of what there was at the last one of those, and stayed for a
    minute: few objects may hold much, but what clients say comes and goes. When as much again has come, it is one at
    once.

    Python 3.14 looks at a part of everything each time, and never at the oldest generation alone, unless somebody asks
    for that: nothing is left out there but what was there when the program started.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._is_everything = False
        self._is_loaded = False
        self._before = _sizes()
        self._grown_since: float | None = None

    def note_loaded(self) -> None:
        """Compare with what there is now, the first time that this is called."""
        if not self._is_loaded:
            self._is_loaded, self._before, self._grown_since = True, _sizes(), None

    def __call__(self, phase: str, search: Mapping[str, int]) -> None:
        """Do so before a search (`start`) and after it (`stop`)."""
        if search["generation"] != _EVERYTHING:
            return
        if phase == "stop":
            gc.freeze()
            if self._is_everything:
                self._is_everything, self._before, self._grown_since = False, _sizes(), None
        elif self._is_due():
            gc.unfreeze()
            self._is_everything = True

    def _is_due(self) -> bool:
        growth = max(now / max(before, 1) for now, before in zip(_sizes(), self._before, strict=True))
        if growth <= _GROWN:
            self._grown_since = None
            return False
        now = self._clock()
        self._grown_since = now if self._grown_since is None else self._grown_since
        return growth > _DOUBLED or now - self._grown_since >= _LASTS


def _sizes() -> tuple[int, int]:
    """Return how many objects there are, and pages in memory: 0 where Linux does not say it."""
    # To count what is left out would take 40 ms of 400,000 objects. What the allocator knows is there in 0.1 ms.
    objects = sys.getallocatedblocks()
    try:
        return objects, int(_MEMORY.read_bytes().split()[1])
    except OSError:
        return objects, 0


class NoFilesFilter(logging.Filter):
    """Lets through once in a minute what asyncio says each second, and at each address, while no file is left."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._next = -math.inf

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether this is logged."""
        if record.name != "asyncio" or not record.getMessage().startswith(_NO_FILES):
            return True
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + _SAID_EVERY
        record.msg, record.args, record.exc_info = _NO_FILES_LEFT, None, None
        return True


def log_to_stderr(level: str, form: str = "text") -> None:
    """Send every log record of at least this level to standard error, as `text` or as `json`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else FieldFormatter())
    handler.addFilter(NoFilesFilter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Their records of level INFO are about single requests.
    for name in ("aiohttp.access", "httpx", "watchfiles"):
        logging.getLogger(name).setLevel("WARNING")


logger = logging.getLogger(__name__)


class CannotStartError(Exception):
    """Something that the program needs cannot be had; the message says what and how to change it."""


def check_plaintext(option: str, address: XdsAddress, insecure: bool, instead: str) -> None:
    """Let nobody listen without TLS where others than this host come, unless it was asked for (`insecure`).

    `instead` says how else. Raises CannotStartError.
    """
    if isinstance(address, HostPort) and not (insecure or address.is_loopback):
        raise CannotStartError(
            f"{option} {address}: without TLS only programs of this host may join. Give {instead}, an address of "
            f"loopback such as {HostPort('127.0.0.1', address.port)}, a socket such as unix:/run/beamlit/xds.sock, or "
            "--insecure-xds where something else encrypts the connections, such as a service mesh"
        )


def handle_signals(at_once: asyncio.Event) -> asyncio.Event:
    """Return an event that the first SIGINT, SIGTERM or SIGHUP sets from now on; the second one sets `at_once`."""
    stop = asyncio.Event()

    def handle() -> None:
        (at_once if stop.is_set() else stop).set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, handle)
    return stop


async def run_until_signal(
    programs: AbstractAsyncContextManager[Iterable[asyncio.Task[None]]], at_once: asyncio.Event | None = None
) -> None:
    """Run the tasks that `programs` yields until SIGINT, SIGTERM or SIGHUP; raise what ends one of them before.

    A second signal sets `at_once`.
    """
    stop = handle_signals(at_once or asyncio.Event())
    async with programs as running:
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait((stopping, *running), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        for task in running:
            if task.done():
                task.result()
        logger.info("stopping")


def start_tasks(stack: contextlib.AsyncExitStack, *work: Coroutine[Any, Any, None]) -> tuple[asyncio.Task[None], ...]:
    """Start tasks; when the stack unwinds, they are cancelled and waited for."""
    tasks = tuple(asyncio.create_task(one) for one in work)
    stack.push_async_callback(_cancel, tasks)
    return tasks


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
