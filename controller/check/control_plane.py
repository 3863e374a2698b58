"""The programs as they run: who leads, whether xDS servers and gateway are ready, and which Envoys joined."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

from controller.api.kubernetes.endpoints import Replica, replicas_of
from controller.api.kubernetes.objects import SERVICE_NAME, EndpointSlice
from controller.api.registry import ENDPOINT_SLICE, LEASE, SERVICE, Program
from controller.api.schema.errors import InvalidObjectError
from controller.api.schema.values import parse
from controller.check.certificates import Shown, certificate_shown
from controller.check.cluster import ClusterReader, Listed, Unread, right_to
from controller.check.installation import ENVOY, Installation, Named, RunningProgram
from controller.check.pods import TOPICS, admin_port, pages_of_pods, pods_ready, sample_values
from controller.check.report import Finding, Topic, TopicFindings
from controller.store.lease import lease_record
from controller.store.objects import ObjectRef, StoredObject, parse_micro_time

_MOST_PODS = 20
_CLOCKS_AGREE = timedelta(seconds=3)
_EXPIRES_SOON = timedelta(days=14)


async def check_control_plane(reader: ClusterReader, found: Installation, now: datetime) -> tuple[Finding, ...]:
    """Look at the controller, the xDS servers and the gateway; `now` is the time of the API server."""
    groups = await asyncio.gather(
        _check_controller(reader, found, now),
        _check_xds_servers(reader, found, now),
        _check_gateway(reader, found, now),
    )
    return tuple(one for group in groups for one in group)


async def _check_controller(reader: ClusterReader, found: Installation, now: datetime) -> list[Finding]:
    says = TopicFindings(Topic.CONTROLLER)
    running = found.of(Program.CONTROLLER)
    findings = [one for program in running for one in await pods_ready(reader, program)]
    if any("--no-leader-election" in one.words for one in running):
        return [*findings, says.ok("leader", "it runs without an election")]
    namespace, name = found.lease
    raw = await reader.read(LEASE.path(namespace, name))
    if isinstance(raw, Unread):
        findings.append(_no_lease(found, raw, bool(running)))
        return findings
    return [*findings, *judge_lease(StoredObject(ObjectRef(LEASE.kind, namespace, name), raw), now)]


def _no_lease(found: Installation, unread: Unread, is_installed: bool) -> Finding:
    says = TopicFindings(Topic.CONTROLLER)
    namespace, name = found.lease
    if not unread.is_absent:
        needed = right_to("get", LEASE, namespace) if unread.why == "denied" else unread.words
        return says.unseen("leader", f"who leads is not seen: {needed}")
    if is_installed:
        words = f"no controller was ever elected: there is no Lease {namespace}/{name}"
        return says.failed("leader", words, "look at the log of the controller, and at its rights above")
    words = f"no controller is found: no Deployment runs `beamlit controller`, and there is no Lease {namespace}/{name}"
    if found.unread is not None:
        words = f"{words} ({found.unread.words})"
    remedy = "install it (docs/cluster.md), or say where it is: --namespace, --lease NAMESPACE/NAME"
    return says.failed("installed", words, remedy)


def judge_lease(lease: StoredObject, now: datetime) -> Iterator[Finding]:
    """Say whether somebody leads, by the clock of the API server (`now`), and whether his clock agrees with it."""
    says = TopicFindings(Topic.CONTROLLER)
    record, name = lease_record(lease), f"Lease {lease.ref.namespace}/{lease.ref.name}"
    remedy = "look whether a controller is ready, and at its log"
    if not record.holder or record.renewed_at is None:
        yield says.failed("leader", f"nobody leads: {name} has no holder", remedy)
        return
    written = _renewed_by_the_server(lease) or record.renewed_at
    if is_held(lease, now):
        yield says.ok("leader", f"{record.holder} leads")
    else:
        ago = f"{(now - written).total_seconds():.0f} s ago"
        yield says.failed("leader", f"nobody leads: {record.holder} renewed {name} {ago} for the last time", remedy)
    off = record.renewed_at - written
    if abs(off) > _CLOCKS_AGREE:
        words = f"the clock of the leader {record.holder} is {abs(off).total_seconds():.0f} s "
        words += "ahead of" if off > timedelta(0) else "behind"
        remedy = "set the clock of its node (NTP): overrides end by it"
        yield says.warning("clock", f"{words} that of the API server", remedy)


def is_held(lease: StoredObject, now: datetime) -> bool:
    """Whether somebody holds a Lease, by the clock of the API server: that of its holder may be wrong."""
    record = lease_record(lease)
    renewed = _renewed_by_the_server(lease) or record.renewed_at
    if not record.holder or renewed is None:
        return False
    return now - renewed <= timedelta(seconds=record.seconds or 15) + _CLOCKS_AGREE


def _renewed_by_the_server(lease: StoredObject) -> datetime | None:
    """Say when the API server took the last renewal, by its own clock (`metadata.managedFields`)."""
    entries = lease.metadata.get("managedFields") or ()
    renewals = [one for one in entries if "f:renewTime" in ((one.get("fieldsV1") or {}).get("f:spec") or {})]
    return max((at for one in renewals if (at := parse_micro_time(one.get("time")))), default=None)


async def _check_xds_servers(reader: ClusterReader, found: Installation, now: datetime) -> list[Finding]:
    says = TopicFindings(Topic.XDS)
    running = found.of(Program.XDS_SERVER)
    findings = [one for program in running for one in await pods_ready(reader, program)]
    slices = await _slices(reader, found.xds_service)
    where = "/".join(found.xds_service)
    if isinstance(slices, Unread):
        needed = right_to("list", ENDPOINT_SLICE, found.xds_service[0]) if slices.why == "denied" else slices.words
        findings.append(says.unseen("endpoints", f"the endpoints of the Service {where} are not seen: {needed}"))
        return findings
    replicas = replicas_of(slices, "reports") or replicas_of(slices, "admin")
    ready = [one for one in replicas if one.ready]
    if not replicas:
        words = f"the Service {where} has no endpoint with a port named reports (without TLS: admin)"
        remedy = "start `beamlit xds-server`, or say which Service it is: --xds-service NAMESPACE/NAME"
        findings.append(says.failed("endpoints", words, remedy))
        return findings
    if ready:
        findings.append(says.ok("endpoints", f"{len(ready)} of {len(replicas)} endpoints of {where} are ready"))
    else:
        words = f"none of {len(replicas)} endpoints of {where} is ready"
        findings.append(says.failed("endpoints", words, "look at the log of the xDS server, and at its rights above"))
    findings += await _certificates(reader, running, ready, slices, now)
    return findings


async def _check_gateway(reader: ClusterReader, found: Installation, now: datetime) -> list[Finding]:
    says = TopicFindings(Topic.GATEWAY)
    running = found.of(ENVOY)
    findings = [one for program in running for one in await pods_ready(reader, program)]
    if found.gateway_service is not None:
        findings.append(await _gateway_service(reader, found.gateway_service))
    elif running:
        words = "the controller is not told the Service of the gateway: each Envoy lets all of a limit pass"
        findings.append(says.warning("service", words, "give --gateway-service to the controller and the xDS server"))
    findings += await _envoys_connected(reader, found, running)
    for program in running:
        findings += await _certificate_of_pods(reader, program, now)
    return findings


async def _gateway_service(reader: ClusterReader, service: Named) -> Finding:
    says = TopicFindings(Topic.GATEWAY)
    where = "/".join(service)
    there = await reader.read(SERVICE.path(*service))
    if isinstance(there, Unread):
        if there.is_absent:
            remedy = "install the gateway, or name its Service: --gateway-service NAMESPACE/NAME"
            return says.failed("service", f"there is no Service {where}", remedy)
        needed = right_to("get", SERVICE, service[0]) if there.why == "denied" else there.words
        return says.unseen("service", f"the Service {where} is not seen: {needed}")
    slices = await _slices(reader, service)
    if isinstance(slices, Unread):
        needed = right_to("list", ENDPOINT_SLICE, service[0]) if slices.why == "denied" else slices.words
        return says.unseen("service", f"the endpoints of the Service {where} are not seen: {needed}")
    states = {endpoint.addresses[0]: endpoint.ready for one in slices for endpoint in one.endpoints}
    ready = sum(states.values())
    if not ready:
        words = f"no Envoy of the Service {where} is ready ({len(states)} endpoints)"
        return says.failed("service", words, "look at the pods of the gateway: kubectl describe, kubectl logs")
    return says.ok("service", f"{ready} of {len(states)} Envoys of {where} are ready")


async def _envoys_connected(
    reader: ClusterReader, found: Installation, running: tuple[RunningProgram, ...]
) -> list[Finding]:
    """Count the Envoys that are connected to any xDS server, by what these say of themselves."""
    says = TopicFindings(Topic.GATEWAY)
    connected, unread, pages = 0, None, 0
    for program in found.of(Program.XDS_SERVER):
        for page in await pages_of_pods(reader, program, admin_port(program), "metrics"):
            if isinstance(page, Unread):
                unread = unread or page
            else:
                pages += 1
                connected += int(sum(sample_values(page, "beamlit_xds_streams", 'type="ADS"')))
    if not pages:
        # What the controller heard of the Envoys is in the status of each model: see there.
        if unread is not None:
            return [says.unseen("connected", f"how many Envoys are connected is not seen: {unread.words}")]
        return []
    wanted = sum(one.ready for one in running)
    if connected < max(wanted, 1):
        words = f"{connected} Envoys are connected to the xDS servers, of {max(wanted, 1)} that are ready"
        if unread is not None:
            return [says.unseen("connected", f"{words}; not all xDS servers are seen: {unread.words}")]
        remedy = "look at the log of the Envoys and of the xDS server: docs/cluster.md, Troubleshooting"
        return [says.failed("connected", words, remedy)]
    return [says.ok("connected", f"{connected} Envoys are connected to the xDS servers")]


async def _certificates(
    reader: ClusterReader,
    running: tuple[RunningProgram, ...],
    ready: Iterable[Replica],
    slices: Iterable[EndpointSlice],
    now: datetime,
) -> list[Finding]:
    """Look at the certificates of the xDS servers: as they show them or, where we do not get there, as they say."""
    says = TopicFindings(Topic.XDS)
    if not replicas_of(slices, "reports"):
        return []
    shown = await asyncio.gather(*(certificate_shown(one.address, one.port) for one in list(ready)[:_MOST_PODS]))
    found = [judge_certificate(says, f"{one.address}:{one.port}", one, now) for one in shown if isinstance(one, Shown)]
    if found:
        return found
    for program in running:
        if told := await _certificate_of_pods(reader, program, now):
            return told
    why = next((one for one in shown if isinstance(one, str)), "no endpoint is ready")
    return [says.unseen("certificate", f"the certificates of the xDS servers are not seen from here: {why}")]


async def _certificate_of_pods(reader: ClusterReader, program: RunningProgram, now: datetime) -> list[Finding]:
    """Say until when the certificates hold that the pods of a program have, by their metrics."""
    says = TOPICS[program.program]
    ends: list[float] = []
    for page in await pages_of_pods(reader, program, admin_port(program), "metrics"):
        if isinstance(page, str):
            ends += sample_values(page, "beamlit_certificate_expiry_timestamp_seconds")
    if not ends:
        return []
    until = datetime.fromtimestamp(min(ends), UTC)
    return [judge_certificate(says, f"{program.namespace}/{program.name}", Shown("", 0, until), now)]


def judge_certificate(says: TopicFindings, whose: str, shown: Shown, now: datetime) -> Finding:
    """Say whether a certificate holds, and for how long."""
    left = shown.until - now
    date = f"{shown.until:%Y-%m-%d %H:%M} UTC"
    remedy = "renew it: docs/cluster.md, Renewing certificates"
    if left <= timedelta(0):
        return says.failed("certificate", f"the certificate of {whose} ended on {date}", remedy)
    if left < _EXPIRES_SOON and left < shown.life / 10:
        return says.warning("certificate", f"the certificate of {whose} ends on {date}", remedy)
    return says.ok("certificate", f"the certificate of {whose} holds until {date}")


async def _slices(reader: ClusterReader, service: Named) -> tuple[EndpointSlice, ...] | Unread:
    namespace, name = service
    listed = await reader.list(ENDPOINT_SLICE.path(namespace), labelSelector=f"{SERVICE_NAME}={name}")
    return listed if isinstance(listed, Unread) else tuple(parsed_slices(listed))


def parsed_slices(listed: Listed) -> Iterator[EndpointSlice]:
    """Read slices; what cannot be read is nobody's endpoint."""
    for raw in listed.items:
        try:
            yield parse(EndpointSlice, {"apiVersion": ENDPOINT_SLICE.api_version, "kind": ENDPOINT_SLICE.kind, **raw})
        except InvalidObjectError:
            continue
