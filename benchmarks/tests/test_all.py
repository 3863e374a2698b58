"""`make bench NAME=all`."""

import asyncio
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.all import WITH_GOALS, WITHOUT_GOALS, Result, exit_code, main, play, summary

MET, MISSED = Result("translation", 0, (), "met    all"), Result("surge", 1, ("failed requests: 3 at most",), "x")
BROKEN = Result("kube", 2, (), "could not run: no etcd")


def test_every_benchmark_is_named():
    there = {file.stem for file in Path(__file__).parents[1].glob("*.py")} - {"__init__", "all"}
    assert there == {*WITH_GOALS, *WITHOUT_GOALS}


def test_the_end_tells_what_was_missed_and_what_could_not_run():
    assert list(summary([MET, MISSED, BROKEN])) == [
        "translation   met",
        "surge         missed",
        "kube          could not run",
        "",
        "2 missed",
        "surge: failed requests: 3 at most",
        "kube: could not run: no etcd",
    ]
    assert list(summary([MET]))[-1] == "every goal is met"


@pytest.mark.parametrize(
    ("results", "code"), [([MET], 0), ([MET, MISSED], 1), ([MISSED, BROKEN, MET], 2), ([Result("kube", -9)], 2)]
)
def test_exit_codes(results, code):
    assert exit_code(results) == code


async def test_what_a_benchmark_says_is_shown_and_what_it_missed_is_picked_out(capfd):
    said = "met    this\nmissed that: 3, at most 2\nmissedno goal\ntold   more\n"
    result = await play("one", [sys.executable, "-c", f"import sys; print({said!r}); sys.exit(1)"])
    assert result == Result("one", 1, ("that: 3, at most 2",), "told   more")
    assert said in capfd.readouterr().out


async def test_a_benchmark_that_is_interrupted_is_asked_to_end_and_waited_for(tmp_path, capfd):
    ended = tmp_path / "ended"
    program = f"""
import pathlib, signal, sys
def end(*_):
    pathlib.Path({str(ended)!r}).touch()
    sys.exit(130)
signal.signal(signal.SIGTERM, end)
print("begun", flush=True)
signal.pause()
"""
    playing = asyncio.create_task(play("one", [sys.executable, "-c", program]))
    shown = ""
    while "begun" not in shown:
        await asyncio.sleep(0.01)
        shown += capfd.readouterr().out
    playing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await playing
    assert ended.exists()


def test_no_other_name_is_taken():
    assert CliRunner().invoke(main, ["no-such"]).exit_code == 2
