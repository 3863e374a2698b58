"""A demo that is killed, or whose control plane is, leaves no process."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tests.support.demo import read_until, start_demo
from tests.support.processes import processes_of

PATIENCE = 60
"""Seconds."""


def wait_for_no_process(folder: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while (left := processes_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


def test_a_killed_demo_takes_its_processes_with_it(tmp_path):
    with start_demo(tmp_path) as demo:
        read_until(demo, "load:")
        # Itself, three replicas, the remote backend, its token endpoint, the control plane, its Envoy.
        assert len(processes_of(tmp_path)) == 8
        demo.kill()
    wait_for_no_process(tmp_path)


def test_a_control_plane_that_dies_ends_the_demo_and_its_envoy(tmp_path):
    with start_demo(tmp_path) as demo:
        read_until(demo, "load:")
        (control_plane,) = (pid for pid, command in processes_of(tmp_path).items() if "controller.cli.main" in command)
        os.kill(control_plane, signal.SIGKILL)
        output, _ = demo.communicate(timeout=PATIENCE)
    assert demo.returncode == 2, output
    assert "control-plane ended on its own" in output
    assert processes_of(tmp_path) == {}
