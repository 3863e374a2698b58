"""The models: what their statuses say, and whether what they refer to is there: Services, their ports, Secrets."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from controller.api.contract.credentials import CREDENTIAL, SENT, SERVING, CredentialSource
from controller.api.contract.route import Remote
from controller.api.kubernetes.endpoints import replicas_of
from controller.api.kubernetes.objects import SERVICE_NAME, Service, ServicePort
from controller.api.registry import ENDPOINT_SLICE, MODEL_DEPLOYMENT, SECRET, SERVICE
from controller.api.resources.model import TAKEOVER, ModelDeployment, class_of
from controller.api.schema.errors import InvalidObjectError
from controller.api.schema.values import parse
from controller.check.cluster import METADATA, ClusterReader, Listed, Unread, right_to
from controller.check.control_plane import parsed_slices
from controller.check.installation import Installation
from controller.check.report import Finding, Topic, TopicFindings
from controller.frontend.service_facts import ServiceFacts
from controller.frontend.takeover import why_not
from controller.intent.intent import Intent, intent_of_model
from controller.intent.remotes import RemoteNotUsableError, remotes_of
from controller.observe.references import PortNotFoundError, port_of
from controller.store.kube.objects import stored_object
from controller.store.objects import ObjectRef

_SAYS = TopicFindings(Topic.MODELS)
_MOST_MODELS = 2000
_MOST_SERVICES = 200
_MOST_SECRETS = 200
_LOOKED_AT_WITHIN = timedelta(seconds=30)
# Why a Service is not taken over that nobody wants taken over, and where that may be otherwise in a moment.
_NOT_WANTED = ("NotAsked", "Disabled", "Deleted")
_ON_ITS_WAY = ("Pending", "Restoring", "NoGateway")


async def read_models(reader: ClusterReader, found: Installation) -> Listed | Unread:
    """List the models that this installation serves."""
    models: list[Mapping[str, Any]] = []
    complete = True
    for namespace in found.namespaces or ("",):
        listed = await reader.list(MODEL_DEPLOYMENT.path(namespace), _MOST_MODELS)
        if isinstance(listed, Unread):
            return listed
        complete &= listed.complete
        models += [one for one in listed.items if class_of(one) == found.controller_class]
    return Listed(tuple(models[:_MOST_MODELS]), complete and len(models) <= _MOST_MODELS)


async def check_models(reader: ClusterReader, models: Listed | Unread, now: datetime) -> tuple[Finding, ...]:
    """Look at every model, and at what they refer to; `now` is the time of the API server."""
    if isinstance(models, Unread):
        if models.is_absent:
            return ()  # Without its definition there is none: that is said there.
        needed = right_to("list", MODEL_DEPLOYMENT) if models.why == "denied" else models.words
        return (_SAYS.unseen("ready", f"the models are not seen: {needed}", "name namespaces: --namespaces"),)
    found: list[Finding] = []
    if not models.complete:
        found.append(_SAYS.unseen("ready", f"there are more models: {len(models.items)} were looked at"))
    ready = 0
    for model in models.items:
        told = tuple(judge_model(model, now))
        ready += not told
        found += told
    intents = tuple(_intents(models.items))
    shadows = {ref: str(local["service"]) for one in models.items for ref, local in _followed(one)}
    found.append(_SAYS.ok("ready", f"{ready} of {len(models.items)} models are ready, with nothing to look at"))
    found += await _check_services(reader, intents, shadows, now)
    found += await _check_secrets(reader, intents)
    return tuple(found)


def judge_model(raw: Mapping[str, Any], now: datetime) -> Iterator[Finding]:
    """Say what is not well with a model by what its status says; nothing if it is ready."""
    metadata, status = raw["metadata"], raw.get("status") or {}
    namespace, name = str(metadata.get("namespace")), str(metadata.get("name"))
    who, more = f"{namespace}/{name}", f"beamlit explain {name} -n {namespace}"
    conditions = {str(one.get("type")): one for one in status.get("conditions") or () if isinstance(one, Mapping)}
    if not conditions:
        if now - datetime.fromisoformat(str(metadata["creationTimestamp"])) > _LOOKED_AT_WITHIN:
            remedy = "look at the controller above; its --namespaces and --controller-class say which models it serves"
            yield _SAYS.failed("ready", f"{who}: no controller has looked at it", remedy)
        else:
            yield _SAYS.warning("ready", f"{who} is new: no controller has looked at it yet")
        return
    if int(status.get("observedGeneration") or 0) < int(metadata.get("generation") or 0):
        yield _SAYS.warning("ready", f"{who}: the controller has not looked at the last edit yet", more)
    ready = conditions.get("Ready") or {}
    words = f"{who} is not ready: {ready.get('reason')}: {ready.get('message')}"
    if ready.get("reason") == "Updating":
        yield _SAYS.warning("ready", words)
    elif ready.get("status") != "True":
        yield _SAYS.failed("ready", words, more)
    fronted = conditions.get("Fronted") or {}
    if fronted.get("status") == "False" and fronted.get("reason") not in _NOT_WANTED:
        words = f"{who}: its Service is not taken over: {fronted.get('reason')}: {fronted.get('message')}"
        says = _SAYS.warning if fronted.get("reason") in _ON_ITS_WAY else _SAYS.failed
        yield says("fronted", words, more)
    warned = conditions.get("Accepted") or {}
    if warned.get("reason") == "AcceptedWithWarnings":
        yield _SAYS.warning("accepted", f"{who}: {warned.get('message')}")
    for signal in status.get("signals") or ():
        if isinstance(signal, Mapping) and signal.get("state") == "Unknown":
            words = f"{who}: the metric {signal.get('name')} is unknown: {signal.get('message')}"
            yield _SAYS.warning("signals", words, "docs/metrics.md says where each metric comes from")


def _intents(models: Iterable[Mapping[str, Any]]) -> Iterator[Intent]:
    """Read what the models ask for; one that cannot be read says so itself, in `Accepted`."""
    for raw in models:
        whole = {**raw, "apiVersion": MODEL_DEPLOYMENT.api_version, "kind": MODEL_DEPLOYMENT.kind}
        try:
            yield intent_of_model(parse(ModelDeployment, whole), 0)
        except InvalidObjectError:
            continue


@dataclass(frozen=True, slots=True)
class FrontedService:
    """A Service, the models that refer to it, each with the port that it asks for, and who has the slices of its pods:
    itself or, where it is taken over, its shadow.
    """

    ref: ObjectRef
    models: tuple[Intent, ...]
    pods_of: str


def _followed(raw: Mapping[str, Any]) -> Iterator[tuple[ObjectRef, Mapping[str, Any]]]:
    """Name the Service that is taken over for a model, with whose pods its route has in its place."""
    local = ((raw.get("status") or {}).get("route") or {}).get("local") or {}
    if local.get("fronted"):
        yield ObjectRef(SERVICE.kind, str(local.get("namespace")), str(local["fronted"])), local


async def _check_services(
    reader: ClusterReader, intents: tuple[Intent, ...], shadows: Mapping[ObjectRef, str], now: datetime
) -> list[Finding]:
    by_service: dict[ObjectRef, list[Intent]] = defaultdict(list)
    for intent in intents:
        if intent.target:
            by_service[intent.target.service].append(intent)
    services = [FrontedService(ref, tuple(models), shadows.get(ref, ref.name)) for ref, models in by_service.items()]
    asked = services[:_MOST_SERVICES]
    found = [
        one
        for findings in await asyncio.gather(*(_check_service(reader, one, now) for one in asked))
        for one in findings
    ]
    if len(services) > len(asked):
        found.append(_SAYS.unseen("services", f"{len(services) - len(asked)} more Services were not looked at"))
    if asked and not found:
        found.append(
            _SAYS.ok("services", f"{len(asked)} Services are there, with the ports that models name and replicas")
        )
    return found


async def _check_service(reader: ClusterReader, fronted: FrontedService, now: datetime) -> list[Finding]:
    ref, first = fronted.ref, fronted.models[0].ref
    whose = f"Service {ref.namespace}/{ref.name} of {first.namespace}/{first.name}"
    raw = await reader.read(SERVICE.path(ref.namespace, ref.name))
    if isinstance(raw, Unread):
        if raw.is_absent:
            remedy = f"create it, or correct spec.serviceRef of the ModelDeployment {first.namespace}/{first.name}"
            return [_SAYS.failed("services", f"{whose}: there is no such Service", remedy)]
        needed = right_to("get", SERVICE, ref.namespace) if raw.why == "denied" else raw.words
        return [_SAYS.unseen("services", f"{whose}: {needed}")]
    try:
        service = parse(Service, {"apiVersion": SERVICE.api_version, "kind": SERVICE.kind, **raw})
    except InvalidObjectError as error:
        return [_SAYS.unseen("services", f"{whose}: cannot be read: {error}")]
    found = list(_frontable(fronted, raw, now))
    for model in fronted.models:
        try:
            port = port_of(model.target.port if model.target else None, service)
        except PortNotFoundError as error:
            remedy = f"correct spec.serviceRef.targetPort of the ModelDeployment {model.ref.namespace}/{model.ref.name}"
            found.append(_SAYS.failed("services", f"{whose}: {error}", remedy))
        else:
            found += await _check_endpoints(reader, fronted, whose, port)
    return found


def _frontable(fronted: FrontedService, raw: Mapping[str, Any], now: datetime) -> Iterator[Finding]:
    """Say why a Service cannot be taken over that shall be; a controller that has looked at it says so itself."""
    wanting = [one for one in fronted.models if one.terms.enabled and one.frontend in (None, TAKEOVER)]
    if not wanting:
        return
    gateway = ObjectRef(SERVICE.kind, "", "")  # That there is none is said of the gateway.
    refusal = why_not(ServiceFacts(fronted.ref, stored_object(SERVICE, raw), gateway_service=gateway), now)
    if refusal:
        model = wanting[0].ref
        words = f"Service of {model.namespace}/{model.name} cannot be taken over: {refusal[0]}: {refusal[1]}"
        remedy = f"change the Service as it says, or set spec.frontend of {model.namespace}/{model.name} to Gateway"
        yield _SAYS.failed("frontable", words, remedy)


async def _check_endpoints(
    reader: ClusterReader, fronted: FrontedService, whose: str, port: ServicePort
) -> list[Finding]:
    ref, labels = fronted.ref, f"{SERVICE_NAME}={fronted.pods_of}"
    listed = await reader.list(ENDPOINT_SLICE.path(ref.namespace), labelSelector=labels)
    if isinstance(listed, Unread):
        needed = right_to("list", ENDPOINT_SLICE, ref.namespace) if listed.why == "denied" else listed.words
        return [_SAYS.unseen("endpoints", f"{whose}: {needed}")]
    replicas = replicas_of(parsed_slices(listed), port.name)
    if any(one.ready for one in replicas):
        return []
    words = f"{whose}: none of {len(replicas)} endpoints of its port {port.port} is ready"
    remedy = f"kubectl -n {ref.namespace} get endpointslices -l {labels}"
    return [_SAYS.warning("endpoints", words, f"{remedy}; until then every request goes to the remote backend")]


async def _check_secrets(reader: ClusterReader, intents: tuple[Intent, ...]) -> list[Finding]:
    needed: dict[tuple[str, str, str], dict[str, Intent]] = defaultdict(dict)
    for intent in intents:
        for source in _secrets_of(intent):
            needed[intent.ref.namespace, source.name, SENT].setdefault(source.key, intent)
        for name, key in _served_with(intent):
            needed[intent.ref.namespace, name, SERVING].setdefault(key, intent)
    asked = list(needed.items())[:_MOST_SECRETS]
    judged = await asyncio.gather(*(_check_secret(reader, where, keys) for where, keys in asked))
    found = [one for findings in judged for one in findings]
    if len(needed) > len(asked):
        found.append(_SAYS.unseen("secrets", f"{len(needed) - len(asked)} more Secrets were not looked at"))
    if asked and not found:
        found.append(_SAYS.ok("secrets", f"{len(asked)} Secrets are there, with the keys that models name"))
    return found


def _served_with(intent: Intent) -> Iterator[tuple[str, str]]:
    """Name the Secrets that clients are met with, and what each has to hold."""
    if intent.tls is None:
        return
    for name in intent.tls.certificates:
        yield name, "tls.crt"
        yield name, "tls.key"
    if intent.tls.client_validation:
        yield from ((name, "ca.crt") for name in intent.tls.client_validation.authorities)


def _secrets_of(intent: Intent) -> Iterator[CredentialSource]:
    try:
        remotes = remotes_of(intent, None)
    except RemoteNotUsableError:
        return  # The status says so.
    for remote in remotes:
        yield from (one for one in _sources_of(remote) if one.source == "Secret")


def _sources_of(remote: Remote) -> Iterator[CredentialSource]:
    if remote.auth and remote.auth.oauth:
        yield remote.auth.oauth.client_secret
    if remote.auth and remote.auth.api_key:
        yield remote.auth.api_key.value
    if remote.tls and remote.tls.ca:
        yield remote.tls.ca
    if remote.tls and remote.tls.client_certificate:
        yield remote.tls.client_certificate.certificate
        yield remote.tls.client_certificate.private_key


async def _check_secret(
    reader: ClusterReader, where: tuple[str, str, str], keys: Mapping[str, Intent]
) -> list[Finding]:
    """Look at the metadata of a Secret alone: its values never leave the API server."""
    namespace, name, use = where
    first = next(iter(keys.values())).ref
    whose = f"Secret {namespace}/{name} of {first.namespace}/{first.name}"
    raw = await reader.read(SECRET.path(namespace, name), accept=METADATA)
    if isinstance(raw, Unread):
        if raw.is_absent:
            fields = " ".join(f"--from-file={key}=FILE" for key in keys)
            made = "tls {} --cert=FILE --key=FILE" if "tls.key" in keys and use == SERVING else f"generic {{}} {fields}"
            label = f"kubectl -n {namespace} label secret {name} {CREDENTIAL}={use}"
            remedy = f"kubectl -n {namespace} create secret {made.format(name)} && {label}"
            return [_SAYS.failed("secrets", f"{whose}: there is no such Secret", remedy)]
        needed = right_to("get", SECRET, namespace) if raw.why == "denied" else raw.words
        return [_SAYS.unseen("secrets", f"{whose}: {needed}")]
    if ((raw.get("metadata") or {}).get("labels") or {}).get(CREDENTIAL) != use:
        remedy = f"kubectl -n {namespace} label --overwrite secret {name} {CREDENTIAL}={use}"
        what = "served with" if use == SERVING else "used as a credential"
        return [_SAYS.failed("secrets", f"{whose}: it lacks the label that lets it be {what}", remedy)]
    held = keys_held(raw)
    if held is None:
        return []
    missing = [key for key in keys if key not in held]
    if not missing:
        return []
    model = keys[missing[0]].ref
    words = f"Secret {namespace}/{name} of {model.namespace}/{model.name}: it has no key {', '.join(missing)}"
    words = f"{words}; it has {', '.join(sorted(held)) or 'none'}"
    return [_SAYS.failed("secrets", words, "add the key, or name another one in the ModelDeployment")]


def keys_held(raw: Mapping[str, Any]) -> frozenset[str] | None:
    """Name the keys of a Secret by its metadata: who wrote which field (`managedFields`); None if that is not kept."""
    entries = (raw.get("metadata") or {}).get("managedFields") or ()
    fields = [(one.get("fieldsV1") or {}) for one in entries]
    if not any(fields):
        return None
    named = (name for one in fields for part in ("f:data", "f:stringData") for name in one.get(part) or ())
    return frozenset(name.removeprefix("f:") for name in named if name.startswith("f:"))
