"""A node ends whole, however its run ends, and two at a time do not meet."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.node.namespaces import remove_leftovers
from tests.support.processes import ROOT, ends_with_me, processes_of
from tests.support.waiting import until_now

# Something like a node: a process that left its parent, one in a network of its own, and a mount.
_RUN = """
import sys, signal
from pathlib import Path
from tests.support.node.namespaces import Namespaces
folder = Path(sys.argv[1])
(folder / "mounted").mkdir()
with Namespaces.fresh(folder) as place:
    place.run("/bin/sh", "-c", 'mount -t tmpfs tmpfs "$1/mounted" && touch "$1/mounted/file"', "sh", folder)
    for network in ((), ("unshare", "--net")):
        sleeper = ("/bin/sh", "-c", 'setsid "$@" > /dev/null 2>&1 &', "sh", *network)
        place.run(*sleeper, "sh", "-c", "sleep 3600; true", f"{folder}/sleeper")
    print(place.address, place.cgroup, flush=True)
    signal.pause()
"""


@dataclass(frozen=True, slots=True)
class Run:
    """A test run that has a node."""

    process: subprocess.Popen[str]
    folder: Path
    address: str
    cgroup: str

    @property
    def programs(self) -> dict[int, str]:
        """What runs on the node."""
        return {pid: said for pid, said in processes_of(self.folder).items() if said.endswith("sleeper")}

    @property
    def cgroups(self) -> list[Path]:
        return list(Path("/sys/fs/cgroup").glob(f"*/{self.cgroup}"))


@contextmanager
def run_with_a_node(folder: Path) -> Iterator[Run]:
    folder.mkdir()
    command = (sys.executable, "-c", _RUN, folder)
    with subprocess.Popen(ends_with_me(command), cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            address, cgroup = process.stdout.readline().split()
            run = Run(process, folder, address, cgroup)
            until_now(lambda: len(run.programs) == 2, "both programs run on the node")
            yield run
        finally:
            process.kill()


def addresses_of_this_machine() -> str:
    return subprocess.run(["ip", "-brief", "address"], check=True, capture_output=True, text=True).stdout


def test_nothing_is_left_of_a_node_whose_run_is_killed(tmp_path: Path) -> None:
    with run_with_a_node(tmp_path / "run") as run:
        link = run.address.rpartition(".")[0]
        assert link in addresses_of_this_machine()
        assert not (run.folder / "mounted" / "file").exists(), "what is mounted on the node is seen outside"
        run.process.send_signal(signal.SIGKILL)
        run.process.wait()
        until_now(lambda: not run.programs, "the node's programs end with the run")
        until_now(lambda: link not in addresses_of_this_machine(), "its link is gone")
        assert run.cgroups, "a killed run leaves its cgroups, or this test says nothing"
        remove_leftovers()
        assert not run.cgroups


def test_nothing_is_left_of_a_node_whose_run_is_interrupted(tmp_path: Path) -> None:
    with run_with_a_node(tmp_path / "run") as run:
        run.process.send_signal(signal.SIGINT)
        run.process.wait()
        assert not run.programs
        assert run.address.rpartition(".")[0] not in addresses_of_this_machine()
        assert not run.cgroups


def test_two_runs_have_nodes_that_do_not_meet(tmp_path: Path) -> None:
    with run_with_a_node(tmp_path / "one") as one, run_with_a_node(tmp_path / "other") as other:
        assert one.address != other.address
        assert one.cgroup != other.cgroup
        remove_leftovers()
        assert one.cgroups, "the node of a run that lasts is no leftover"
        one.process.kill()
        until_now(lambda: not one.programs, "the node's programs end")
        assert len(other.programs) == 2
