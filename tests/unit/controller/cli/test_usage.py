"""What is typed wrongly is said, with exit code 2, before anything is asked or done."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from controller.cli.main import main

NOWHERE = ("--kubeconfig", "/nonexistent/kubeconfig")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("stat", "No such command 'stat'. Did you mean 'status'?"),
        ("pause chat --timeout 10s", "--timeout is for --wait."),
        ("check --timeout 10s", "--timeout is for --wait."),
        ("check --wait --timeout soon", "Invalid value for '--timeout'"),
        ("check --pre --lease a/b", "--lease: before an install there is none of it; --pre takes -n alone."),
        ("check --lease b", "'b' is not NAMESPACE/NAME"),
        ("check -n A", "'A' is not a namespace"),
        ("explain Chat", "'Chat' is not a name"),
        ("explain a/chat -n b", "a/chat is not in the namespace b of -n: say one of the two."),
        ("explain a/b/c", "'a/b/c' is not NAMESPACE/NAME"),
        ("set-split 30 a/chat -n b", "a/chat is not in the namespace b of -n"),
        ("status a/chat -n b", "a/chat is not in the namespace b of -n"),
        ("restore", "name the Services, or give --all."),
        ("restore --all chat", "name the Services, or give --all."),
        ("restore chat --namespaces a", "--namespaces and --config are for --all"),
        ("restore Chat", "'Chat' is not a name"),
    ],
)
def test_a_mistake_is_named(words: str, message: str) -> None:
    ended = CliRunner().invoke(main, words.split())
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert message in ended.stderr


@pytest.mark.parametrize("command", ["check", "restore --all", "explain chat", "pause chat"])
def test_a_cluster_that_cannot_be_found_has_a_code_of_its_own(command: str) -> None:
    ended = CliRunner().invoke(main, [*command.split(), *NOWHERE])
    assert (ended.exit_code, ended.stdout) == (3, "")
    assert "/nonexistent/kubeconfig: no such file" in ended.stderr


@pytest.mark.parametrize("name", sorted(main.commands))
def test_the_help_of_each_command_has_an_example_and_every_exit_code(name: str) -> None:
    ended = CliRunner().invoke(main, [name, "--help"])
    assert ended.exit_code == 0
    words = " ".join(ended.stdout.split())
    assert f"beamlit {name}" in words.partition("Examples:")[2]
    assert "Exit codes: 0 " in words
    assert "2 wrong usage" in words or name == "envoy"
