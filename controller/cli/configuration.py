"""Reading the configuration file (`--config`)."""

from __future__ import annotations

from pathlib import Path

from controller.api.base import InvalidObjectError, parse
from controller.api.configuration import Configuration
from controller.store.manifest import ManifestError, parse_yaml


class ConfigurationError(Exception):
    """The configuration file cannot be used; the message names the file, the line and the field of each mistake."""


def read_configuration(path: Path) -> Configuration:
    """Read one document of YAML or JSON; an empty file configures nothing. Raises ConfigurationError."""
    try:
        documents = parse_yaml(path.read_text(encoding="utf-8"))
    except ManifestError as error:
        raise ConfigurationError(f"{path}:{error.line}: {error.message}") from error
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    if not documents:
        return Configuration()
    document, *more = documents
    if more:
        raise ConfigurationError(f"{path}:{more[0].line_of(())}: must be one document")
    try:
        return parse(Configuration, document.raw)
    except InvalidObjectError as error:
        lines = (f"{path}:{document.line_of(one.path)}: {one}" for one in error.errors)
        raise ConfigurationError("\n".join(lines)) from error
