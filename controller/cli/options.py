"""Types and options that several commands share."""

from __future__ import annotations

import functools
import ipaddress
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from controller.api.contract.installation import check_installation
from controller.api.timing import REAL, Timing
from controller.gateway.bootstrap import HostPort, UnixSocket, XdsAddress, parse_xds_address
from controller.gateway.client_tls import ClientTls
from controller.programs.state import StateDirectory, default_state_directory


class HostPortType(click.ParamType[HostPort]):
    """`127.0.0.1:18000`."""

    name = "HOST:PORT"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> HostPort:
        """Parse, or say what is wrong."""
        if isinstance(value, HostPort):
            return value
        try:
            return HostPort.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class XdsAddressType(click.ParamType[XdsAddress]):
    """`127.0.0.1:18000` or `unix:/run/beamlit/xds.sock`."""

    name = "HOST:PORT|unix:/PATH"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Leave it as it is typed: click would write a scheme in capitals."""
        return self.name

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> XdsAddress:
        """Parse, or say what is wrong."""
        if isinstance(value, HostPort | UnixSocket):
            return value
        try:
            return parse_xds_address(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


# RFC 1123, as Kubernetes has it: a namespace is one label, other names may be several with dots between them.
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_NAMESPACED = re.compile(rf"({_LABEL})/({_LABEL}(?:\.{_LABEL})*)")


class NamespacedType(click.ParamType[tuple[str, str]]):
    """`namespace/name`."""

    name = "NAMESPACE/NAME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Split, or say what is wrong."""
        if isinstance(value, tuple):
            return value
        if not _NAMESPACED.fullmatch(str(value)):
            self.fail(f"{value!r} is not NAMESPACE/NAME, such as default/beamlit-xds", param, ctx)
        namespace, _, name = str(value).partition("/")
        return namespace, name


class InstallationType(click.ParamType[str]):
    """`my-gateway`."""

    name = "NAME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check, or say what is wrong."""
        try:
            return check_installation(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class IpAddressType(click.ParamType[str]):
    """An address that can be listened on: Envoy looks up no names for that."""

    name = "ADDRESS"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Take an IPv4 or IPv6 address, or say what is wrong."""
        try:
            return str(ipaddress.ip_address(str(value)))
        except ValueError:
            self.fail(f"{value!r} is not an IP address, such as 0.0.0.0 or ::", param, ctx)


class SecondsType(click.FloatRange):
    """Seconds from zero on; what is no number, or has no end, is refused."""

    name = "SECONDS"

    def __init__(self) -> None:
        super().__init__(min=0)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse, or say what is wrong."""
        seconds: float = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return seconds


class ConfigurationType(click.ParamType[Any]):
    """What may stand in place of one key of the configuration, as the schema of that key has it."""

    name = "TEXT"

    def __init__(self, key: str) -> None:
        self._key = key

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        """Check, or say what is wrong."""
        # Imported when it is used: `--help` answers at once.
        from controller.api.resources.configuration import Configuration  # noqa: PLC0415
        from controller.api.schema.errors import InvalidObjectError  # noqa: PLC0415
        from controller.api.schema.values import parse  # noqa: PLC0415

        try:
            parse(Configuration, {self._key: value})
        except InvalidObjectError as error:
            self.fail("; ".join(one.message for one in error.errors), param, ctx)
        return value


HOST_PORT = HostPortType()
XDS_ADDRESS = XdsAddressType()
INSTALLATION = InstallationType()
NAMESPACED = NamespacedType()
IP_ADDRESS = IpAddressType()
SECONDS = SecondsType()

CONFIG = click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Configuration file (YAML or JSON); flags and environment go before it.",
)
KUBECONFIG = click.option(
    "--kubeconfig",
    type=click.Path(dir_okay=False, path_type=Path),
    help="How to reach the API server. Default: $KUBECONFIG, else the pod's service account, else ~/.kube/config.",
)
CONTEXT = click.option("--context", help="The context of the kubeconfig, if not its current one.")
NAMESPACES = click.option(
    "--namespaces",
    envvar="BEAMLIT_NAMESPACES",
    type=ConfigurationType("namespaces"),
    metavar="NAME,...",
    help="The namespaces to watch, separated by commas. Default: all.",
)
CONTROLLER_CLASS = click.option(
    "--controller-class",
    envvar="BEAMLIT_CONTROLLER_CLASS",
    type=ConfigurationType("controllerClass"),
    metavar="CLASS",
    help="Serve the models whose spec.controllerClass is this one. Default: those without a class.",
)
LOG_LEVEL = click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="The least important lines that are logged, on standard error.",
)
LOG_FORMAT = click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Lines for people, or objects of JSON with date and time.",
)
REMOTE_CHECKS = click.option(
    "--remote-checks/--no-remote-checks",
    default=True,
    show_default=True,
    help="Connect to the remote backends and token endpoints, to say in the status whether they answer.",
)
NODE_TOKEN_FILE = click.option(
    "--node-token-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The token by which the xDS server knows its Envoys where there is no TLS; without one none is given secrets "
    "there.",
)
PEM = click.Path(dir_okay=False, path_type=Path)


def xds_tls(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options by which a client of the xDS server proves who it is, as `tls`; None without any."""

    @click.option("--xds-ca", type=PEM, help="The authorities (PEM) that the xDS server's certificate comes from.")
    @click.option("--xds-cert", type=PEM, help="The certificate (PEM) by which the xDS server knows this client.")
    @click.option("--xds-key", type=PEM, help="The key of --xds-cert (PEM).")
    @click.option(
        "--xds-token-file",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Instead of --xds-cert: the token of a ServiceAccount, projected for the audience of the xDS server. What "
        "is renewed is used at once.",
    )
    @click.option(
        "--xds-server-name",
        default="",
        metavar="NAME",
        show_default="the host that is asked",
        help="The DNS name, IP address or URI that the xDS server's certificate must have.",
    )
    @functools.wraps(command)
    def with_tls(xds_ca: Path | None, xds_cert: Path | None, xds_key: Path | None, **options: Any) -> Any:
        name, token = options.pop("xds_server_name"), options.pop("xds_token_file")
        if xds_ca and (token is None if xds_cert and xds_key else token and not (xds_cert or xds_key)):
            return command(tls=ClientTls(xds_ca, xds_cert, xds_key, name, token), **options)
        if xds_ca or xds_cert or xds_key or name or token:
            raise click.UsageError(
                "--xds-ca, --xds-cert and --xds-key are given together, or --xds-ca and --xds-token-file, or none of "
                "them."
            )
        return command(tls=None, **options)

    return with_tls


def check_no_tls_at_a_socket(option: str, address: XdsAddress, tls: object) -> None:
    """Refuse TLS at a socket file: nobody listens on the way, and its mode says who may connect. Raises UsageError."""
    if tls and isinstance(address, UnixSocket):
        raise click.UsageError(f"{option} is for --xds-address HOST:PORT; at a Unix socket there is no TLS.")


INSECURE_XDS = click.option(
    "--insecure-xds",
    is_flag=True,
    help="Serve xDS without TLS at an address that others than this host reach: whoever listens on the way reads the "
    "token and every secret. For where a service mesh encrypts, and for tests.",
)
NODE_ID = click.option(
    "--node-id", default="", show_default="the host's name", help="How this Envoy calls itself; no two alike."
)
_MIB = 2**20
MEMORY_LIMIT = click.option(
    "--memory-limit",
    "memory",
    metavar="MIB",
    type=click.IntRange(min=64),
    callback=lambda _context, _option, mib: mib and mib * _MIB,
    help="What Envoy may use: as it fills, the streams that hold most of it are reset, then nothing more is accepted.",
)
MAX_CONNECTIONS = click.option(
    "--max-connections",
    "connections",
    type=click.IntRange(min=1),
    default=50_000,
    show_default=True,
    help="How many connections its clients may have at a time.",
)
ALL_STATISTICS = click.option(
    "--all-statistics",
    is_flag=True,
    help="Let Envoy count all that it can: about 0.2 MB more for each model.",
)
STATE_DIRECTORY = click.option(
    "--state-dir",
    "state",
    type=click.Path(file_okay=False, path_type=Path),
    callback=lambda _context, _option, path: StateDirectory(path),
    default=default_state_directory,
    show_default="$BEAMLIT_STATE_DIR or ~/.local/state/beamlit",
    help="Where statuses and the token of the Envoys are kept.",
)
ACCESS_LOG = click.option(
    "--access-log",
    type=click.Choice(["off", "failures", "all"]),
    default="off",
    show_default=True,
    help="Which requests the Envoys tell of on their standard output, as lines of JSON.",
)


def is_typed(option: str) -> bool:
    """Tell whether an option of the command that runs was typed: one may have its default, or come from a variable."""
    return click.get_current_context().get_parameter_source(option) is click.core.ParameterSource.COMMANDLINE


def timed(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the product's times as `timing`: those that `main` was given as `obj`, else the real ones."""

    @click.pass_obj
    @functools.wraps(command)
    def with_times(given: Timing | None, *args: Any, **options: Any) -> Any:
        return command(*args, timing=given or REAL, **options)

    return with_times


def drain_seconds(default: float) -> Callable[[Any], Any]:
    """Make the option for how long requests in flight may take when an Envoy is stopped."""
    return click.option(
        "--drain-seconds",
        type=SECONDS,
        default=default,
        show_default=True,
        help="How long requests in flight may take when it is stopped; a second signal ends it at once.",
    )
