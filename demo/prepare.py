"""Make what the containers of the demo need before they start: credentials, and the objects of one model."""

from __future__ import annotations

from pathlib import Path

import click

from controller.programs.state import StateDirectory
from demo.credentials import Credentials
from demo.files import write_at_once
from demo.manifests import deployment_yaml, model_yaml, secrets_yaml, service_yaml

_FOLDER = click.Path(file_okay=False, path_type=Path)
_PORT = 30080
"""Where clients find the model: the node port of its Service."""
_REPLICAS = 3


@click.command()
@click.option("--objects", type=_FOLDER, required=True, help="The folder that `beamlit run` watches.")
@click.option("--credentials", "folder", type=_FOLDER, required=True, help="Where certificate and keys go.")
@click.option("--state", type=_FOLDER, required=True, help="The folder where Envoy finds its token.")
@click.option("--remote", required=True, metavar="HOST:PORT", help="The remote backend.")
@click.option("--token-url", required=True, help="Where it has its tokens from.")
def main(objects: Path, folder: Path, state: Path, remote: str, token_url: str) -> None:
    """Make what is missing; credentials that are there stay."""
    StateDirectory(state).node_token()
    credentials = Credentials.read(folder) if folder.exists() else Credentials.make(folder)
    written = {
        "model.yaml": model_yaml(remote, token_url),
        "service.yaml": service_yaml(_PORT),
        "deployment.yaml": deployment_yaml(_REPLICAS),
        "secrets.yaml": secrets_yaml(credentials),
    }
    for name, text in written.items():
        write_at_once(objects / name, text)


if __name__ == "__main__":
    main()
