"""`python -m tests` itself: what it says of a test that fails or is skipped, and what an interrupted run leaves."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.network import BACKEND_PORT
from tests.support.processes import ROOT, Child, processes_of
from tests.support.waiting import until
from tests.tools.binaries import GIVEN

SAMPLE = """
import pytest

def test_good(): pass

def test_bad(): assert 1 == 2

@pytest.mark.skip(reason="the moon is full")
def test_skipped(): pass

@pytest.mark.alone
def test_alone(): pass
"""

DEADLY = """
import os, signal

def test_before(): pass

def test_deadly(request):
    # It dies in the middle of a sentence of a hundred bytes.
    os.write(request.config.pluginmanager.getplugin("in worker")._channel.fileno(), bytes((0, 0, 0, 100, 1)))
    os.kill(os.getpid(), signal.SIGKILL)

def test_ending(): raise KeyboardInterrupt

def test_after(): print("not told"); assert os.environ["HOME"] == 1

def test_stopping(request): request.session.shouldstop = "that is enough"

def test_never(): assert False
"""

UNTIDY = """
from pathlib import Path

import pytest

@pytest.fixture(scope="session")
def room():
    yield
    pytest.fail("the room is not tidy")

def test_unstable():
    again = Path(__file__).with_name("again")
    was_there = again.exists()
    again.touch()
    assert was_there

def test_good(room): pass
"""

LASTING = '''
import fcntl, subprocess, sys, time
from pathlib import Path

import pytest

from tests.support.data_plane.backends import Backend
from tests.support.network import Network
from tests.support.processes import Child

@pytest.fixture
def folder(tmp_path):
    yield tmp_path
    Path("{left}").write_text("cleaned up")

@pytest.fixture
def child(folder):
    program = "import time; print('ready', flush=True); time.sleep(300)"
    return Child([sys.executable, "-c", program, folder], folder / "log", says_ready=True)

@pytest.fixture
def forked(folder):
    backend = Backend("local", Network.unused().host(1), folder)
    backend.start()
    return backend.host

# Like the keeper of a shared API server it is nobody's child, ends when nobody uses it, and writes until then.
LINGERING = """
import fcntl, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
lock = (folder / "lock").open()
print("ready", flush=True)
fcntl.flock(lock, fcntl.LOCK_EX)
time.sleep(0.5)
folder.mkdir(parents=True, exist_ok=True)
(folder / "last words").touch()
"""

@pytest.fixture
def lingering(folder):
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        started = ("sh", "-c", '"$@" &', "sh", sys.executable, "-c", LINGERING, folder)
        with subprocess.Popen(started, stdout=subprocess.PIPE, start_new_session=True) as shell:
            assert shell.stdout.readline() == b"ready\\n"
        yield

def test_lasting(folder, child, {also}):
    Path("{begun}").write_text(f"{{folder}} {{{also}}}")
    time.sleep(300)
'''


BUILDING = """#!/bin/sh
# It stands for the Go toolchain: what it builds takes as long as it likes.
if [ "$1" = env ]; then
    echo go1.999.0
else
    touch "$0.has-begun"
    sh -c 'sleep 300; exit' "$0" &
    wait
fi
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Child]]:
    """Start the runner on one file, as the leader of a group: a terminal signals all of its group."""
    started: list[Child] = []

    def start(source: str, *options: object, variables: tuple[str, ...] = ()) -> Child:
        sample, temporary = tmp_path / "test_sample.py", tmp_path / "temporary"
        sample.write_text(source)
        temporary.mkdir()
        runner = (sys.executable, "-m", "tests", "--jobs", "1", "--seed", "7", "-c", ROOT / "pyproject.toml", sample)
        command = ("/usr/bin/env", f"TMPDIR={temporary}", *variables, *runner, *options)
        started.append(Child(command, tmp_path / "said"))
        return started[-1]

    yield start
    for runner in started:
        runner.kill()


async def ended(runner: Child) -> tuple[int, str]:
    """Wait until it has ended; return its exit code and what it said."""
    await until(lambda: not runner.alive, "the runner ends", within=240)
    return runner.terminate(), runner.log.read_text()


async def test_it_says_what_ran_what_was_skipped_and_how_to_repeat_what_failed(
    start: Callable[..., Child], tmp_path: Path
) -> None:
    useless = tmp_path / "test_useless.py"
    useless.write_text("import pytest\n\npytest.importorskip('nothing_of_this_name')")

    code, said = await ended(start(SAMPLE, useless))

    assert code == 1, said
    assert "skipped: 2\n" in said
    assert ": Skipped: could not import 'nothing_of_this_name'" in said
    assert "\nnot part of this run: tests/e2e_node (make e2e), " in said
    assert "test_skipped: Skipped: the moon is full" in said
    assert "FAILED in the lane together: " in said
    assert re.search(r"^  repeat: \S+/python -m tests --seed 7 \S*::test_bad$", said, re.MULTILINE)
    assert re.search(r"^the 20 slowest tests.*\n +\d+\.\d s  \S*::test_", said, re.MULTILINE)
    assert re.search(r"^FAILED: together \d+ in .*, alone \d+ in ", said, re.MULTILINE)
    # What failed may have left something to look at.
    (kept,) = (tmp_path / "temporary").iterdir()
    assert f"is kept: {kept}" in said


async def test_where_no_test_has_to_run_alone_there_is_no_lane_for_it(start: Callable[..., Child]) -> None:
    code, said = await ended(start("def test_good(): pass"))

    assert code == 0, said
    assert "\npassed: together 1 in " in said
    assert "lane alone" not in said


async def test_a_run_that_ends_at_the_first_failure_is_no_interrupted_one(start: Callable[..., Child]) -> None:
    code, said = await ended(start(SAMPLE, "-x"))

    assert code == 1, said
    assert "::test_bad\n" in said
    assert "\nFAILED: together " in said
    assert "\nleft by the lane together: 1 " in said
    assert " is kept: " in said


async def test_a_test_that_ends_its_process_has_failed_and_no_test_is_left_out_in_silence(
    start: Callable[..., Child],
) -> None:
    code, said = await ended(start(DEADLY))

    assert code == 3, said
    assert "worker-1 died (exit code -9) while it ran this" in said
    assert "worker-2 ended (exit code 2) while it ran this" in said
    assert "\nFAILED: together 5 in " in said
    assert "worker-3 ended (exit code 2), and left 1 of its tests" in said
    assert "2 passed" in said
    # What one prints is told with its failure, and its own alone.
    assert said.count("Captured stdout call") == said.count("not told\n") == 1


async def test_what_is_amiss_with_no_test_fails_the_run_whatever_passes_when_it_is_repeated(
    start: Callable[..., Child],
) -> None:
    code, said = await ended(start(UNTIDY, "--again=2"))

    assert code == 3, said
    assert "worker-1: Failed: the room is not tidy" in said
    assert "lane again" not in said


async def test_a_file_that_cannot_be_read_is_named(start: Callable[..., Child]) -> None:
    code, said = await ended(start("import nothing_of_this_name"))

    assert code not in (0, 2), said
    assert "FAILED in the lane together: " in said
    assert "No module named 'nothing_of_this_name'" in said


async def test_no_test_at_all_is_not_passed(start: Callable[..., Child]) -> None:
    code, said = await ended(start(SAMPLE, "-k", "nothing_of_this_name"))

    assert code == 5, said
    assert "\nNO TESTS: " in said


HOW_FAR = re.compile(r"^ +0:\d\d  0 passed, none failed; left: 1 .*; for \d+ s \S*::test_lasting$", re.MULTILINE)


def accepts(host: str) -> bool:
    with socket.socket() as client:
        return client.connect_ex((host, BACKEND_PORT)) == 0


@pytest.mark.parametrize(("number", "also"), [(signal.SIGINT, "lingering"), (signal.SIGTERM, "forked")])
async def test_a_run_that_is_ended_leaves_no_process_and_no_file(
    start: Callable[..., Child], tmp_path: Path, number: signal.Signals, also: str
) -> None:
    """By its terminal, whose other processes are no part of its job, or by whoever signals the runner alone."""
    begun, left = tmp_path / "begun", tmp_path / "left"
    runner = start(LASTING.format(begun=begun, left=left, also=also), "--say-every=0.1")
    await until(lambda: not runner.alive or (begun.exists() and begun.read_text()), "the test has begun", within=120)
    assert runner.alive, runner.last_words()
    # Meanwhile it says how far it is.
    await until(lambda: HOW_FAR.search(runner.log.read_text()), "a line says what is left, and what is running")
    folder, _, host = begun.read_text().partition(" ")
    running = " ".join(processes_of(Path(folder)).values())
    assert "time.sleep(300)" in running
    assert "last words" in running if also == "lingering" else accepts(host)

    os.kill(runner.pid, number)
    code, said = await ended(runner)

    assert code == 2, said
    assert "\ninterrupted: together 0 in " in said
    assert re.search(r"^left by the lane together: 1 .*\n  had begun: \S*::test_lasting$", said, re.MULTILINE), said
    assert left.read_text() == "cleaned up"
    assert processes_of(tmp_path) == {}
    assert list((tmp_path / "temporary").iterdir()) == []
    if also == "forked":
        await until(lambda: not accepts(host), "what was forked has ended")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_run_that_is_ended_while_its_programs_are_built_leaves_none_of_that(
    start: Callable[..., Child], tmp_path: Path, number: signal.Signals
) -> None:
    go, cache = tmp_path / "bin" / "go", tmp_path / "cache"
    go.parent.mkdir()
    go.write_text(BUILDING)
    go.chmod(0o755)
    given = tuple(f"--unset={name}" for name in GIVEN)
    variables = (f"PATH={go.parent}:{os.environ['PATH']}", f"XDG_CACHE_HOME={cache}")
    runner = start("def test_good(): pass", variables=(*variables, "env", *given))
    await until(go.with_name("go.has-begun").exists, "a program is being built")
    await until(lambda: len([one for one in processes_of(tmp_path).values() if str(go) in one]) >= 2, "it is busy")

    os.kill(runner.pid, number)
    code, said = await ended(runner)

    assert code == 2, said
    assert "\ninterrupted: programs that the tests run were being built\n" in said
    assert processes_of(tmp_path) == {}
    assert [file.name for file in (cache / "beamlit" / "bin").iterdir() if "unfinished" in file.name] == []
    assert list((tmp_path / "temporary").iterdir()) == []
