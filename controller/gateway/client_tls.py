"""How a client of an xDS server proves who it is, and knows that server: an Envoy, by its bootstrap; the controller."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import yaml

_CERTIFICATE, _AUTHORITIES = "xds_certificate", "xds_authorities"
_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"


@dataclass(frozen=True, slots=True)
class ClientTls:
    """The files (PEM) of a client, and the name that the certificate of the server must have.

    `server_name` is a DNS name, an IP address or a URI; empty: the host that is asked for.
    """

    ca: Path
    certificate: Path
    key: Path
    server_name: str = ""

    def context(self) -> ssl.SSLContext:
        """Read the files for one connection, so that the next one has what was renewed. Raises OSError."""
        context = ssl.create_default_context(cafile=str(self.ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        # A key with a passphrase is refused, instead of a question on the terminal.
        context.load_cert_chain(self.certificate, self.key, password=lambda: "")
        return context


def transport_socket(tls: ClientTls, host: str, sds: Path | None) -> dict[str, Any]:
    """Build the TLS of Envoy's cluster for the xDS server at `host`.

    `sds` is the folder of the files that `sds_files` names: by them Envoy follows the certificates, and uses what is
    renewed for its next connection. Without it Envoy reads them when it starts, and never again.
    """
    common: dict[str, Any] = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "alpn_protocols": ["h2"],
    }
    if sds is None:
        common["tls_certificates"] = [_certificate(tls)]
        common["validation_context"] = _authorities(tls, host)
    else:
        common["tls_certificate_sds_secret_configs"] = [_followed(sds, _CERTIFICATE)]
        common["validation_context_sds_secret_config"] = _followed(sds, _AUTHORITIES)
    context: dict[str, Any] = {"@type": f"{_TLS}.UpstreamTlsContext", "common_tls_context": common}
    if _kind_of(name := tls.server_name or host) == "DNS":
        context["sni"] = name
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def sds_files(tls: ClientTls, host: str) -> Mapping[str, str]:
    """Render the files through which Envoy follows the certificates, by their names in the folder `sds`."""
    secrets: dict[str, dict[str, Any]] = {
        # Whatever is renamed in the folder counts: the kubelet, cert-manager and `beamlit certs` all renew so.
        _CERTIFICATE: {"tls_certificate": {**_certificate(tls), "watched_directory": _folder(tls.certificate)}},
        _AUTHORITIES: {"validation_context": {**_authorities(tls, host), "watched_directory": _folder(tls.ca)}},
    }
    return {
        _file(name): yaml.safe_dump(
            {"resources": [{"@type": f"{_TLS}.Secret", "name": name, **secret}]}, sort_keys=False
        )
        for name, secret in secrets.items()
    }


def _followed(sds: Path, name: str) -> dict[str, Any]:
    source = {"path": str((sds / _file(name)).absolute())}
    return {"name": name, "sds_config": {"resource_api_version": "V3", "path_config_source": source}}


def _certificate(tls: ClientTls) -> dict[str, Any]:
    return {
        "certificate_chain": {"filename": str(tls.certificate.absolute())},
        "private_key": {"filename": str(tls.key.absolute())},
    }


def _authorities(tls: ClientTls, host: str) -> dict[str, Any]:
    name = tls.server_name or host
    return {
        "trusted_ca": {"filename": str(tls.ca.absolute())},
        "match_typed_subject_alt_names": [{"san_type": _kind_of(name), "matcher": {"exact": name}}],
    }


def _folder(file: Path) -> dict[str, str]:
    return {"path": str(file.absolute().parent)}


def _file(name: str) -> str:
    return f"{name}.yaml"


def _kind_of(name: str) -> str:
    """Return which kind of subject alternative name it is, in Envoy's words."""
    if "://" in name:
        return "URI"
    try:
        ip_address(name)
    except ValueError:
        return "DNS"
    return "IP_ADDRESS"
