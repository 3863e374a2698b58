"""`make demo` as a user sees it: no failed request, every promise kept, and no process left however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def start_demo(folder: Path, *options: str) -> subprocess.Popen[str]:
    """Start a demo; every process of it has `folder` in its environment."""
    return subprocess.Popen(
        [sys.executable, "-m", "demo", *options, "--output", str(folder / "demo.png")],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def read_until(demo: subprocess.Popen[str], words: str) -> None:
    read = []
    for line in demo.stdout:
        read.append(line)
        if words in line:
            return
    pytest.fail(f"the demo ended before it said {words!r}:\n{''.join(read)}")


def processes_of(folder: Path) -> dict[int, str]:
    """The ids and command lines of all running processes that name `folder` in their arguments or environment."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command, environment = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            continue  # it ended meanwhile
        if str(folder).encode() in command + environment:
            found[int(process.name)] = command.replace(b"\0", b" ").decode()
    return found


def wait_for_no_process(folder: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (left := processes_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


def test_no_request_fails_and_nothing_is_left(tmp_path):
    """The demo as it is, within its two minutes."""
    with start_demo(tmp_path) as demo:
        output, _ = demo.communicate(timeout=115)
    assert demo.returncode == 0, output
    assert processes_of(tmp_path) == {}
    lines = output.splitlines()
    assert lines[-1] == "0 of 1512 requests failed"
    assert "SIGKILL to local-1, local-2, local-3 with " in output
    assert "SIGKILL to remote with " in output
    assert "100/0 -> 0/100, LocalDown: " in output
    assert sum(line.startswith("kept ") for line in lines) == 8
    assert "BROKEN" not in output
    assert sum(line.endswith(" Steady") for line in lines) > 20  # the live view
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGINT, "start: three"),
        (signal.SIGINT, "start: beamlit run"),
        (signal.SIGINT, "SIGKILL to"),
        (signal.SIGTERM, "load:"),
    ],
)
def test_an_interrupted_demo_leaves_nothing(tmp_path, number, moment):
    with start_demo(tmp_path, "--short") as demo:
        read_until(demo, moment)
        demo.send_signal(number)
        output, _ = demo.communicate(timeout=30)
    assert demo.returncode == 130, output
    assert "Traceback" not in output
    assert processes_of(tmp_path) == {}
    assert list(tmp_path.glob("beamlit-demo-*")) == []


def test_a_killed_demo_takes_its_processes_with_it(tmp_path):
    with start_demo(tmp_path) as demo:
        read_until(demo, "load:")
        # Itself, three replicas, the remote backend, its token endpoint, the control plane, its Envoy.
        assert len(processes_of(tmp_path)) == 8
        demo.kill()
    wait_for_no_process(tmp_path, 10)


def test_a_control_plane_that_dies_ends_the_demo_and_its_envoy(tmp_path):
    with start_demo(tmp_path) as demo:
        read_until(demo, "load:")
        (control_plane,) = (pid for pid, command in processes_of(tmp_path).items() if "controller.cli.main" in command)
        os.kill(control_plane, signal.SIGKILL)
        output, _ = demo.communicate(timeout=30)
    assert demo.returncode == 2, output
    assert "control-plane ended on its own" in output
    assert processes_of(tmp_path) == {}
