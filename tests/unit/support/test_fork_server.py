"""A program that was forked is, to whoever looks, as one that was executed."""

import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.support.data_plane.ledger import Ledger
from tests.support.forked import Forked, ForkedModelServer
from tests.support.network import unused_port
from tests.support.processes import ROOT, Child, ProcessEndedError
from tests.support.waiting import until

pytestmark = pytest.mark.long


class Doing:
    """A context that runs code where it arrives: in the forked process, before the command."""

    def __init__(self, *lines):
        self._code = "\n".join(lines)

    def __reduce__(self):
        return exec, (self._code,)


SLEEPING = Doing("import signal", "print('there', flush=True)", "signal.pause()")


class Program(Forked):
    """It prints its version, once it has done what its context says."""

    def __init__(self, folder, name="program", context=None, **environment):
        self.output = folder / f"{name}.output"
        super().__init__(["--version"], folder / name, environment, output=self.output, context=context)

    async def until_printed(self, *, ended=False):
        async def printed():
            return not self.alive if ended else self.output.read_text()

        await until(printed, "it prints what it has to", within=30)
        return self.output.read_text().splitlines()


@pytest.fixture
def start(tmp_path):
    """Starts programs, and ends them."""
    started = []

    def start(context=None, **environment):
        started.append(Program(tmp_path, f"program-{len(started)}", context, **environment))
        return started[-1]

    yield start
    for one in started:
        one.kill()


def running(pid):
    return Path(f"/proc/{pid}").exists()


async def test_it_runs_the_command_and_says_how_it_ended(start, tmp_path):
    right, wrong = start(), Forked(["no-such-command"], tmp_path / "wrong")
    (line,) = await right.until_printed(ended=True)
    assert line.startswith("beamlit, version ")
    assert right.terminate() == 0
    assert right.last_words() == ""

    async def ended():
        return not wrong.alive

    await until(ended, "it ends", within=30)
    assert wrong.terminate() == 2
    assert "No such command 'no-such-command'" in wrong.last_words()


async def test_it_has_a_session_of_its_own_and_no_descriptor_of_anybody_else(start):
    program = start(SLEEPING)
    await program.until_printed()
    assert os.getsid(program.pid) == program.pid
    assert links_in(program.pid, "cwd") == {"cwd": str(ROOT)}
    assert links_in(program.pid, "fd/*") == {"0": "/dev/null", "1": str(program.output), "2": str(program.log)}


def links_in(pid, pattern):
    return {path.name: str(path.readlink()) for path in Path(f"/proc/{pid}").glob(pattern)}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
async def test_signals_end_it(start, number):
    program = start(SLEEPING)
    await program.until_printed()
    program.send(number)
    await program.until_printed(ended=True)
    assert program.terminate() == -number


async def test_one_that_ended_can_be_signalled_and_what_it_left_can_be_killed(start):
    leaving = start(
        Doing(
            "import subprocess",
            "child = subprocess.Popen(['sleep', '60'])",
            "print(child.pid, flush=True)",
        )
    )
    pid = int((await leaving.until_printed(ended=True))[0])
    leaving.send(signal.SIGTERM)
    # It has ended, and its number is nobody else's as long as somebody may signal it.
    assert running(leaving.pid)
    assert command_of(pid) == "sleep 60"
    leaving.kill()

    async def gone():
        return not command_of(pid) and not running(leaving.pid)

    await until(gone, "what it left is gone")
    leaving.kill()
    assert leaving.terminate() == 0


def command_of(pid):
    """What a process runs; nothing once it has ended, though nobody may have waited for it."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""


async def test_an_interrupt_is_an_exception_in_it(start):
    program = start(SLEEPING)
    await program.until_printed()
    program.send(signal.SIGINT)
    await program.until_printed(ended=True)
    assert "KeyboardInterrupt" in program.last_words()


async def test_a_kill_takes_what_it_started_with_it(start):
    sleeping = start(
        Doing(
            "import subprocess",
            "child = subprocess.Popen(['sleep', '60'])",
            "print(child.pid, flush=True)",
            "child.wait()",
        )
    )
    (pid,) = await sleeping.until_printed()
    sleeping.kill()

    async def gone():
        return not command_of(pid)

    await until(gone, "the other is gone, too")


async def test_each_has_its_environment_and_its_own_chance(start):
    drawing = Doing("import random, uuid", "print(random.random(), uuid.uuid4())")
    drawn = [await start(drawing).until_printed(ended=True) for _ in range(3)]
    assert len({one[0] for one in drawn}) == 3
    at_the_end = Doing("import atexit, os", "atexit.register(lambda: print(os.environ.get('OF_THIS_TEST')))")
    shown = [start(at_the_end, OF_THIS_TEST="yes"), start(at_the_end)]
    assert [(await one.until_printed(ended=True))[-1] for one in shown] == ["yes", "None"]


def test_a_model_server_listens_when_it_is_there_or_says_why_it_cannot(tmp_path):
    ledger = Ledger("local-1")
    arguments = ("local-1", "127.0.0.1", port := unused_port(), ledger.path)
    server = ForkedModelServer(arguments, tmp_path / "log")
    try:
        socket.create_connection(("127.0.0.1", port)).close()
        with pytest.raises(ProcessEndedError, match="address already in use"):
            ForkedModelServer(arguments, tmp_path / "log of another")
    finally:
        server.kill()
    assert not server.alive


async def test_it_ends_with_the_test_run_that_is_killed(tmp_path):
    command = (sys.executable, "-m", "tests.unit.support.test_fork_server", tmp_path)
    runner = Child(command, tmp_path / "runner", says_ready=True)
    try:
        pid = written_in(tmp_path)
        server = parent_of(pid)
    finally:
        runner.kill()  # And its session, in which neither is.

    async def gone():
        return not running(pid) and not running(server)

    await until(gone, "the program and the server ended", within=30)


def written_in(folder):
    return int((folder / "pid").read_text())


def parent_of(pid):
    """Proc(5): what follows the name of the program, in brackets, begins with its state."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


if __name__ == "__main__":
    home = Path(sys.argv[1])
    (home / "pid").write_text(str(Program(home, context=SLEEPING).pid))
    print("ready", flush=True)
    signal.pause()
