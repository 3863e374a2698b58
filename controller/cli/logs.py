"""How the programs log: a constant message and its fields, on one line."""

from __future__ import annotations

import logging
import sys

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class FieldFormatter(logging.Formatter):
    """Formats `12:00:01 info split changed model=default/a split=0/100`; values with spaces stand in quotes."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Format a record, its fields and its traceback, if it has one."""
        fields = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        record = logging.makeLogRecord({**vars(record), "levelname": record.levelname.lower()})
        written = "".join(f" {name.rstrip('_')}={_quoted(value)}" for name, value in fields.items())
        first, newline, rest = super().format(record).partition("\n")
        return f"{first}{written}{newline}{rest}"


def _quoted(value: object) -> str:
    text = str(value)
    return repr(text) if not text or any(char.isspace() for char in text) else text


def log_to_stderr(level: str) -> None:
    """Send every log record of at least this level to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FieldFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Their records of level INFO are about single requests.
    for name in ("aiohttp.access", "httpx", "watchfiles"):
        logging.getLogger(name).setLevel("WARNING")
