"""Other versions of Kubernetes and Helm than those that the tests run with, for who wants to know how they get on.

`python -m tests.tools.versions kubernetes 1.27.16` builds kube-apiserver, kube-controller-manager and kubectl of that
version and says in which folder they are, for KUBEBUILDER_ASSETS; `... helm 3.22.0` builds helm and says where it is,
for BEAMLIT_HELM. `make compatibility` does both. No go.mod pins these: of what is built, the checksum database of Go
knows the content.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import run
from tests.tools.binaries import KUBERNETES, cache, go, locked, numbers, say, unfinished_at

KUBERNETES_PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kubectl")
NEWEST_GO = (1, 26)
"""The toolchain that builds all of them: each module is built with the semantics of its own go line."""
_STAGED = re.compile(r"^\s*(?:replace )?(\S+) => \./staging/", re.MULTILINE)
_GO_LINE = re.compile(r"^go (\S+)$", re.MULTILINE)
_CLOUDS = "k8s.io/legacy-cloud-providers"
_SAYING = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
"""What `--version` says, and what an older API server answers at /version."""


@dataclass(frozen=True, slots=True)
class Module:
    """A version of a Go module whose main packages are built."""

    path: str
    version: str
    """Without the v."""

    @property
    def folder(self) -> Path:
        """Where its programs are built to."""
        name = re.sub(r"/v\d+$", "", self.path).rpartition("/")[2]
        return cache() / "versions" / f"{name}-{self.version}"

    @property
    def go_mod(self) -> str:
        """The text of its go.mod; SystemExit with what Go says of a version that there is not."""
        command = [go(NEWEST_GO), "mod", "download", "-json", f"{self.path}@v{self.version}"]
        said = json.loads(run(command, cwd="/", capture_output=True, text=True).stdout)
        if "Error" in said:
            sys.exit(said["Error"])
        return Path(said["GoMod"]).read_text()


def wrapper(module: Module, go_mod: str) -> str:
    """The go.mod of a module that requires this one alone: each library is of the version that it was released with.

    The published module of Kubernetes names its staging modules v0.0.0: they are those of its release. None of the
    clouds of its older versions is built, whose library not every checksum database has.
    """
    line = _GO_LINE.search(go_mod)
    assert line, f"{module.path} {module.version} has no go line"
    written = ["module beamlit.com/tests/tools/versions", f"go {line[1]}", f"require {module.path} v{module.version}"]
    minor = module.version.partition(".")[2]
    for name in _STAGED.findall(go_mod):
        place = f"./{Path(name).name}" if name == _CLOUDS else f"{name} v0.{minor}"
        written.append(f"replace {name} => {place}")
    return "\n\n".join(written) + "\n"


def built(module: Module, packages: tuple[str, ...], link_flags: str = "-s -w") -> Path:
    """Build main packages of a module, those that are not there yet; return their folder, whose go.mod says of what."""
    folder = module.folder
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock"):
        lacking = [name for name in packages if not (folder / name).exists()]
        if lacking:
            (folder / "go.mod").write_text(wrapper(module, module.go_mod))
            clouds = folder / Path(_CLOUDS).name
            clouds.mkdir(exist_ok=True)
            (clouds / "go.mod").write_text(f"module {_CLOUDS}\n")
        for name in lacking:
            say(f"building {name} {module.version} (once, a few minutes)")
            command = [go(NEWEST_GO), "build", "-mod=mod", "-trimpath", "-tags=providerless", f"-ldflags={link_flags}"]
            unfinished = unfinished_at(folder / name)
            command += ["-o", str(unfinished), f"{module.path}/cmd/{name}"]
            run(command, cwd=folder, check=True, env={**os.environ, "CGO_ENABLED": "0"})
            unfinished.rename(folder / name)
    return folder


def kubernetes(version: str) -> Path:
    """The folder with kube-apiserver, kube-controller-manager and kubectl of a version such as 1.27.16."""
    return built(Module(KUBERNETES, version), KUBERNETES_PROGRAMS, link_flags(version))


def link_flags(version: str) -> str:
    """How the programs of Kubernetes are told which version they are: both packages, or an old one answers v0.0.0."""
    major, minor, _ = numbers(version)
    said = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor}
    return " ".join(["-s -w", *(f"-X {package}.{key}={said[key]}" for package in _SAYING for key in said)])


def helm(version: str) -> Path:
    """Helm of a version such as 3.22.0."""
    return built(Module(f"helm.sh/helm/v{numbers(version)[0]}", version), ("helm",)) / "helm"


def main(arguments: list[str]) -> Path:
    """Build what is asked for; SystemExit with a line of words where there is no such thing."""
    match arguments:
        case ["kubernetes" | "helm" as name, version] if not re.fullmatch(r"\d+\.\d+\.\d+", version):
            sys.exit(f"{name}: {version!r} is no version such as 1.27.16")
        case ["kubernetes", version]:
            return kubernetes(version)
        case ["helm", version]:
            return helm(version)
        case _:
            sys.exit("python -m tests.tools.versions kubernetes|helm VERSION")


if __name__ == "__main__":
    print(main(sys.argv[1:]))
