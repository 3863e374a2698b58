"""Write what is installed into a cluster: `python -m controller.install deploy` (`make manifests`)."""

from __future__ import annotations

from pathlib import Path

import click

from controller.install import manifests


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Write custom resource definitions, roles and parts of the chart into FOLDER/crds, FOLDER/rbac, FOLDER/chart."""
    for name, text in manifests().items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


if __name__ == "__main__":
    main()
