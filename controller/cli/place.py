"""What commands about one model share: its name, where it is looked for, and exit codes for why it is not found."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from controller.api.schema.text import one_line
from controller.cli.options import CONTEXT, KUBECONFIG, NAMESPACED

if TYPE_CHECKING:
    from controller.programs.models import Place

NOT_FOUND = 1
NO_ANSWER = 3
DENIED = 4


class ServerType(click.ParamType[str]):
    """`http://127.0.0.1:19000`."""

    name = "URL"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Take a URL of HTTP, or say what is wrong."""
        try:
            parts = urlsplit(str(value))
            is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_one = False
        if not is_one:
            self.fail(f"{value!r} is not the URL of a server, such as http://127.0.0.1:19000", param, ctx)
        return str(value)


class ModelNameType(click.ParamType[str]):
    """`php-apache`."""

    name = "NAME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Take the name of an object, or say what is wrong."""
        try:
            return NAMESPACED.convert(f"x/{value}", param, ctx)[1]
        except click.BadParameter:
            self.fail(f"{value!r} is not a name: lower case letters, digits, '-' and '.'", param, ctx)


class NamespacedNameType(click.ParamType[tuple[str | None, str]]):
    """`team/php-apache` or `php-apache`: with or without its namespace."""

    name = "[NAMESPACE/]NAME"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str | None, str]:
        """Split, or say what is wrong."""
        if isinstance(value, tuple):
            return value
        if "/" in str(value):
            return NAMESPACED.convert(value, param, ctx)
        return None, ModelNameType().convert(value, param, ctx)


class NamespaceType(click.ParamType[str]):
    """`default`."""

    name = "NAMESPACE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Take the name of a namespace, or say what is wrong."""
        try:
            return NAMESPACED.convert(f"{value}/x", param, ctx)[0]
        except click.BadParameter:
            self.fail(f"{value!r} is not a namespace: lower case letters, digits and '-'", param, ctx)


_NAME = click.argument("name", metavar="[NAMESPACE/]NAME", type=NamespacedNameType())
_NAMESPACE = click.option(
    "-n",
    "--namespace",
    type=NamespaceType(),
    show_default="that of the context, else default",
    help="The namespace of a NAME without one.",
)
_SERVER = click.option(
    "--server",
    type=ServerType(),
    envvar="BEAMLIT_SERVER",
    show_default="http://127.0.0.1:19000 without a kubeconfig",
    help="Ask the `beamlit run` at this admin address, and no cluster.",
)


def in_one_namespace(named: tuple[str | None, str], namespace: str | None) -> tuple[str | None, str]:
    """Return the namespace and the name of what is named, whose namespace may be said beside it (-n)."""
    own, name = named
    if own and namespace and own != namespace:
        raise click.UsageError(f"{own}/{name} is not in the namespace {namespace} of -n: say one of the two.")
    return own or namespace, name


def about_one_model(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the argument NAME, and as `place` where it is."""

    @functools.wraps(command)
    def with_place(
        server: str | None, kubeconfig: Path | None, context: str | None, namespace: str | None, **options: Any
    ) -> Any:
        from controller.programs.models import Place  # noqa: PLC0415

        namespace, options["name"] = in_one_namespace(options["name"], namespace)

        source = click.get_current_context().get_parameter_source("server")
        if server and (kubeconfig or context):
            if source is click.core.ParameterSource.COMMANDLINE:
                raise click.UsageError("--server asks a `beamlit run`, --kubeconfig and --context a cluster: give one")
            server = None
        return command(place=Place(server, kubeconfig, context, namespace), **options)

    for option in (_SERVER, KUBECONFIG, CONTEXT, _NAMESPACE, _NAME):
        with_place = option(with_place)
    return with_place


@contextlib.contextmanager
def errors_told(place: Place) -> Iterator[None]:
    """End the program with the exit code for what keeps it from its model, and say what that is."""
    from controller.programs import models  # noqa: PLC0415

    try:
        yield
    except models.ModelError as error:
        click.echo(f"beamlit: {one_line(str(error))}", err=True)
        if not place.server and isinstance(error, models.NoSuchModelError | models.UnreachableError):
            click.echo("beamlit: -n names a namespace, --context a cluster, --server a `beamlit run`", err=True)
        codes = {models.NoSuchModelError: NOT_FOUND, models.DeniedError: DENIED}
        raise SystemExit(codes.get(type(error), NO_ANSWER)) from error
