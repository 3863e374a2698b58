"""A process that was started ends with who started it, and takes with it what it started itself."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.support.processes import (
    ROOT,
    Child,
    Children,
    ProcessEndedError,
    ends_with_me,
    kill_all,
    processes_of,
    run,
    staying,
)
from tests.support.waiting import until_now

pytestmark = pytest.mark.long

SLEEPS = "import time; time.sleep(600)"
WITH_A_CHILD = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1], sys.argv[2]])"

NOTES_ITS_END = """
import signal, sys, time

def end(*_):
    with open(sys.argv[2], "a") as ends:
        print(sys.argv[1], file=ends)
    sys.exit()

signal.signal(signal.SIGTERM, end)
print("started", flush=True)
time.sleep(600)
"""
STARTS_ONE = """
import sys, time
from pathlib import Path
from tests.support.processes import Child

folder, sleeps = sys.argv[1:]
child = Child((sys.executable, "-c", sleeps, folder), Path(folder, "log"))
time.sleep(600)
"""
STARTS_ONE_ITSELF = """
import subprocess, sys, time
from tests.support.processes import ends_with_me

folder, sleeps = sys.argv[1:]
subprocess.Popen(ends_with_me((sys.executable, "-c", sleeps, folder)))
time.sleep(600)
"""
RUNS_ONE = """
import sys
from tests.support.processes import run

folder, with_a_child, sleeps = sys.argv[1:]
run((sys.executable, "-c", with_a_child, sleeps, folder))
"""
COUNTS = """
import mmap, sys, threading

with open(sys.argv[1], "r+b") as file:
    counter = mmap.mmap(file.fileno(), 8)

def count():
    number = 0
    while True:
        number += 1
        counter[:] = number.to_bytes(8, "little")

for _ in range(4):
    threading.Thread(target=count, daemon=True).start()
print("ready", flush=True)
threading.Event().wait()
"""
ADOPTS_ONE = """
import sys, time
from pathlib import Path
from tests.support.processes import Child, adopting_orphans, processes_of

folder, sleeps = sys.argv[1:]
with adopting_orphans():
    starts = "import subprocess, sys; subprocess.Popen(sys.argv[1:], start_new_session=True)"
    child = Child((sys.executable, "-c", starts, sys.executable, "-c", sleeps, folder), Path(folder, "log"))
    while child.alive or len(processes_of(folder)) != 2:
        time.sleep(0.02)
    child.stop()
    assert len(processes_of(folder)) == 2
"""


def wait_for_processes(folder, number):
    until_now(lambda: len(processes_of(folder)) == number, f"{number} processes of {folder}")


def test_a_killed_one_is_gone_with_its_session(tmp_path):
    child = Child((sys.executable, "-c", WITH_A_CHILD, SLEEPS, tmp_path), tmp_path / "log")
    wait_for_processes(tmp_path, 2)
    child.kill()
    assert not child.alive
    wait_for_processes(tmp_path, 0)


def test_what_an_ended_one_left_in_its_session_ends_with_stop(tmp_path):
    child = Child(("/bin/sh", "-c", f"{sys.executable} -c '{SLEEPS}' {tmp_path} & exec sleep 0.1"), tmp_path / "log")
    until_now(lambda: not child.alive, "it ends")
    wait_for_processes(tmp_path, 1)
    child.stop()
    child.stop()
    wait_for_processes(tmp_path, 0)


def test_one_that_is_asked_to_end_tells_its_exit_code(tmp_path):
    program = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(7)); print('ready', flush=True); "
    child = Child((sys.executable, "-c", program + "time.sleep(600)"), tmp_path / "log", says_ready=True)
    assert child.terminate(within=60) == 7
    assert child.terminate() == 7


def test_one_that_does_not_end_is_killed(tmp_path):
    program = "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
    child = Child((sys.executable, "-c", program), tmp_path / "log", says_ready=True)
    assert child.terminate(within=0.1) == -signal.SIGKILL


def test_one_that_ended_on_its_own_is_named_with_its_last_words(tmp_path):
    with Children(tmp_path) as children:
        child = children.start("the/one", (sys.executable, "-c", "raise SystemExit('farewell')"))
        until_now(lambda: not child.alive, "it ends")
        with pytest.raises(ProcessEndedError, match=r"the/one ended on its own(.|\n)*farewell"):
            children.check()
    with pytest.raises(ProcessEndedError, match="did not start"):
        Child((sys.executable, "-c", "print('steady')"), tmp_path / "log", says_ready=True)


def test_all_end_the_latest_first(tmp_path):
    with Children(tmp_path) as children:
        for name in ("first", "second", "third"):
            command = (sys.executable, "-c", NOTES_ITS_END, name, tmp_path / "ends")
            child = children.start(name, command, end_with=signal.SIGTERM)
            until_now(lambda child=child: "started" in child.log.read_text(), "it has started")
    assert (tmp_path / "ends").read_text().split() == ["third", "second", "first"]


def test_all_that_name_a_folder_are_gone_once_they_are_killed(tmp_path):
    (tmp_path / "count").write_bytes(bytes(8))
    with Children(tmp_path) as children:
        for name in ("first", "second", "third"):
            child = children.start(name, (sys.executable, "-c", COUNTS, tmp_path / "count"))
            until_now(lambda child=child: "ready" in child.log.read_text(), "it counts")
        assert len(processes_of(tmp_path)) == 3
        kill_all(tmp_path)
        assert processes_of(tmp_path) == {}


def test_it_tells_what_it_uses(tmp_path):
    (cpu, *_) = os.sched_getaffinity(0)
    child = Child((sys.executable, "-c", "while True: pass"), tmp_path / "log", cpus=frozenset({cpu}))
    try:
        before = child.usage.cpu_seconds()
        until_now(lambda: child.usage.cpu_seconds() >= before + 0.1, "it computes")
        assert child.usage.resident_bytes() > 1_000_000
        assert os.sched_getaffinity(child.pid) == {cpu}
    finally:
        child.kill()
    with pytest.raises(OSError):
        child.usage.cpu_seconds()


@pytest.mark.parametrize("starts", [STARTS_ONE, STARTS_ONE_ITSELF], ids=["a child", "a command"])
def test_the_kernel_ends_it_with_its_parent(tmp_path, starts):
    parent = subprocess.Popen(ends_with_me((sys.executable, "-c", starts, tmp_path, SLEEPS)), cwd=ROOT)
    wait_for_processes(tmp_path, 2)
    parent.kill()
    parent.wait()
    wait_for_processes(tmp_path, 0)


def test_orphans_are_adopted_and_ended(tmp_path):
    subprocess.run([sys.executable, "-c", ADOPTS_ONE, tmp_path, SLEEPS], cwd=ROOT, check=True, timeout=60)
    assert processes_of(tmp_path) == {}


def test_one_that_is_stopped_does_nothing_more(tmp_path):
    counter = tmp_path / "counter"
    counter.write_bytes(bytes(8))
    child = Child((sys.executable, "-c", COUNTS, counter), tmp_path / "log", says_ready=True)
    try:
        for _ in range(20):
            child.send(signal.SIGSTOP)
            number = counter.read_bytes()
            time.sleep(0.01)
            assert counter.read_bytes() == number
            child.send(signal.SIGCONT)
            while counter.read_bytes() == number:
                child.check()
                time.sleep(0.001)
    finally:
        child.kill()


@pytest.mark.parametrize(("number", "left"), [(signal.SIGINT, 0), (signal.SIGKILL, 1)], ids=["interrupted", "killed"])
def test_a_command_that_is_run_to_its_end_ends_with_who_waits_for_it(tmp_path, number, left):
    """If that is interrupted, all that it started does; if it is killed, itself."""
    with (tmp_path / "log").open("wb") as log:
        command = (sys.executable, "-c", RUNS_ONE, tmp_path, WITH_A_CHILD, SLEEPS)
        waiting = subprocess.Popen(ends_with_me(command), cwd=ROOT, stderr=log, start_new_session=True)
    # Itself, the command and what that started.
    until_now(lambda: len(processes_of(tmp_path)) == 3, "the command has started another")
    waiting.send_signal(number)
    waiting.wait()
    until_now(lambda: len(processes_of(tmp_path)) == left, "it has ended")
    for process in processes_of(tmp_path):
        os.kill(process, signal.SIGKILL)


def test_a_command_that_is_run_to_its_end_says_what_it_said_and_how_it_ended():
    done = run((sys.executable, "-c", "print(input())"), input="hello", capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "hello\n")
    with pytest.raises(subprocess.CalledProcessError):
        run((sys.executable, "-c", "raise SystemExit(3)"), check=True)
    with pytest.raises(subprocess.TimeoutExpired):
        run((sys.executable, "-c", SLEEPS), timeout=0.1)


def test_a_run_says_which_of_its_processes_go_on(tmp_path):
    assert staying(tmp_path) == {}
    # While one program becomes another, it has no arguments for a moment.
    ready = f"print('ready', flush=True); {SLEEPS}"
    child = Child((sys.executable, "-c", ready, tmp_path), tmp_path / "log", says_ready=True)
    try:
        assert child.pid in staying(tmp_path, within=0.1)
    finally:
        child.kill()
