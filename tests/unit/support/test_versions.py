"""Another version is built of the libraries that it was released with, and of nothing that has to be asked for."""

from __future__ import annotations

import pytest

from tests.tools.versions import Module, link_flags, main, wrapper

PUBLISHED = """\
module k8s.io/kubernetes

go 1.20

require (
\tk8s.io/api v0.0.0
\tgithub.com/spf13/cobra v1.6.0
)

replace (
\tgithub.com/other/one => github.com/other/two v1.0.0
\tk8s.io/api => ./staging/src/k8s.io/api
\tk8s.io/legacy-cloud-providers => ./staging/src/k8s.io/legacy-cloud-providers
)
"""


def test_the_staging_modules_of_kubernetes_are_those_of_its_release_and_no_cloud_is_among_them() -> None:
    lines = [line for line in wrapper(Module("k8s.io/kubernetes", "1.27.16"), PUBLISHED).splitlines() if line]
    assert lines[1:] == [
        "go 1.20",
        "require k8s.io/kubernetes v1.27.16",
        "replace k8s.io/api => k8s.io/api v0.27.16",
        "replace k8s.io/legacy-cloud-providers => ./legacy-cloud-providers",
    ]


def test_a_module_without_staging_modules_is_required_alone() -> None:
    module = Module("helm.sh/helm/v3", "3.22.0")
    lines = [line for line in wrapper(module, "module helm.sh/helm/v3\n\ngo 1.25.0\n").splitlines() if line]
    assert lines[1:] == ["go 1.25.0", "require helm.sh/helm/v3 v3.22.0"]


def test_the_programs_of_kubernetes_say_their_version_and_answer_it() -> None:
    flags = link_flags("1.27.16").split()
    # The command line by the one; GET /version of Kubernetes 1.27, which charts are rendered for, by the other.
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
        assert f"{package}.gitVersion=v1.27.16" in flags
        assert f"{package}.gitMinor=27" in flags


@pytest.mark.parametrize(
    ("path", "version", "folder"),
    [
        ("k8s.io/kubernetes", "1.30.14", "kubernetes-1.30.14"),
        ("helm.sh/helm/v3", "3.22.0", "helm-3.22.0"),
        ("helm.sh/helm/v4", "4.3.1", "helm-4.3.1"),
    ],
)
def test_each_version_has_a_folder_of_its_own(path: str, version: str, folder: str) -> None:
    assert Module(path, version).folder.name == folder


@pytest.mark.parametrize("arguments", [["kubernetes", "1.27"], ["kubernetes", "v1.27.16"], ["helm", "newest"]], ids=str)
def test_what_is_no_version_is_said_in_a_line(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match=f"{arguments[0]}: '{arguments[1]}' is no version such as 1.27.16"):
        main(arguments)
