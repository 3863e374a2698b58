"""docs/configuration.md: every option, environment variable and configuration key, as the code has them. Pure."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from enum import Enum

import click
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from controller.api.resources.configuration import Configuration
from controller.api.schema.scalars import format_duration
from controller.cli.main import main
from controller.install.schema import descriptions_of

ELSEWHERE = {
    "BEAMLIT_STATE_DIR": "the state folder of `run`, `envoy` and `bootstrap`, unless `--state-dir` names it",
    "HOME": "where `.kube/config` and `.local/state/beamlit` are",
    "HTTPS_PROXY": "the proxy for an API server at an https address",
    "HTTP_PROXY": "the proxy for an API server at an http address",
    "KUBECONFIG": "the kubeconfig, unless `--kubeconfig` names it",
    "KUBERNETES_SERVICE_HOST": "set in a pod, which then uses its service account",
    "NO_PROXY": "hosts that are reached without a proxy",
    "XDG_STATE_HOME": "its folder `beamlit` is the state folder, unless `BEAMLIT_STATE_DIR` names it",
}
"""Environment variables that are read by other means than an option of their own."""

HEAD = """\
# Configuration

Written by `make golden` from the options of the commands and from the model of the configuration file; a test compares
it with them.

An option goes before its environment variable, that before the configuration file. A malformed option or variable ends
the program with exit code 2, a mistake in the file with 1; the message names the option, or the line and the field.
"""


def reference() -> str:
    """Write the whole page."""
    return "\n".join([HEAD, *_commands(), *_variables(), *_keys()])


def _commands() -> Iterator[str]:
    yield "## Options\n"
    for name, command in sorted(main.commands.items()):
        rows = [_option(one) for one in command.params if isinstance(one, click.Option)]
        yield f"### beamlit {name}\n"
        yield _table(("option", "takes", "default", "environment variable", ""), rows)


def _option(option: click.Option) -> tuple[str, ...]:
    names = ", ".join(f"`{one}`" for one in (*option.opts, *option.secondary_opts))
    takes = "" if option.is_flag else f"`{option.make_metavar(click.Context(click.Command('')))}`"
    return (names, takes, _default_of(option), f"`{option.envvar}`" if option.envvar else "", option.help or "")


def _default_of(option: click.Option) -> str:
    if isinstance(option.show_default, str):
        return option.show_default
    if not option.show_default:
        return ""
    if option.is_flag:
        return f"`{(option.opts if option.default else option.secondary_opts)[0]}`"
    return f"`{option.default}`"


def _variables() -> Iterator[str]:
    yield "## Environment variables\n"
    said = dict(ELSEWHERE)
    for name, command in sorted(main.commands.items()):
        for option in command.params:
            if option.envvar and option.envvar not in ELSEWHERE:
                before = f"{said[option.envvar]}, " if option.envvar in said else ""
                said[str(option.envvar)] = f"{before}`{option.opts[0]}` of `beamlit {name}`"
    yield _table(("variable", "what it says"), [(f"`{name}`", words) for name, words in sorted(said.items())])


def _keys() -> Iterator[str]:
    yield "## Configuration file\n"
    yield "YAML or JSON, one document. Every key is optional but for those that are required within their object.\n"
    yield _table(("key", "takes", "default", ""), list(_keys_of(Configuration, "")))


def _keys_of(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, ...]]:
    descriptions = descriptions_of(model)
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        inner = _model_in(field.annotation)
        default = field.get_default(call_default_factory=True, validated_data={})
        yield f"`{key}`", _takes(field.annotation), _written(default), descriptions[name]
        if inner:
            yield from _keys_of(inner, f"{key}.")


def _written(default: object) -> str:
    match default:
        case _ if default is PydanticUndefined:
            return "required"
        case None | () | "" | BaseModel():
            return ""
        case bool():
            return f"`{str(default).lower()}`"
        case _ if hasattr(default, "total_seconds"):
            return f"`{format_duration(default)}`"
        case _ if hasattr(default, "get_secret_value") or (hasattr(default, "__len__") and not len(default)):
            return ""
    return f"`{default}`"


def _model_in(annotation: object) -> type[BaseModel] | None:
    for one in _alternatives(annotation):
        if isinstance(one, type) and issubclass(one, BaseModel):
            return one
    return None


def _alternatives(annotation: object) -> tuple[object, ...]:
    """List what an annotation lets in, but for None."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _alternatives(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return tuple(
            each for one in typing.get_args(annotation) if one is not type(None) for each in _alternatives(one)
        )
    return (annotation,)


_NAMES = {"int": "number", "float": "number", "bool": "true or false", "timedelta": "duration"}


def _takes(annotation: object) -> str:
    return " or ".join(dict.fromkeys(_name_of(one) for one in _alternatives(annotation)))


def _name_of(annotation: object) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return ", ".join(f"`{one.value if isinstance(one, Enum) else one}`" for one in arguments)
    if origin in (tuple, list):
        return f"list of {_takes(arguments[0])}"
    if origin is not None:
        return "map of text"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "object"
    return _NAMES.get(getattr(annotation, "__name__", ""), "text")


def _table(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [headings, tuple("---" for _ in headings), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines) + "\n"
