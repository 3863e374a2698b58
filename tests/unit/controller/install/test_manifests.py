"""What is in `deploy` is what the registry says, file by file."""

from controller.install import manifests
from tests.support.processes import ROOT

FOLDER = ROOT / "deploy"


def test_the_files_are_current():
    written = {str(file.relative_to(FOLDER)): file.read_text() for file in FOLDER.rglob("*") if file.is_file()}
    assert written == manifests(), "run `make manifests` and review the diff"
