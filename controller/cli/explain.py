"""`beamlit explain`: why a model's requests go where they go."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from controller.api.timing import Timing
from controller.cli.options import timed
from controller.cli.place import about_one_model, errors_told

if TYPE_CHECKING:
    from controller.programs.models import Place


@click.command()
@about_one_model
@click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="The form."
)
@timed
def explain(name: str, place: Place, output: str, timing: Timing) -> None:
    """Say why the requests of the model NAME go where they go.

    It shows the split and its reason, what every rule said with the numbers that it saw, which rule would decide next,
    what would change the split and when that may happen by itself, whether the Envoys have it, and the last decisions.
    All of it is read from the status, where the controller wrote it.

    Without --server, --kubeconfig or --context it asks the cluster that kubectl would ask or, if there is no
    kubeconfig, the `beamlit run` of this host.

    \b
    Examples:
      beamlit explain php-apache
      beamlit explain php-apache -n team --context production
      beamlit explain php-apache --server http://127.0.0.1:19000
      beamlit explain php-apache -o json | jq '.rules[] | select(.decides)'

    \b
    Exit codes: 0 shown; 1 no such model; 2 wrong usage; 3 nothing answers; 4 not allowed.
    """
    from controller.programs.explain import explained  # noqa: PLC0415

    with errors_told(place):
        found = explained(place, name, lambda: datetime.now(UTC), timing)
    if output == "json":
        click.echo(json.dumps(found.as_object(), indent=2))
    else:
        click.echo(found.as_text(), nl=False)
