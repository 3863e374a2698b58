"""The configuration file, and what the command line says in its place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic.alias_generators import to_camel

from controller.api.destinations import CHECKS_PORT
from controller.api.resources.configuration import Configuration
from controller.api.schema.errors import InvalidObjectError
from controller.api.schema.values import parse
from controller.gateway.bootstrap import HostPort
from controller.store.manifest.manifest import parse_manifests

_BY_DEFAULT = frozenset({8_080, 18_000, 18_001, 19_000, CHECKS_PORT})
"""Where `beamlit xds-server` and `beamlit envoy` listen unless they are told otherwise, and Envoys for all models
together and for their checks."""


class ConfigurationFileError(Exception):
    """The configuration cannot be used; the message names file, line and field of each mistake."""


def load_configuration(path: Path | None, overrides: Mapping[str, object]) -> Configuration:
    """Read the file, if there is one; `overrides` (by the names of `Configuration`) go before what it says.

    Raises ConfigurationFileError; overrides were checked where they were typed.
    """
    configuration = read_configuration(path) if path else Configuration()
    given = parse(Configuration, {to_camel(name): value for name, value in overrides.items()})
    return configuration.model_copy(update={name: getattr(given, name) for name in overrides})


def read_configuration(path: Path) -> Configuration:
    """Read one document of YAML or JSON; an empty file configures nothing. Raises ConfigurationFileError."""
    try:
        parsed = parse_manifests(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationFileError(f"{path}: {error}") from error
    if parsed.faults:
        raise ConfigurationFileError("\n".join(f"{path}:{one.line}: {one.message}" for one in parsed.faults))
    documents = parsed.documents
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


def ports_of_programs(configuration: Configuration, own: Iterable[HostPort]) -> frozenset[int]:
    """Return the ports that no model is given: our programs may listen on them where the Envoys do.

    `own` is where this program listens: pods may share the network of their host.
    """
    admin = configuration.proxy_service.admin_port if configuration.proxy_service else None
    return _BY_DEFAULT | {one.port for one in own} | ({admin} if admin else set())
