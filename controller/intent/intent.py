"""`Intent`: what an object asks for, whatever its kind. Everything behind parsing works on it.

Each kind that can be served has one function here that reads it: `intent_of_model` for ModelDeployment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from controller.api.contract.entrance import ClientValidation, EntranceTls, JwtProvider
from controller.api.contract.rate_limit import RouteRateLimit
from controller.api.registry import MODEL_DEPLOYMENT, SERVICE
from controller.api.resources.backend import RemoteBackend
from controller.api.resources.entrance import JwtProviderSpec, TlsSpec
from controller.api.resources.metrics import MetricSpec
from controller.api.resources.model import OVERRIDE, PAUSED, Behavior, ModelDeployment
from controller.api.resources.rate_limit import RateLimitRule
from controller.api.resources.warnings import warnings_of
from controller.api.schema.errors import FieldError
from controller.store.objects import ObjectRef


@dataclass(frozen=True, slots=True)
class Override:
    """A split set by hand: `remote` percent leave, until a moment or until the annotation is removed."""

    remote: int
    until: datetime | None = None

    def in_force(self, now: datetime) -> bool:
        """Whether it still holds."""
        return self.until is None or now < self.until


@dataclass(frozen=True, slots=True)
class Terms:
    """What the rules of the decision need to know of an object: its `behavior` (api/resources/model.py), and what was
    set by hand.
    """

    enabled: bool
    paused: bool = False
    override: Override | None = None
    behavior: Behavior = field(default_factory=Behavior)

    @property
    def may_leave(self) -> bool:
        """Whether requests may leave at all, if there is a remote backend."""
        return self.enabled and self.behavior.mode != "Shadow"


def terms_of(enabled: bool, behavior: Behavior, annotations: Mapping[str, str]) -> tuple[Terms, tuple[FieldError, ...]]:
    """Read the terms of an object, and the faults of its annotations, which have no effect then."""
    errors: list[FieldError] = []
    override = None
    if text := annotations.get(OVERRIDE):
        try:
            override = parse_override(text)
        except ValueError as error:
            errors.append(FieldError(("metadata", "annotations", OVERRIDE), str(error)))
    paused = annotations.get(PAUSED, "false")
    if paused not in ("true", "false"):
        errors.append(FieldError(("metadata", "annotations", PAUSED), f'must be "true" or "false", is {paused!r}'))
    terms = Terms(
        enabled=enabled,
        paused=paused == "true",
        override=override,
        behavior=behavior,
    )
    return terms, tuple(errors)


def parse_override(text: str) -> Override:
    """Parse `remote=30` or `remote=30 until=2026-01-01T00:00:00Z`; raise ValueError with what is wrong."""
    words = [word.partition("=")[::2] for word in text.split()]
    pairs = dict(words)
    if len(pairs) < len(words):
        raise ValueError("names a word twice; write it as 'remote=30 until=2026-01-01T00:00:00Z'")
    unknown = sorted(pairs.keys() - {"remote", "until"})
    if unknown:
        raise ValueError(f"has the unknown word {unknown[0]!r}; write it as 'remote=30 until=2026-01-01T00:00:00Z'")
    remote = pairs.get("remote", "")
    if not (remote.isascii() and remote.isdigit() and len(remote) <= 3 and int(remote) <= 100):
        raise ValueError(f"remote must be a whole number from 0 to 100, is {remote!r}")
    until = None
    if "until" in pairs:
        until = _moment(pairs["until"])
        if until is None:
            raise ValueError(f"until must be a time such as 2026-01-01T00:00:00Z, is {pairs['until']!r}")
    return Override(remote=int(remote), until=until)


def _moment(text: str) -> datetime | None:
    """Read a time that says its zone, as UTC."""
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else None
    except (ValueError, OverflowError):
        return None


@dataclass(frozen=True, slots=True)
class ServiceTarget:
    """The Service that an object fronts, and which port of it: a number, a name, or None for the only one."""

    service: ObjectRef
    port: int | str | None = None


@dataclass(frozen=True, slots=True)
class Intent:
    """What one object asks for.

    `model` is its name in its `environment`, as the platform and the users of its namespace know it. `workload` runs
    its pods. `serving_port` is the port of the gateway that it fixes, if it does. `offloads` says whether it asks for
    offloading at all; `backends` are its own remote backends, in the order in which they are tried, and may be none:
    the default one serves then. `rate_limits` say how often clients may ask, `tls` and `jwt` who is let in.
    `local_policy` is the index of the first policy of this cluster that it names, `frontend` how clients shall reach
    it, `gateway_service` the Service that is made for it at the gateway. `faults` are mistakes in its annotations,
    `warnings` what is accepted and not served as it is written; both have no effect.
    """

    ref: ObjectRef
    generation: int
    model: str
    environment: str
    target: ServiceTarget | None
    workload: ObjectRef
    terms: Terms
    serving_port: int | None = None
    offloads: bool = False
    backends: tuple[RemoteBackend, ...] = ()
    first_byte_timeout: timedelta | None = None
    rate_limits: tuple[RouteRateLimit, ...] = ()
    tls: EntranceTls | None = None
    jwt: tuple[JwtProvider, ...] = ()
    metrics: tuple[MetricSpec, ...] = ()
    local_policy: int | None = None
    frontend: Literal["Takeover", "Gateway", "Sidecar"] | None = None
    gateway_service: ObjectRef | None = None
    faults: tuple[FieldError, ...] = ()
    warnings: tuple[FieldError, ...] = ()


def intent_of_model(model: ModelDeployment, generation: int) -> Intent:
    """Read what a ModelDeployment asks for."""
    spec, namespace = model.spec, model.metadata.namespace
    offloading = spec.offloading_config
    behavior = offloading.behavior if offloading else Behavior()
    terms, faults = terms_of(spec.enabled, behavior, model.metadata.annotations)
    workload, service = spec.model_source_ref, spec.service_ref
    target = None
    if service:
        ref = ObjectRef(SERVICE.kind, service.namespace or namespace, service.name)
        target = ServiceTarget(ref, service.target_port)
    return Intent(
        ref=ObjectRef(MODEL_DEPLOYMENT.kind, namespace, model.metadata.name),
        generation=generation,
        model=spec.model,
        environment=spec.environment,
        target=target,
        workload=ObjectRef(workload.kind, workload.namespace or namespace, workload.name),
        terms=terms,
        serving_port=spec.serving_port,
        offloads=offloading is not None,
        backends=offloading.backends if offloading else (),
        first_byte_timeout=behavior.first_byte_timeout,
        rate_limits=tuple(map(_rate_limit, spec.rate_limit.local.rules)) if spec.rate_limit else (),
        tls=_tls(spec.tls) if spec.tls else None,
        jwt=tuple(map(_jwt_provider, spec.jwt.providers)) if spec.jwt else (),
        metrics=offloading.metrics if offloading else (),
        local_policy=next(
            (index for index, policy in enumerate(spec.policies) if policy.ref_type == "localPolicy"), None
        ),
        frontend=spec.frontend,
        gateway_service=ObjectRef(SERVICE.kind, namespace, spec.gateway_service.name) if spec.gateway_service else None,
        faults=faults,
        warnings=warnings_of(model),
    )


def _rate_limit(rule: RateLimitRule) -> RouteRateLimit:
    limit = rule.limit
    header = rule.header.lower() if rule.header else None
    return RouteRateLimit(requests=limit.requests, unit=limit.unit, per=rule.per, header=header)


def _tls(asked: TlsSpec) -> EntranceTls:
    validation = None
    if clients := asked.client_validation:
        validation = ClientValidation(
            authorities=tuple(one.name for one in clients.ca_certificate_refs),
            optional=clients.optional or None,
            told=clients.cert_details_to_add,
        )
    certificates = tuple(one.name for one in asked.certificate_refs)
    return EntranceTls(
        certificates=certificates,
        min_version=asked.min_version,
        alpn=asked.alpn_protocols,
        client_validation=validation,
    )


def _jwt_provider(asked: JwtProviderSpec) -> JwtProvider:
    return JwtProvider(name=asked.name, issuer=asked.issuer, audiences=asked.audiences, jwks=asked.local_jwks.inline)


def faults_of_model(model: ModelDeployment) -> tuple[FieldError, ...]:
    """List the mistakes in the annotations of a ModelDeployment."""
    return intent_of_model(model, 0).faults


def variables_of(intent: Intent) -> Mapping[str, str]:
    """Return the variables that a path prefix may use, with their values for this object."""
    # Without the platform the workspace is the namespace.
    return {"$workspace": intent.ref.namespace, "$model": intent.model}
