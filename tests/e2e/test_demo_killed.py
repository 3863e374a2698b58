"""A demo that is killed, or whose control plane is, leaves no process."""

from __future__ import annotations

import os
import signal

from tests.support.demo import read_until, start_demo
from tests.support.processes import processes_of
from tests.support.waiting import until_now

PATIENCE = 200
"""Seconds."""


def test_a_killed_demo_takes_its_processes_with_it(tmp_path):
    with start_demo(tmp_path) as demo:
        read_until(demo, "load:")
        # Itself, three replicas, the remote backend, its token endpoint, the control plane, its Envoy.
        assert len(processes_of(tmp_path)) == 8
        demo.kill()
    until_now(lambda: processes_of(tmp_path) == {}, "its processes end", within=PATIENCE)


def test_a_control_plane_that_dies_ends_the_demo_and_its_envoy(tmp_path):
    with start_demo(tmp_path) as demo:
        read_until(demo, "load:")
        (control_plane,) = (pid for pid, command in processes_of(tmp_path).items() if "controller.cli.main" in command)
        os.kill(control_plane, signal.SIGKILL)
        output, _ = demo.communicate(timeout=240)
    assert demo.returncode == 2, output
    assert "control-plane ended on its own" in output
    assert processes_of(tmp_path) == {}
