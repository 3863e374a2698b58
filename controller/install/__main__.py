"""Write the custom resource definitions into a folder: `python -m controller.install deploy/crds` (`make crds`)."""

from __future__ import annotations

from pathlib import Path

import click

from controller.install.crd import files


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Write every definition into FOLDER."""
    for name, text in files().items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    main()
