"""What starts a process, in what every test has: the kernel ends it, too, should nobody else be there to do it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.support.processes import ROOT
from tests.support.sources import files_with

STARTS = {"Popen", "create_subprocess_exec", "create_subprocess_shell"}
OF_THEIR_OWN = {"tests/support/forked.py", "tests/support/kube/shared.py"}
"""These start what ends by itself: a fork server that nobody can ask any more, a keeper that nobody needs."""


def test_what_starts_a_process_lets_the_kernel_end_it_too() -> None:
    unbound = {
        str(file.relative_to(ROOT)): lines
        for file in files_with(re.compile("|".join(f"{name}\\(" for name in STARTS)), "tests", "benchmarks", "demo")
        if (lines := list(unbound_starts(file.read_text())))
    }
    assert unbound.keys() == OF_THEIR_OWN, unbound


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("subprocess.Popen(command, cwd=ROOT)\n", [1]),
        ("await asyncio.create_subprocess_exec(program, *arguments)\n", [1]),
        ("Popen(ends_with_me(command), env={})\n", []),
        ("await asyncio.create_subprocess_exec(*ends_with_me((program, *arguments)))\n", []),
    ],
)
def test_a_process_that_nobody_ends_is_found(source: str, found: list[int]) -> None:
    assert list(unbound_starts(source)) == found


def unbound_starts(source: str) -> Iterator[int]:
    """Find the lines that start a process whose command is not `ends_with_me(...)`."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name), args=[command, *_]) if name in STARTS:
                match command:
                    case ast.Call(func=ast.Name(id="ends_with_me")):
                        pass
                    case ast.Starred(value=ast.Call(func=ast.Name(id="ends_with_me"))):
                        pass
                    case _:
                        yield node.lineno


SHORT = {
    "tests/chart/test_dockerfiles.py": "a look at a Dockerfile",
    "tests/e2e_node/test_node_ends.py": "ip",
    "tests/kube/test_chart_linters.py": "linters, of one manifest",
    "tests/observability/test_alert_rules.py": "promtool, of one file",
    "tests/observability/test_compose_file.py": "docker compose config, promtool",
    "tests/store/test_directory_files.py": "what an editor does when it saves",
    "tests/support/chart.py": "helm template",
    "tests/support/kube/cluster.py": "kubectl, hundreds of times for a tenth of a second; one that waits "
    "does so for an API server, and that ends with the run",
    "tests/support/kube/existing.py": "kubectl, as there",
    "tests/support/node/images.py": "ldd, ldconfig",
    "tests/support/node/namespaces.py": "in namespaces that end with the node, and ip",
    "tests/support/tls.py": "openssl",
    "tests/timelines/test_timelines.py": "one timeline",
    "tests/tools/audit.py": "a child of who calls it",
    "tests/tools/binaries.py": "go env",
    "tests/unit/controller/cli/test_import.py": "imports",
    "tests/unit/controller/programs/test_file_limit.py": "prints a limit",
    "tests/unit/support/test_processes.py": "has a time limit, as what it starts",
    "tests/unit/xds_server/resources/test_encoding.py": "encodes a few messages",
    "tests/unit/xds_server/routes/test_entrance_certificates.py": "openssl",
}
"""What is waited for and does not end with who waits: that may be killed, so it has to end by itself within seconds."""
WAITED_FOR = {"run", "call", "check_call", "check_output", "getoutput", "getstatusoutput"}
FORKS = {"fork", "forkpty", "posix_spawn", "posix_spawnp", "system", "popen", "spawnv", "spawnl"}
FORKED_HERE = {"tests/support/fork_server.py", "tests/support/workers.py"}
"""In these a fork asks the kernel for its end itself."""


def test_what_is_waited_for_and_takes_long_ends_with_who_waits() -> None:
    """By `tests.support.processes.run`: a worker may be killed, by a second Ctrl-C or for want of memory."""
    found = {
        str(file.relative_to(ROOT))
        for file in files_with(r"\bsubprocess\b", "tests")
        if any(waits_alone(file.read_text()))
    }
    assert found == SHORT.keys()


def test_nothing_is_started_in_other_ways() -> None:
    found = {
        str(file.relative_to(ROOT))
        for file in files_with(rf"\bos\.({'|'.join(FORKS)})\(|\bmultiprocessing\b", "tests")
        if any(forks(file.read_text()))
    }
    assert found == FORKED_HERE


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("subprocess.run(command, check=True)\n", True),
        ("asyncio.to_thread(subprocess.check_output, command)\n", True),
        ("from subprocess import run\n", True),
        ("from tests.support.processes import run\nrun(command)\n", False),
        ("except subprocess.CalledProcessError: pass\n", False),
    ],
)
def test_what_waits_alone_is_found(source: str, found: bool) -> None:
    assert any(waits_alone(source if not source.startswith("except") else f"try: pass\n{source}")) == found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("os.system('sleep 1')\n", True),
        ("pid = os.fork()\n", True),
        ("from multiprocessing import Process, Pipe\n", True),
        ("import multiprocessing\nmultiprocessing.Pool(2)\n", True),
        ("from multiprocessing import Pipe\nfrom multiprocessing.connection import wait\n", False),
    ],
)
def test_what_forks_is_found(source: str, found: bool) -> None:
    assert any(forks(source)) == found


def waits_alone(source: str) -> Iterator[int]:
    """Find the lines that have a means of `subprocess` to wait for a command."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(value=ast.Name(id="subprocess"), attr=name) if name in WAITED_FOR:
                yield node.lineno
            case ast.ImportFrom(module="subprocess", names=names) if WAITED_FOR & {one.name for one in names}:
                yield node.lineno


def forks(source: str) -> Iterator[int]:
    """Find the lines that start a process by other means than `subprocess`."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(value=ast.Name(id="os"), attr=name) if name in FORKS:
                yield node.lineno
            case ast.Import(names=names) if any(one.name == "multiprocessing" for one in names):
                yield node.lineno
            case ast.ImportFrom(module="multiprocessing", names=names) if {one.name for one in names} - {"Pipe"}:
                yield node.lineno
