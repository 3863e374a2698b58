"""`beamlit certs --secrets`: the certificates of `certificates`, kept as Secrets of a namespace.

::

    PREFIX-ca                  what the folder `ca` has: no pod needs to mount it
    PREFIX-xds-server-tls      ca.crt, tls.crt, tls.key of one program, for its pods to mount
    PREFIX-gateway-tls ...

The authority is written first, and only if nobody has written it meanwhile; then what it signed. Whatever is between
two of these writes when the program ends is found by the next look, and made good: `due` knows of what is there alone.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import logging
import re
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any

import click
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from prometheus_client import Gauge

from controller.api.registry import SECRET
from controller.api.timing import Timing
from controller.gateway.bootstrap import HostPort
from controller.programs.admin import Admin, process_registry
from controller.programs.certificates import EARLIER, CertificatesError, Wanted, Written, write_certificates
from controller.programs.lifetime import CannotStartError, log_to_stderr, run_until_signal, start_tasks
from controller.store.kube.client import KubeClient
from controller.store.kube.objects import KubeObjects
from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import (
    ConfigurationError,
    ConflictError,
    NotFoundError,
    ObjectClient,
    Precondition,
    StoreError,
)

logger = logging.getLogger(__name__)

CA = "ca"
SETTLED = timedelta(days=1)
"""How long everybody has had what was renewed before anything is built on that: the kubelet needs two minutes."""
_PROGRAM_FILES = ("ca.crt", "tls.crt", "tls.key")
_CA_FILE = re.compile(r"(ca|next)\.(crt|key)|old-[0-9a-f]+\.crt")

Files = Mapping[str, bytes]


class CertificateStep(Enum):
    """What is to be done: nothing; make certificates anew; make the next authority known; have it sign."""

    NOTHING = "nothing"
    RENEW = "renew"
    ANNOUNCE = "announce"
    SWITCH = "switch"


def due(held: Mapping[str, Files], wanted: Wanted, now: datetime) -> CertificateStep:
    """Say what is due, by what is there: files by their folder, `ca` and those of the programs. Pure."""
    try:
        authority = _certificates(held.get(CA, {}).get("ca.crt", b""))[0]
    except ValueError:
        return CertificateStep.RENEW
    if authority.not_valid_after_utc <= now:
        return CertificateStep.RENEW
    known = _known(held[CA], now)
    made = [_made(held.get(folder, {}), wanted.names_of(folder), known, now) for folder in wanted.folders]
    if None in made:
        return CertificateStep.RENEW
    if "next.crt" in held[CA]:
        # All have had it since their certificates were made: they came together.
        settled = all(one is not None and one <= now - SETTLED for one in made)
        return CertificateStep.SWITCH if settled else CertificateStep.NOTHING
    if authority.not_valid_after_utc < now + wanted.lifetimes.certificate + 2 * SETTLED:
        return CertificateStep.ANNOUNCE
    return CertificateStep.NOTHING


def _known(ca: Files, now: datetime) -> frozenset[bytes]:
    """Return the fingerprints of all authorities that are believed."""
    found = [one for name, pem in ca.items() if name.endswith(".crt") for one in _certificates(pem)]
    return frozenset(one.fingerprint(hashes.SHA256()) for one in found if one.not_valid_after_utc > now)


def _made(files: Files, names: x509.SubjectAlternativeName, known: frozenset[bytes], now: datetime) -> datetime | None:
    """Return when the certificate of a program was made; None if it has to be made anew."""
    try:
        bundle = _certificates(files["ca.crt"])
        leaf = _certificates(files["tls.crt"])[0]
        key = serialization.load_pem_private_key(files["tls.key"], password=None)
        held = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        issuer = next(one for one in bundle if one.subject == leaf.issuer)
        leaf.verify_directly_issued_by(issuer)
    except (KeyError, ValueError, TypeError, StopIteration, InvalidSignature, x509.ExtensionNotFound):
        return None
    made, ends = leaf.not_valid_before_utc + EARLIER, leaf.not_valid_after_utc
    fits = (
        {one.fingerprint(hashes.SHA256()) for one in bundle} == known
        and key.public_key() == leaf.public_key()
        and held == names
        and now < ends - (ends - made) / 3
    )
    return made if fits else None


def _certificates(pem: bytes) -> list[x509.Certificate]:
    """Raises ValueError if there is none."""
    return x509.load_pem_x509_certificates(pem)


@dataclass(frozen=True, slots=True)
class SecretsOptions:
    """What the command line says: the namespace of the Secrets and what their names begin with, and what they hold.

    With `keep`, only what is due is made, again and again until a signal; `admin_address` serves health and metrics.
    """

    place: tuple[str, str]
    wanted: Wanted
    keep: bool
    admin_address: HostPort
    kubeconfig: Path | None
    context: str | None
    log_level: str
    log_format: str
    timing: Timing


class CertificateSecrets:
    """The Secrets of one place."""

    def __init__(self, objects: ObjectClient, place: tuple[str, str], wanted: Wanted) -> None:
        self._objects = objects
        self._namespace, self._prefix = place
        self._wanted = wanted

    async def make_due(self, now: datetime) -> tuple[tuple[Written, ...], Mapping[str, datetime]]:
        """Do what is due; return what was done, and when each certificate ends.

        Raises CertificatesError and StoreError.
        """
        stored = await self._read()
        held: dict[str, Files] = {folder: _files_of(one) for folder, one in stored.items()}
        done: tuple[Written, ...] = ()
        match due(held, self._wanted, now):
            case CertificateStep.RENEW:
                done, held = await self._write(stored, replace(self._wanted, wait=True), now)
            case CertificateStep.ANNOUNCE:
                done, held = await self._write(stored, replace(self._wanted, new_authority=True), now)
            case CertificateStep.SWITCH:
                done, held = await self._write(stored, self._wanted, now)
        return done, {self._name(folder): _end_of(files) for folder, files in held.items()}

    async def make_all(self, now: datetime) -> tuple[Written, ...]:
        """Make all of them anew, as in a folder. Raises CertificatesError and StoreError."""
        done, _ = await self._write(await self._read(), self._wanted, now)
        return done

    async def _read(self) -> dict[str, StoredObject | None]:
        return {folder: await self._find(folder) for folder in (CA, *self._wanted.folders)}

    async def _find(self, folder: str) -> StoredObject | None:
        try:
            return await self._objects.read(self._ref(folder))
        except NotFoundError:
            return None

    async def _write(
        self, stored: Mapping[str, StoredObject | None], wanted: Wanted, now: datetime
    ) -> tuple[tuple[Written, ...], dict[str, Files]]:
        with tempfile.TemporaryDirectory(prefix="beamlit-certs-") as name:
            folder = Path(name)
            ca = _believable(_files_of(stored[CA]), now)
            if ca:
                (folder / CA).mkdir(mode=0o700)
                for file, content in ca.items():
                    (folder / CA / file).write_bytes(content)
            done = write_certificates(folder, wanted, now)
            made = {one: _files_in(folder / one) for one in (CA, *wanted.folders)}
        for one, files in made.items():
            await self._store(one, stored[one], files)
        return tuple(replace(one, folder=Path(self._name(one.folder.name))) for one in done), dict(made)

    async def _store(self, folder: str, stored: StoredObject | None, files: Files) -> None:
        data: dict[str, Any] = {name: base64.b64encode(content).decode() for name, content in files.items()}
        if stored is None:
            metadata = {"namespace": self._namespace, "name": self._name(folder)}
            secret = {"apiVersion": "v1", "kind": SECRET.kind, "metadata": metadata, "type": "Opaque", "data": data}
            await self._objects.create(secret)
            return
        data = {**dict.fromkeys(stored.raw.get("data") or {}), **data}
        await self._objects.patch(stored.ref, {"data": data}, Precondition.unchanged(stored))

    def _ref(self, folder: str) -> ObjectRef:
        return ObjectRef(SECRET.kind, self._namespace, self._name(folder))

    def _name(self, folder: str) -> str:
        return f"{self._prefix}-{CA}" if folder == CA else f"{self._prefix}-{folder}-tls"


def _files_of(stored: StoredObject | None) -> dict[str, bytes]:
    """Read the files in a Secret; what is no file of ours, or not readable, is not there."""
    files: dict[str, bytes] = {}
    for name, content in ((stored.raw.get("data") if stored else None) or {}).items():
        if name in _PROGRAM_FILES or _CA_FILE.fullmatch(name):
            with contextlib.suppress(binascii.Error, ValueError):
                files[name] = base64.b64decode(content, validate=True)
    return files


def _believable(ca: Files, now: datetime) -> Files:
    """Leave out an authority that has ended, or is half there: another one takes its place."""
    try:
        ended = _certificates(ca["ca.crt"])[0].not_valid_after_utc <= now
    except (KeyError, ValueError):
        return {}
    return {} if ended or "ca.key" not in ca else ca


def _files_in(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def _end_of(files: Files) -> datetime:
    (pem,) = [files[name] for name in ("tls.crt", "ca.crt") if name in files][:1]
    return _certificates(pem)[0].not_valid_after_utc


def serve(options: SecretsOptions) -> tuple[Written, ...]:
    """Make them all, or keep them until a signal; return what was made. Exits with 1 when it cannot.

    Raises CertificatesError and StoreError, if it is not to keep them.
    """
    if options.keep:
        log_to_stderr(options.log_level, options.log_format)
    try:
        if options.keep:
            asyncio.run(run_until_signal(_kept(options)))
            return ()
        return asyncio.run(_once(options))
    except (CannotStartError, ConfigurationError, CertificatesError, StoreError) as error:
        raise click.ClickException(str(error)) from error


async def _once(options: SecretsOptions) -> tuple[Written, ...]:
    timing = options.timing
    async with KubeClient.from_environment(options.kubeconfig, options.context, timing.kube) as client:
        return await CertificateSecrets(KubeObjects(client), options.place, options.wanted).make_all(datetime.now(UTC))


@contextlib.asynccontextmanager
async def _kept(options: SecretsOptions) -> AsyncIterator[tuple[asyncio.Task[None], ...]]:
    registry, timing = process_registry("certs"), options.timing
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            KubeClient.from_environment(options.kubeconfig, options.context, timing.kube)
        )
        ends = Gauge(
            "beamlit_kept_certificate_expiry_timestamp_seconds",
            "When the certificate in a Secret ends, in seconds since the epoch.",
            ["secret"],
            registry=registry,
        )
        keeper = _Keeper(CertificateSecrets(KubeObjects(client), options.place, options.wanted), ends)
        admin = Admin(not_ready=lambda: keeper.problem, metrics=registry, shutdown=timing.shutdown)
        port = await stack.enter_async_context(admin.served("--admin-address", options.admin_address))
        tasks = start_tasks(stack, keeper.run(timing))
        logger.info("keeping certificates", extra={"admin": HostPort(options.admin_address.host, port)})
        yield tasks


class _Keeper:
    """Looks again and again whether something is due. `problem` is why the last look failed."""

    def __init__(self, certificates: CertificateSecrets, ends: Gauge) -> None:
        self._certificates = certificates
        self._ends = ends
        self.problem: str | None = "nothing was looked at yet"

    async def run(self, timing: Timing) -> None:
        """Look, until cancelled."""
        while True:
            try:
                done, ends = await self._certificates.make_due(datetime.now(UTC))
            except ConflictError:
                # Somebody made them at the same time.
                await asyncio.sleep(timing.certificates_tried_again)
                continue
            except (CertificatesError, StoreError) as error:
                if self.problem != str(error):
                    logger.error("certificates not kept", extra={"because": str(error)})
                self.problem = str(error)
                await asyncio.sleep(timing.certificates_tried_again)
                continue
            self.problem = None
            for one in done:
                logger.info("certificate made", extra={"secret": one.folder, "what": one.what})
            for name, end in ends.items():
                self._ends.labels(secret=name).set(end.timestamp())
            await asyncio.sleep(timing.certificates_looked_at_every)
