"""Certificates of a test: those that `beamlit certs` makes, and hostile ones that openssl makes."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import grpc

from controller.gateway.client_tls import ClientTls
from controller.programs.certificates import Lifetimes, Wanted, parse_grants, write_certificates
from xds_server.stream.callers import Callers, Tokens
from xds_server.stream.identity import ClientTable
from xds_server.stream.tls import ServerFiles, ServerTls

SERVER_NAMES = ("localhost", "127.0.0.1", "beamlit-xds.beamlit-system.svc")
GRANTS = ("gateway", "controller", "reader")


@dataclass(frozen=True)
class Certificates:
    """The certificates in a folder. `make` writes them, `renew` writes them anew."""

    folder: Path
    grants: tuple[str, ...] = GRANTS
    server_names: tuple[str, ...] = SERVER_NAMES
    lifetimes: Lifetimes = field(default_factory=Lifetimes)

    @classmethod
    def make(cls, folder: Path, *grants: str, server_names: tuple[str, ...] = ()) -> Certificates:
        made = cls(folder, (*GRANTS, *grants), (*SERVER_NAMES, *server_names))
        made.renew()
        return made

    def renew(self, *, new_authority: bool = False) -> None:
        wanted = Wanted(self.server_names, parse_grants(self.grants), self.lifetimes, new_authority)
        write_certificates(self.folder, wanted, datetime.now(UTC))

    def files(self, name: str) -> tuple[Path, Path, Path]:
        """Certificate, key and authorities of one program."""
        folder = self.folder / name.replace("/", "-")
        return folder / "tls.crt", folder / "tls.key", folder / "ca.crt"

    def server(
        self, clients: ClientTable | None = None, tokens: Tokens | None = None, token_address: str = ""
    ) -> ServerTls:
        callers = Callers(clients or ClientTable(), tokens)
        return ServerTls(ServerFiles(*self.files("xds-server")), callers, token_address)

    def client(self, name: str, server_name: str = "localhost") -> ClientTls:
        certificate, key, ca = self.files(name)
        return ClientTls(ca, certificate, key, server_name)

    def channel_credentials(self, name: str | None, trusting: Certificates | None = None) -> grpc.ChannelCredentials:
        """What a gRPC client joins with; without a name it has no certificate. `trusting` has its authorities."""
        ca = ((trusting or self).folder / "xds-server" / "ca.crt").read_bytes()
        if name is None:
            return grpc.ssl_channel_credentials(ca)
        certificate, key, _ = (path.read_bytes() for path in self.files(name))
        return grpc.ssl_channel_credentials(ca, key, certificate)

    def signed_by_openssl(self, name: str, *names: str, usage: str = "clientAuth", days: str = "1") -> None:
        """Have openssl make a certificate of these names, such as `URI:spiffe://beamlit/gateway`, and its folder."""
        folder = self.folder / name
        folder.mkdir()
        (folder / "ca.crt").write_bytes((self.folder / "gateway" / "ca.crt").read_bytes())
        extensions = [f"subjectAltName={','.join(names)}"] if names else []
        (folder / "ext").write_text("\n".join([*extensions, f"extendedKeyUsage={usage}"]))
        key, request = folder / "tls.key", folder / "request"
        _openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=gateway",
                 "-keyout", key, "-out", request)  # fmt: skip
        ca = self.folder / "ca"
        dates = ("-days", "-1" if days == "over" else days)
        _openssl("x509", "-req", "-in", request, "-CA", ca / "ca.crt", "-CAkey", ca / "ca.key", "-CAcreateserial",
                 "-extfile", folder / "ext", "-out", folder / "tls.crt", *dates)  # fmt: skip


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
