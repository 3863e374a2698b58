"""What is in `deploy` is what the registry says, file by file."""

from controller.install import manifests
from tests.support.processes import ROOT

FOLDER = ROOT / "deploy"


def test_the_files_are_current():
    written = manifests()
    assert {name: (FOLDER / name).read_text() for name in written} == written, (
        "run `make manifests` and review the diff"
    )


def test_what_is_written_is_written_alone():
    for name in ("crds", "rbac"):
        there = {str(file.relative_to(FOLDER)) for file in (FOLDER / name).iterdir()}
        assert there == {one for one in manifests() if one.startswith(f"{name}/")}
