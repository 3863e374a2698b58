"""`beamlit controller` and `beamlit xds-server`: the two programs of a cluster."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import click

from controller.cli.options import (
    ACCESS_LOG,
    CONFIG,
    CONTEXT,
    CONTROLLER_CLASS,
    HOST_PORT,
    INSECURE_XDS,
    INSTALLATION,
    IP_ADDRESS,
    KUBECONFIG,
    LOG_FORMAT,
    LOG_LEVEL,
    NAMESPACED,
    NAMESPACES,
    NODE_TOKEN_FILE,
    PEM,
    REMOTE_CHECKS,
    XDS_ADDRESS,
    ConfigurationType,
    check_no_tls_at_a_socket,
    timed,
    xds_tls,
)


@click.command()
@CONFIG
@KUBECONFIG
@CONTEXT
@NAMESPACES
@CONTROLLER_CLASS
@click.option(
    "--metrics-addr",
    type=ConfigurationType("metricsAddr"),
    envvar="BEAMLIT_METRICS_ADDR",
    metavar="[HOST]:PORT",
    help='Metrics; "0" for none. Default: ":8080".',
)
@click.option(
    "--probe-addr",
    type=ConfigurationType("probeAddr"),
    envvar="BEAMLIT_PROBE_ADDR",
    metavar="[HOST]:PORT",
    help='/livez and /readyz; "0" for none. Default: ":8081".',
)
@click.option(
    "--leader-election/--no-leader-election",
    "enable_leader_election",
    default=None,
    envvar="BEAMLIT_LEADER_ELECTION",
    help="Let one of several replicas decide. Default: yes.",
)
@click.option(
    "--lease",
    type=NAMESPACED,
    help="The Lease of the election. Default: beamlit-controller in the namespace of the pod, or of the context.",
)
@click.option(
    "--xds-service",
    type=NAMESPACED,
    envvar="BEAMLIT_XDS_SERVICE",
    help="The Service of the xDS servers, whose port `reports` (without TLS `admin`) tells what the Envoys "
    "acknowledged.",
)
@click.option(
    "--gateway-service",
    type=NAMESPACED,
    envvar="BEAMLIT_GATEWAY_SERVICE",
    help="The Service of the Envoys: the Services of models lead their clients there (frontend: Takeover), and no "
    "model may have it as its remote backend. Default: proxyService of the configuration.",
)
@click.option(
    "--models-per-namespace",
    type=click.IntRange(min=1),
    envvar="BEAMLIT_MODELS_PER_NAMESPACE",
    help="How many ports of the gateway one namespace may have. Default: 1000.",
)
@click.option("--xds-replica", "xds_replicas", type=HOST_PORT, multiple=True, help="One of them by where it reports.")
@xds_tls
@LOG_LEVEL
@LOG_FORMAT
@timed
def controller(config: Path | None, log_level: str, **options: object) -> None:
    """Decide for every ModelDeployment of a cluster, and write it into its status.

    Any number of replicas may run: one is elected, the others are ready to take over. It needs the custom resources
    of deploy/crds. The configuration file has the original's keys; a flag goes before its environment variable, that
    before the file.

    \b
    Examples:
      beamlit controller --xds-service beamlit-system/beamlit-xds \\
        --xds-ca tls/ca.crt --xds-cert tls/tls.crt --xds-key tls/tls.key
      beamlit controller --config config.yaml --namespaces default,models
      beamlit controller --kubeconfig ~/.kube/config --no-leader-election --xds-replica 127.0.0.1:19000

    \b
    Exit codes: 0 stopped by SIGINT or SIGTERM; 1 could not start (the message says why); 2 wrong usage.
    """
    from controller.programs.controller import ControllerOptions, serve  # noqa: PLC0415

    overriding = (
        *("namespaces", "controller_class", "metrics_addr", "probe_addr"),
        *("enable_leader_election", "models_per_namespace"),
    )
    serve(
        ControllerOptions(
            config=config,
            overrides=_options_set(options, overriding),
            log_level=log_level,
            **{name: value for name, value in options.items() if name not in overriding},  # type: ignore[arg-type]
        )
    )


@click.command(name="xds-server")
@CONFIG
@KUBECONFIG
@CONTEXT
@NAMESPACES
@CONTROLLER_CLASS
@click.option("--xds-address", type=XDS_ADDRESS, default="0.0.0.0:18000", show_default=True, help="Where Envoys join.")
@click.option(
    "--admin-address",
    type=HOST_PORT,
    default="0.0.0.0:19000",
    show_default=True,
    help="Metrics and health; without TLS also what the Envoys acknowledged.",
)
@click.option(
    "--reports-address",
    type=HOST_PORT,
    default="0.0.0.0:18001",
    show_default=True,
    help="With TLS: what the Envoys acknowledged, for the controller.",
)
@click.option("--tls-cert", type=PEM, help="The certificate chain (PEM) it shows. What is renewed is used at once.")
@click.option("--tls-key", type=PEM, help="The key of --tls-cert (PEM).")
@click.option("--client-ca", type=PEM, help="The authorities (PEM) that the certificates of clients come from.")
@click.option(
    "--client",
    "clients",
    multiple=True,
    metavar="NAME=GRANT",
    help="What a client may be whose certificate has this URI or DNS name: gateway[/NODE], sidecar/NAMESPACE[/NODE], "
    "reader or controller. Without any, the URI spiffe://beamlit/GRANT says it.",
)
@click.option(
    "--token-address",
    type=HOST_PORT,
    show_default="nowhere",
    help="Where clients join over TLS that show the token of a ServiceAccount instead of a certificate, such as "
    "0.0.0.0:9443. --client binds system:serviceaccount:NAMESPACE:NAME; @pod stands for the pod of the token.",
)
@click.option(
    "--token-audience",
    default="beamlit-xds",
    show_default=True,
    metavar="AUDIENCE",
    help="What these tokens are made for; others count for nothing.",
)
@click.option(
    "--refused-clients",
    type=PEM,
    metavar="FILE",
    help="Clients that are refused though their certificate or token is good: a SHA-256 fingerprint of a certificate, "
    "or a name, on each line. What changes is followed, and ends their streams.",
)
@INSECURE_XDS
@click.option(
    "--gateway-address",
    type=IP_ADDRESS,
    default="0.0.0.0",
    show_default=True,
    help="Where the Envoys shall listen for clients.",
)
@click.option(
    "--gateway-port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    callback=lambda _context, _option, port: _shared_port(port),
    help="Where the Envoys shall listen for all models, which are called by host there: <service>.<namespace>. 0: "
    "nowhere.",
)
@click.option(
    "--gateway-service",
    type=NAMESPACED,
    envvar="BEAMLIT_GATEWAY_SERVICE",
    help="The Service of the Envoys, whose ready endpoints share maxRequestsPerReplica. Default: proxyService of the "
    "configuration; without either, each Envoy lets all of it pass.",
)
@click.option(
    "--checks-shared-by",
    type=click.IntRange(1, 1000),
    default=4,
    show_default=True,
    help="So many Envoys together check a replica as often as the kubelet does.",
)
@click.option(
    "--connections-per-model",
    type=click.IntRange(min=1),
    default=10_000,
    show_default=True,
    help="How many connections clients of one model may have at each Envoy: others have room in --max-connections.",
)
@click.option(
    "--installation",
    type=INSTALLATION,
    envvar="BEAMLIT_INSTALLATION",
    show_default="made of the cluster, the Service of the Envoys and the namespaces",
    help="The name by which this gateway knows its own requests when they come back; no two gateways alike.",
)
@ACCESS_LOG
@NODE_TOKEN_FILE
@REMOTE_CHECKS
@LOG_LEVEL
@LOG_FORMAT
@timed
def xds_server(namespaces: str | None, controller_class: str | None, **options: object) -> None:
    """Serve the routes of a cluster's ModelDeployments to Envoys, over xDS (delta and state of the world).

    Clients are known by their certificates; without --tls-cert only programs of this host may join.

    Any number of replicas may run: all serve the same bytes. An Envoy may join any of them at any time.

    \b
    Examples:
      beamlit xds-server --tls-cert tls/tls.crt --tls-key tls/tls.key --client-ca tls/ca.crt
      beamlit xds-server --kubeconfig ~/.kube/config --xds-address 127.0.0.1:18000 --admin-address 127.0.0.1:19000
      grpcurl -plaintext localhost:18000 list

    \b
    Exit codes: 0 stopped by SIGINT or SIGTERM; 1 could not start (the message says why); 2 wrong usage.
    """
    # gRPC's core writes to standard error by itself; what matters is logged and said here.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from controller.programs.xds_server import XdsOptions, XdsServerTls, serve  # noqa: PLC0415

    names = {"certificate": "tls_cert", "key": "tls_key", "client_ca": "client_ca"}
    files = {field: options.pop(name) for field, name in names.items()}
    fields = {"token_address": "token_address", "token_audience": "token_audience", "refused": "refused_clients"}
    known_by = {field: options.pop(name) for field, name in fields.items()}
    more = {"clients": options.pop("clients"), "insecure": options.pop("insecure_xds")}
    if any(files.values()) and not all(files.values()):
        raise click.UsageError("--tls-cert, --tls-key and --client-ca are given together, or none of them.")
    check_no_tls_at_a_socket("--tls-cert", options["xds_address"], files["certificate"])  # type: ignore[arg-type]
    if more["clients"] and not all(files.values()):
        raise click.UsageError("--client is for --tls-cert, --tls-key and --client-ca.")
    for field in ("token_address", "refused"):
        if known_by[field] and not all(files.values()):
            raise click.UsageError(f"--{fields[field].replace('_', '-')} is for --tls-cert, --tls-key and --client-ca.")
    given = {"namespaces": namespaces, "controller_class": controller_class}
    overrides = _options_set(given, tuple(given))
    serve(XdsOptions(overrides=overrides, tls=XdsServerTls(**files, **known_by, **more), **options))  # type: ignore[arg-type]


def _shared_port(port: int) -> int | None:
    """Return the port of all models, None for 0. Raises BadParameter for one that a single model may be given."""
    from controller.programs.xds_server import check_shared_port  # noqa: PLC0415

    try:
        return check_shared_port(port) if port else None
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _options_set(options: Mapping[str, object], names: tuple[str, ...]) -> Mapping[str, object]:
    """Pick those of the named options that were set, on the command line or by an environment variable."""
    return {name: options[name] for name in names if options[name] is not None}
