"""TLS to a remote backend or a token endpoint, always verified."""

from __future__ import annotations

import ipaddress

from envoy_data_plane.envoy.config.core.v3 import DataSource, TransportSocket
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CertificateValidationContext,
    CommonTlsContext,
    CommonTlsContextCombinedCertificateValidationContext,
    SdsSecretConfig,
    SubjectAltNameMatcher,
    SubjectAltNameMatcherSanType,
    TlsParameters,
    TlsParametersTlsProtocol,
    UpstreamTlsContext,
)
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher

from xds_server.resources.packing import ADS, packed

# Where Debian, Ubuntu and Envoy's own images keep the authorities that their system trusts.
SYSTEM_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"

_VERSIONS = TlsParameters(
    tls_minimum_protocol_version=TlsParametersTlsProtocol.TLSv1_2,
    tls_maximum_protocol_version=TlsParametersTlsProtocol.TLSv1_3,
)


def over_sds(name: str) -> SdsSecretConfig:
    """Refer to a secret on the same stream as everything else."""
    return SdsSecretConfig(name=name, sds_config=ADS)


def upstream_tls(
    server_name: str, system_authorities: str, authorities: str | None = None, certificate: str | None = None
) -> TransportSocket:
    """Build the transport socket that speaks TLS with whoever proves to be `server_name`.

    The certificate leads to one of the secret `authorities`, or else to one in the file `system_authorities` of the
    host of Envoy. `certificate` is the secret with the one that we show, if any.
    """
    is_this_server = CertificateValidationContext(match_typed_subject_alt_names=[_for(server_name)])
    given = authorities and CommonTlsContextCombinedCertificateValidationContext(
        default_validation_context=is_this_server, validation_context_sds_secret_config=over_sds(authorities)
    )
    of_the_system = CertificateValidationContext(
        match_typed_subject_alt_names=[_for(server_name)], trusted_ca=DataSource(filename=system_authorities)
    )
    context = UpstreamTlsContext(
        # RFC 6066, section 3: an address is not sent.
        sni="" if _address(server_name) else server_name,
        common_tls_context=CommonTlsContext(
            tls_params=_VERSIONS,
            combined_validation_context=given or None,
            validation_context=None if given else of_the_system,
            tls_certificate_sds_secret_configs=[over_sds(certificate)] if certificate else [],
        ),
    )
    return TransportSocket(name="envoy.transport_sockets.tls", typed_config=packed(context))


def _for(server_name: str) -> SubjectAltNameMatcher:
    address = _address(server_name)
    kind = SubjectAltNameMatcherSanType.IP_ADDRESS if address else SubjectAltNameMatcherSanType.DNS
    return SubjectAltNameMatcher(san_type=kind, matcher=StringMatcher(exact=address or server_name))


def _address(name: str) -> str | None:
    """Write an address in the usual form, None for a name: Envoy compares texts, and a certificate has that one."""
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return f"::ffff:{mapped}" if mapped else str(address)
