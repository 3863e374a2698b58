"""How a client of an xDS server proves who it is, and knows that server: an Envoy, by its bootstrap; the controller."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import yaml

_CERTIFICATE, _AUTHORITIES, _TOKEN = "xds_certificate", "xds_authorities", "xds_token"
_EXTENSIONS = "type.googleapis.com/envoy.extensions"
_TLS = f"{_EXTENSIONS}.transport_sockets.tls.v3"


@dataclass(frozen=True, slots=True)
class ClientTls:
    """The files of a client, and the name that the certificate of the server must have.

    It shows a `certificate` with its `key` (PEM), or the `token` of a ServiceAccount. `server_name` is a DNS name, an
    IP address or a URI; empty: the host that is asked for.
    """

    ca: Path
    certificate: Path | None = None
    key: Path | None = None
    server_name: str = ""
    token: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Read the files for one connection, so that the next one has what was renewed. Raises OSError."""
        context = ssl.create_default_context(cafile=str(self.ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if self.certificate:
            # A key with a passphrase is refused, instead of a question on the terminal.
            context.load_cert_chain(self.certificate, self.key, password=lambda: "")
        return context

    def headers(self) -> Mapping[str, str]:
        """Read what a request of HTTP carries besides: the token, which the kubelet renews. Raises OSError."""
        return {"Authorization": f"Bearer {self.token.read_text().strip()}"} if self.token else {}


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
        common["validation_context"] = _authorities(tls, host)
    else:
        common["validation_context_sds_secret_config"] = _followed(sds, _AUTHORITIES)
    if tls.certificate and tls.key:
        if sds is None:
            common["tls_certificates"] = [_certificate(tls.certificate, tls.key)]
        else:
            common["tls_certificate_sds_secret_configs"] = [_followed(sds, _CERTIFICATE)]
    context: dict[str, Any] = {"@type": f"{_TLS}.UpstreamTlsContext", "common_tls_context": common}
    if _kind_of(name := tls.server_name or host) == "DNS":
        context["sni"] = name
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def token_filters(sds: Path) -> list[dict[str, Any]]:
    """Build what has Envoy send the token of its ServiceAccount with each stream to the xDS server.

    They are upstream filters of its cluster (Envoy, "Upstream HTTP filters"): Envoy's own client of gRPC has no
    credentials of a call, and Google's, which has, knows no retries and no TLS files that change.
    """
    credential = {
        "name": "envoy.http.injected_credentials.generic",
        "typed_config": {
            "@type": f"{_EXTENSIONS}.http.injected_credentials.generic.v3.Generic",
            "credential": _followed(sds, _TOKEN),
            "header_value_prefix": "Bearer ",
        },
    }
    injector = {
        "@type": f"{_EXTENSIONS}.filters.http.credential_injector.v3.CredentialInjector",
        "overwrite": True,
        "credential": credential,
    }
    codec = {"@type": f"{_EXTENSIONS}.filters.http.upstream_codec.v3.UpstreamCodec"}
    return [
        {"name": "envoy.filters.http.credential_injector", "typed_config": injector},
        {"name": "envoy.filters.http.upstream_codec", "typed_config": codec},
    ]


def sds_files(tls: ClientTls, host: str) -> Mapping[str, str]:
    """Render the files through which Envoy follows the certificates, by their names in the folder `sds`."""
    secrets: dict[str, dict[str, Any]] = {}
    # Whatever is renamed in the folder counts: the kubelet, cert-manager and `beamlit certs` all renew so.
    if tls.certificate and tls.key:
        certificate = _certificate(tls.certificate, tls.key)
        secrets[_CERTIFICATE] = {"tls_certificate": {**certificate, "watched_directory": _folder(tls.certificate)}}
    secrets[_AUTHORITIES] = {"validation_context": {**_authorities(tls, host), "watched_directory": _folder(tls.ca)}}
    if tls.token:
        source = {"filename": str(tls.token.absolute()), "watched_directory": _folder(tls.token)}
        secrets[_TOKEN] = {"generic_secret": {"secret": source}}
    return {
        _file(name): yaml.safe_dump(
            {"resources": [{"@type": f"{_TLS}.Secret", "name": name, **secret}]}, sort_keys=False
        )
        for name, secret in secrets.items()
    }


def _followed(sds: Path, name: str) -> dict[str, Any]:
    source = {"path": str((sds / _file(name)).absolute())}
    return {"name": name, "sds_config": {"resource_api_version": "V3", "path_config_source": source}}


def _certificate(certificate: Path, key: Path) -> dict[str, Any]:
    return {
        "certificate_chain": {"filename": str(certificate.absolute())},
        "private_key": {"filename": str(key.absolute())},
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
