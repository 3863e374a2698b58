"""`beamlit certs`: an authority, and the certificates by which our programs know each other, as files in a folder.

::

    DIR/ca/ca.crt, ca.key                       the authority that signs
    DIR/ca/next.crt, next.key                   the one that signs from the next run on, once there is one
    DIR/ca/old-SERIAL.crt                       those that signed before
    DIR/NAME/ca.crt, tls.crt, tls.key           what one program is given, named as in a Secret of cert-manager

Every `ca.crt` that a program is given has all of these authorities, so what one of them signed is accepted everywhere
while another takes over. Keys are made anew with each run, and leave the folder of their program only in your hands.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from xds_server.stream.identity import TRUST_DOMAIN, ClientGrant

SERVER = "xds-server"
EARLIER = timedelta(hours=1)
"""Certificates hold from so long before they are made: clocks differ."""


class CertificatesError(Exception):
    """The folder cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long certificates hold, and authorities; none holds longer than the one that signed it."""

    certificate: timedelta = timedelta(days=90)
    authority: timedelta = timedelta(days=1825)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whom to make certificates for: the server by its names (DNS names, IP addresses), and clients by their grants.

    `new_authority` makes another authority, which signs from the next run on, unless that one has `wait`: then the one
    before goes on signing.
    """

    server_names: tuple[str, ...]
    grants: tuple[ClientGrant, ...]
    lifetimes: Lifetimes = field(default_factory=Lifetimes)
    new_authority: bool = False
    wait: bool = False

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders of the programs."""
        return (SERVER, *map(folder_of, self.grants))

    def names_of(self, folder: str) -> x509.SubjectAlternativeName:
        """Return the names in the certificate of one of them."""
        if folder == SERVER:
            of_server = map(_general_name, self.server_names)
            return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"{TRUST_DOMAIN}{SERVER}"), *of_server])
        grant = next(one for one in self.grants if folder_of(one) == folder)
        return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"{TRUST_DOMAIN}{grant}")])


def folder_of(grant: ClientGrant) -> str:
    """Name the folder of a client: its grant, which may have slashes."""
    return str(grant).replace("/", "-")


@dataclass(frozen=True, slots=True)
class Written:
    """One thing that was done: the folder of a program or of the authority, and what was done there."""

    folder: Path
    what: str


@dataclass(frozen=True, slots=True)
class _Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def write_certificates(folder: Path, wanted: Wanted, now: datetime) -> tuple[Written, ...]:
    """Write every certificate anew, the authority only if there is none. Raises CertificatesError."""
    try:
        done, authority, known = _authorities(folder / "ca", wanted, now)
        bundle = b"".join(map(_pem, known))
        until = min(now + wanted.lifetimes.certificate, authority.certificate.not_valid_after_utc)
        for name in wanted.folders:
            purpose = ExtendedKeyUsageOID.SERVER_AUTH if name == SERVER else ExtendedKeyUsageOID.CLIENT_AUTH
            leaf = _Leaf(wanted.names_of(name), purpose, now, until)
            done.append(_give(folder / name, leaf, authority, bundle))
    except OSError as error:
        raise CertificatesError(f"{error.filename or folder}: {error.strerror or error}") from error
    except ValueError as error:
        raise CertificatesError(f"{folder}: {error}") from error
    return tuple(done)


def _authorities(
    folder: Path, wanted: Wanted, now: datetime
) -> tuple[list[Written], _Authority, tuple[x509.Certificate, ...]]:
    """Return what was done, the authority that signs, and all that are believed. Those that are over are removed."""
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.mkdir(exist_ok=True, mode=0o700)
    done: list[Written] = []
    if not (folder / "ca.crt").exists():
        _store(folder, "ca", _new_authority(now, wanted.lifetimes.authority))
        done.append(Written(folder, "a new authority"))
    elif (folder / "next.crt").exists() and not wanted.wait:
        # The programs have had it since the run before, so they believe what it signs.
        before = _load(folder, "ca").certificate
        _write(folder / f"old-{before.serial_number:x}.crt", _pem(before))
        for ending in ("key", "crt"):
            (folder / f"next.{ending}").replace(folder / f"ca.{ending}")
        done.append(Written(folder, "the next authority signs from now on; the one before is believed until it ends"))
    authority = _load(folder, "ca")
    ends = authority.certificate.not_valid_after_utc
    if ends <= now:
        raise CertificatesError(f"{folder / 'ca.crt'}: ended on {ends:%Y-%m-%d}; without {folder} another one is made")
    if wanted.new_authority:
        _store(folder, "next", _new_authority(now, wanted.lifetimes.authority))
        done.append(Written(folder, "another authority: it signs from the next run on, once every program has ca.crt"))
    elif ends < now + wanted.lifetimes.certificate:
        done.append(Written(folder, f"the authority ends on {ends:%Y-%m-%d}: run with --new-ca"))
    known = [authority.certificate]
    for path in sorted((*folder.glob("next.crt"), *folder.glob("old-*.crt"))):
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        if certificate.not_valid_after_utc <= now:
            path.unlink()
        else:
            known.append(certificate)
    return done, authority, tuple(known)


def _new_authority(now: datetime, lifetime: timedelta) -> _Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    # Two authorities of one name would be taken for each other.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"beamlit {now:%Y-%m-%d} {secrets.token_hex(4)}")])
    usage = x509.KeyUsage(**_usage("key_cert_sign", "crl_sign"))
    certificate = (
        _builder(name, name, key, now, now + lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    return _Authority(certificate, key)


@dataclass(frozen=True, slots=True)
class _Leaf:
    names: x509.SubjectAlternativeName
    purpose: x509.ObjectIdentifier
    since: datetime
    until: datetime


def _give(folder: Path, leaf: _Leaf, authority: _Authority, bundle: bytes) -> Written:
    """Make a key and a certificate, and write them beside the authorities. A reader finds each file whole."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = authority.certificate
    certificate = (
        _builder(x509.Name([]), issuer.subject, key, leaf.since, leaf.until)
        .add_extension(leaf.names, critical=True)  # as RFC 5280 has it where there is no subject
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**_usage("digital_signature")), critical=True)
        .add_extension(x509.ExtendedKeyUsage([leaf.purpose]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    folder.mkdir(exist_ok=True, mode=0o700)
    _write(folder / "ca.crt", bundle)
    _write(folder / "tls.key", _private(key))
    _write(folder / "tls.crt", _pem(certificate))
    names = ", ".join(str(one.value) for one in leaf.names)
    return Written(folder, f"{names}, until {leaf.until:%Y-%m-%d}")


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, since: datetime, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(since - EARLIER)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


_USAGES = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")


def _usage(*may: str) -> dict[str, bool]:
    every = (*_USAGES, "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return {name: name in may for name in every}


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _load(folder: Path, name: str) -> _Authority:
    certificate = x509.load_pem_x509_certificate((folder / f"{name}.crt").read_bytes())
    key = serialization.load_pem_private_key((folder / f"{name}.key").read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise CertificatesError(f"{folder / name}.key: is not the key of {name}.crt")
    return _Authority(certificate, key)


def _store(folder: Path, name: str, authority: _Authority) -> None:
    _write(folder / f"{name}.key", _private(authority.key))
    _write(folder / f"{name}.crt", _pem(authority.certificate))


def _write(path: Path, content: bytes) -> None:
    """Replace a file as a whole; nobody else may read it."""
    fresh = path.with_name(f".{path.name}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        fresh.touch(mode=0o600)
        fresh.write_bytes(content)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def parse_grants(texts: Iterable[str]) -> tuple[ClientGrant, ...]:
    """Parse what clients may be. Raises CertificatesError."""
    try:
        return tuple(map(ClientGrant.parse, texts))
    except ValueError as error:
        raise CertificatesError(f"--client: {error}") from error
