"""How a record looks."""

import json
import logging
import sys
from datetime import UTC, datetime, timedelta

import pytest

from controller.programs.lifetime import FieldFormatter, JsonFormatter, NoFilesFilter, log_to_stderr

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def formatted(message, level=logging.INFO, exc_info=None, **fields):
    record = logging.getLogger("x").makeRecord("x", level, "f", 1, message, (), exc_info, extra=fields)
    return FieldFormatter().format(record).partition(" ")[2]


def test_a_constant_message_and_its_fields():
    assert formatted("split changed", model="default/a", split="0/100") == (
        "info split changed model=default/a split=0/100"
    )


def test_a_message_alone():
    assert formatted("stopping", logging.WARNING) == "warning stopping"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("two words", "'two words'"),
        ("", "''"),
        ("a\nb", r"'a\nb'"),
        (3, "3"),
        (None, "None"),
        ("a=b", "a=b"),
        ("\x1b[2J", r"'\x1b[2J'"),
        ("\u202e", r"'\u202e'"),
    ],
)
def test_a_value_is_one_word(value, written):
    assert formatted("said", why=value) == f"info said why={written}"


def test_a_message_and_a_traceback_obey_nobody():
    try:
        raise RuntimeError("\x1b]0;gone\x07\r\x9b")
    except RuntimeError:
        written = formatted("said \x1b[31m", exc_info=sys.exc_info())
    assert written.startswith(r"info said \x1b[31m")
    assert written.endswith(r"RuntimeError: \x1b]0;gone\x07\r\x9b")
    assert all(line.isprintable() for line in written.splitlines())


def test_a_message_is_one_line():
    assert formatted("said\n12:00:00 error all is lost", why="a") == r"info said\n12:00:00 error all is lost why=a"


def test_a_field_with_the_name_of_a_standard_one_has_an_underscore_more():
    assert formatted("split changed", message_="gone") == "info split changed message=gone"


def test_the_fields_stand_on_the_first_line_of_a_traceback():
    try:
        raise RuntimeError("boom")
    except RuntimeError as error:
        written = formatted("failed", logging.ERROR, (type(error), error, error.__traceback__), object="a")
    first, *rest = written.splitlines()
    assert first == "error failed object=a"
    assert rest[-1] == "RuntimeError: boom"


def test_records_below_the_level_are_not_written(capsys):
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        log_to_stderr("warning")
        logging.getLogger("y").info("quiet")
        logging.getLogger("y").warning("loud", extra={"a": 1})
    finally:
        for handler in root.handlers:
            if handler not in handlers:
                handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)
    written = capsys.readouterr().err
    assert "quiet" not in written
    assert written.endswith("warning loud a=1\n")


def as_json(message, exc_info=None, **fields):
    record = logging.getLogger("x").makeRecord("x", logging.WARNING, "f", 1, message, ("a",), exc_info, extra=fields)
    (line,) = JsonFormatter().format(record).splitlines()
    return json.loads(line)


def test_json_has_date_time_level_logger_message_and_the_fields():
    before = datetime.now(UTC)
    line = as_json("split of %s changed", model="default/a", percent=20, known=None, why="two\nlines", at=NOW)
    assert before - timedelta(milliseconds=1) <= datetime.fromisoformat(line.pop("time")) <= datetime.now(UTC)
    assert line == {
        "level": "warning",
        "logger": "x",
        "message": "split of a changed",
        "model": "default/a",
        "percent": 20,
        "known": None,
        "why": "two\nlines",
        "at": str(NOW),
    }


def test_a_traceback_is_one_line_of_json_too_and_a_field_takes_the_name_of_nothing_else():
    try:
        raise RuntimeError("boom")
    except RuntimeError as error:
        line = as_json("failed for %s", (type(error), error, error.__traceback__), message_="said", level="high")
    assert line["traceback"].endswith("RuntimeError: boom")
    assert (line["message"], line["message_"], line["level"], line["level_"]) == (
        "failed for a",
        "said",
        "warning",
        "high",
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {("a", 1): "b"}, b"\xff", ["a"], logging])
def test_what_json_has_no_form_for_is_text(value):
    assert as_json("%s", value=value)["value"] == str(value)


def test_json_has_no_character_that_a_terminal_would_obey():
    record = logging.makeLogRecord({"msg": "a\x1b[2J\x7f\x9b", "levelname": "INFO", "why": "\x1b\x7f\u2028"})
    line = JsonFormatter().format(record)
    assert line.isprintable()
    assert json.loads(line)["why"] == "\x1b\x7f\u2028"


def test_that_no_file_is_left_is_said_once_in_a_minute():
    now = 0.0
    only = NoFilesFilter(lambda: now)

    def said(name="asyncio", message="socket.accept() out of system resource\nsocket: <fd=7>"):
        record = logging.makeLogRecord({"name": name, "msg": message, "exc_info": (OSError, OSError(24), None)})
        return only.filter(record) and (record.getMessage(), record.exc_info)

    first, other = said(), said(message="another")
    assert first == ("no connection can be taken: as many files are open as this program may have (ulimit -n)", None)
    assert (said(), said(name="x")[0][:6]) == (False, "socket")
    assert other[0] == "another"
    now = 60.0
    assert said() == first
