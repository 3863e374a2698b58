"""The xDS server as a program in the process of a test: its options, but for those that a test is about."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from controller.api.timing import REAL
from controller.gateway.bootstrap import HostPort
from controller.programs.xds_server import XdsOptions, XdsServerTls

ANYWHERE = HostPort("127.0.0.1", 0)


def kubeconfig_of_nobody(folder: Path) -> Path:
    """The kubeconfig of an API server that is not there."""
    file = folder / "kubeconfig"
    cluster, context = {"server": "http://127.0.0.1:1"}, {"cluster": "c", "user": "u"}
    file.write_text(
        yaml.safe_dump(
            {
                "clusters": [{"name": "c", "cluster": cluster}],
                "users": [{"name": "u", "user": {"token": "t"}}],
                "contexts": [{"name": "x", "context": context}],
                "current-context": "x",
            }
        )
    )
    return file


def xds_options(folder: Path, **changes: Any) -> XdsOptions:
    """The options of a server without TLS at any port, of an API server that is not there; `changes` are fields."""
    return replace(
        XdsOptions(
            config=None,
            overrides={},
            kubeconfig=kubeconfig_of_nobody(folder),
            context=None,
            xds_address=ANYWHERE,
            admin_address=ANYWHERE,
            reports_address=ANYWHERE,
            tls=XdsServerTls(),
            gateway_address="127.0.0.1",
            gateway_port=None,
            gateway_service=None,
            checks_shared_by=4,
            connections_per_model=10_000,
            installation=None,
            access_log="off",
            node_token_file=None,
            remote_checks=False,
            log_level="error",
            log_format="text",
            timing=REAL,
        ),
        **changes,
    )
