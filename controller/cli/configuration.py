"""The configuration: the file (`--config`), with what the command line and the environment say over it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic.alias_generators import to_camel

from controller.api.base import InvalidObjectError, parse
from controller.api.configuration import Configuration
from controller.store.manifest import ManifestError, parse_yaml


class ConfigurationFileError(Exception):
    """The configuration cannot be used; the message names file, line and field, or the flag, of each mistake."""


def configured(path: Path | None, overrides: Mapping[str, object]) -> Configuration:
    """Read the file, if there is one, and lay `overrides` (by the names of `Configuration`) over it.

    Raises ConfigurationFileError.
    """
    configuration = read_configuration(path) if path else Configuration()
    try:
        given = parse(Configuration, {to_camel(name): value for name, value in overrides.items()})
    except InvalidObjectError as error:
        flags = {to_camel(name): f"--{name.removeprefix('enable_').replace('_', '-')}" for name in overrides}
        raise ConfigurationFileError(
            "\n".join(f"{flags[str(one.path[0])]}: {one.message}" for one in error.errors)
        ) from error
    return configuration.model_copy(update={name: getattr(given, name) for name in overrides})


def read_configuration(path: Path) -> Configuration:
    """Read one document of YAML or JSON; an empty file configures nothing. Raises ConfigurationFileError."""
    try:
        documents = parse_yaml(path.read_text(encoding="utf-8"))
    except ManifestError as error:
        raise ConfigurationFileError(f"{path}:{error.line}: {error.message}") from error
    except (OSError, ValueError) as error:
        raise ConfigurationFileError(f"{path}: {error}") from error
    if not documents:
        return Configuration()
    document, *more = documents
    if more:
        raise ConfigurationFileError(f"{path}:{more[0].line_of(())}: must be one document")
    try:
        return parse(Configuration, document.raw)
    except InvalidObjectError as error:
        lines = (f"{path}:{document.line_of(one.path)}: {one}" for one in error.errors)
        raise ConfigurationFileError("\n".join(lines)) from error
