"""`python -m tests` itself: what it says of a test that fails or is skipped, and what an interrupted run leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.support.beamlit import processes_of
from tests.support.processes import ROOT

SAMPLE = """
import pytest

def test_good(): pass

def test_bad(): assert 1 == 2

@pytest.mark.skip(reason="the moon is full")
def test_skipped(): pass

@pytest.mark.alone
def test_alone(): pass
"""

LASTING = """
import sys, time
from pathlib import Path

import pytest

from tests.support.processes import Child

@pytest.fixture
def folder(tmp_path):
    yield tmp_path
    Path("{left}").write_text("cleaned up")

def test_lasting(folder):
    program = "import time; print('ready', flush=True); time.sleep(300)"
    Child([sys.executable, "-c", program, folder], folder / "log", says_ready=True)
    Path("{begun}").write_text(str(folder))
    time.sleep(300)
"""


def start(folder: Path, source: str) -> subprocess.Popen[str]:
    """Start the runner on one file, as the leader of a group: a terminal signals all of its group."""
    sample = folder / "test_sample.py"
    sample.write_text(source)
    (folder / "temporary").mkdir()
    return subprocess.Popen(
        [sys.executable, "-m", "tests", "--jobs", "1", "--seed", "7", "-c", ROOT / "pyproject.toml", sample],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(folder / "temporary")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_it_says_what_ran_what_was_skipped_and_how_to_repeat_what_failed(tmp_path: Path) -> None:
    runner = start(tmp_path, SAMPLE)
    said, _ = runner.communicate(timeout=120)

    assert runner.returncode == 1, said
    assert "skipped: 1\n" in said
    assert "test_skipped: Skipped: the moon is full" in said
    assert "FAILED in the lane together: " in said
    assert "  repeat: BEAMLIT_TEST_SEED=7 .venv/bin/pytest --hypothesis-seed=7 '" in said
    assert "::test_bad'\n" in said
    assert "FAILED: together 3 in " in said
    assert ", alone 1 in " in said
    # What failed may have left something to look at.
    (kept,) = (tmp_path / "temporary").iterdir()
    assert f"is kept: {kept}" in said


def test_ctrl_c_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    begun, left = tmp_path / "begun", tmp_path / "left"
    runner = start(tmp_path, LASTING.format(begun=begun, left=left))
    deadline = time.monotonic() + 60
    while not begun.exists() or not begun.read_text():
        assert runner.poll() is None, runner.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert processes_of(Path(begun.read_text()))

    os.killpg(runner.pid, signal.SIGINT)
    said, _ = runner.communicate(timeout=60)

    assert runner.returncode == 2, said
    assert "interrupted: together 0 in " in said
    assert left.read_text() == "cleaned up"
    assert processes_of(tmp_path) == {}
    assert list((tmp_path / "temporary").iterdir()) == []
