"""The namespaces in which a node lives: of processes, mounts and networks. They end as one (pid_namespaces(7)).

The first process in a namespace of processes is its init. When that dies, the kernel kills every other one, however it
came there: containerd, its shims, the pods. Nothing is then left in the other two namespaces, and they go with all
mounts and links. The init dies with the process that made it, also when that one is killed. So there is nothing that
a later run would have to clean up, but for files and empty cgroups, which `leftovers` removes.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.node.missing import program
from tests.support.processes import Child, children_of
from tests.support.waiting import until_now

SERVICES, SERVICES6 = "10.202.0.0/16", "fd00:10:202::/112"
PODS, PODS6 = "10.203.0.0/16", "fd00:10:203::/64"
_LINK = "bl-node"
_CGROUP = "beamlit-node"
_CGROUPS = Path("/sys/fs/cgroup")
_SHARES = {"cpu.shares": 1024, "cpu.weight": 100}
"""What one thread is to the processor that is in no cgroup of its own (cgroup v1 and v2)."""
_PODS, _PROGRAMS = 16, 8
"""How many of that all pods together are, and the node's own programs, which have the half of it on a real node of two
processors. Neither starves as no real node does, while its tests and others have work for many threads.
"""
_NUMBERS = range(1, 250)

# What of the machine a node would write to is its own: /run has the sockets, locks and networks of pods. There is no
# default route, so what a pod sends to the rest of the world is refused at once; the route to Services only lets
# connections begin, for kube-proxy to send them on. Pods' orphans are reaped by the kernel, as SIGCHLD is ignored.
_INIT = """
set -e
mount --make-rshared /
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/netns "$1/log" "$1/cni-state"
mount --bind "$1/log" /var/log
ip link set lo up
echo 1 > /proc/sys/net/ipv4/ip_forward
echo 1 > /proc/sys/net/ipv4/conf/all/forwarding
echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
trap '' CHLD
echo ready
exec sleep infinity
"""


@dataclass(frozen=True, slots=True)
class Namespaces:
    """The place of one node. `init` is the id of its first process, `number` its own on this machine."""

    init: int
    number: int

    @classmethod
    @contextlib.contextmanager
    def fresh(cls, folder: Path) -> Iterator[Namespaces]:
        """Make them, with a link to this machine's own network; what is written goes below the folder."""
        with _own_number() as number:
            command = (
                *(program("unshare"), "--pid", "--fork", "--kill-child=KILL", "--mount-proc"),
                *("--mount", "--propagation=private", "--net", "--", "/bin/sh", "-c", _INIT, "init", folder),
            )
            maker = Child(command, folder / "init.log", says_ready=True)
            init, *_ = (*children_of(maker.pid), 0)
            place = cls(init, number)
            try:
                assert init, f"{command[0]} has no child:\n{maker.last_words()}"
                place._link()
                make_cgroups(place.cgroup, _PODS)
                make_cgroups(place.own_cgroup, _PROGRAMS)
                yield place
            finally:
                maker.kill()
                until_now(lambda: not Path(f"/proc/{init}").exists(), "the node's processes end")
                place._unlink()
                remove_cgroups(place.cgroup)
                remove_cgroups(place.own_cgroup)

    @property
    def host_address(self) -> str:
        """This machine, as the node sees it."""
        return f"10.201.{self.number}.1"

    @property
    def address(self) -> str:
        """The node, for this machine and for its own pods."""
        return f"10.201.{self.number}.2"

    @property
    def address6(self) -> str:
        """The node in the other family, for its own pods alone."""
        return f"fd00:10:201:{self.number}::2"

    @property
    def cgroup(self) -> str:
        """The cgroup of all pods of the node."""
        return f"{_CGROUP}-{self.number}"

    @property
    def own_cgroup(self) -> str:
        """The cgroup of the node's own programs."""
        return f"{_CGROUP}-own-{self.number}"

    def program(self, *command: object) -> tuple[object, ...]:
        """The command that runs a program of the node itself."""
        own = next((path for path in _hierarchies() if (path / self.own_cgroup / "cpu.shares").exists()), _CGROUPS)
        join = ("/bin/sh", "-c", 'echo 0 > "$0" && exec "$@"', own / self.own_cgroup / "cgroup.procs")
        return (*join, *self.inside(*command))

    def inside(self, *command: object) -> tuple[object, ...]:
        """The command that runs another one in the node. Not by `ip netns exec`, which hides the cgroups."""
        return (program("nsenter"), f"--target={self.init}", "--pid", "--mount", "--net", "--", *command)

    def run(self, *command: object, input: bytes | None = None, timeout: float = 120) -> str:  # noqa: A002
        """Run a command in the node and return what it says; CalledProcessError with its words if it fails."""
        words = [str(word) for word in self.inside(*command)]
        try:
            done = subprocess.run(words, check=True, input=input, capture_output=True, timeout=timeout)
        except subprocess.CalledProcessError as error:
            error.add_note(error.stderr.decode(errors="replace")[-3000:])
            raise
        return done.stdout.decode()

    def _unlink(self) -> None:
        """Remove this machine's end of the link, if there is one; the kernel takes its time to do it by itself."""
        subprocess.run([program("ip"), "link", "del", f"{_LINK}{self.number}"], check=False, capture_output=True)

    def _link(self) -> None:
        ip, link = program("ip"), f"{_LINK}{self.number}"
        self._unlink()
        for command in (
            (ip, "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", self.init),
            (ip, "addr", "add", f"{self.host_address}/30", "dev", link),
            (ip, "link", "set", link, "up"),
        ):
            subprocess.run([str(word) for word in command], check=True, capture_output=True)
        self.run(ip, "addr", "add", f"{self.address}/30", "dev", "eth0")
        self.run(ip, "link", "set", "eth0", "up")
        self.run(ip, "addr", "add", f"{self.address6}/64", "dev", "eth0", "nodad")
        self.run(ip, "route", "add", SERVICES, "dev", "eth0")
        self.run(ip, "-6", "route", "add", SERVICES6, "dev", "eth0")


def remove_leftovers() -> None:
    """Remove the cgroups of nodes whose run was killed."""
    for number in {int(path.name.rpartition("-")[2]) for path in _CGROUPS.glob(f"*/{_CGROUP}-*")}:
        with contextlib.suppress(OSError), _claim(number):
            remove_cgroups(f"{_CGROUP}-{number}")
            remove_cgroups(f"{_CGROUP}-own-{number}")


def make_cgroups(name: str, times: int) -> None:
    """Make a cgroup in every hierarchy; it may use what the one above it may, and counts as so many threads."""
    for hierarchy in _hierarchies():
        (hierarchy / name).mkdir(exist_ok=True)
        for file in ("cpuset.cpus", "cpuset.mems"):
            if (hierarchy / "cpuset.cpu_exclusive").exists():
                (hierarchy / name / file).write_text((hierarchy / file).read_text())
        for file, share in _SHARES.items():
            if (hierarchy / name / file).exists():
                (hierarchy / name / file).write_text(str(times * share))


def _hierarchies() -> list[Path]:
    """The roots of all hierarchies of cgroup v1, or the one of cgroup v2."""
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS]
    return [path.parent for path in _CGROUPS.glob("*/cgroup.procs")]


def remove_cgroups(name: str) -> None:
    """Remove a cgroup with all below it in every hierarchy; those that a process is still leaving stay."""
    for root in (*_CGROUPS.glob(f"*/{name}"), *_CGROUPS.glob(name)):
        for path, _, _ in os.walk(root, topdown=False):
            with contextlib.suppress(OSError):
                Path(path).rmdir()


@contextlib.contextmanager
def _own_number() -> Iterator[int]:
    """A number that no other node of this machine has."""
    for number in _NUMBERS:
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(_claim(number))
            except OSError:
                continue
            yield number
            return
    raise AssertionError(f"{len(_NUMBERS)} nodes run on this machine")


@contextlib.contextmanager
def _claim(number: int) -> Iterator[None]:
    """Have a number as long as this block, or this process, lasts: a name in the abstract namespace (unix(7))."""
    with socket.socket(socket.AF_UNIX) as claim:
        claim.bind(f"\0beamlit/node/{number}")
        yield
