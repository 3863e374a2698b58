"""Warnings about a valid ModelDeployment: fields without effect, misplaced fields, credentials in plain sight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from pydantic import BaseModel
from pydantic.alias_generators import to_camel

from controller.api.resources.backend import RemoteBackend
from controller.api.resources.metrics import (
    ContainerResourceMetric,
    LabelSelector,
    MetricByName,
    MetricSpec,
    PodsMetric,
    ResourceMetric,
)
from controller.api.resources.model import FRONTEND, ModelDeployment, OffloadingConfig
from controller.api.schema.errors import FieldError, Path
from controller.api.schema.http import is_credential_header

_NO_EFFECT = "has no effect yet"
_NO_SHARE = "this is no share of what pods request: it stays unknown with type Utilization"
_BEGINS_ANEW = (
    "begins anew with each new split, and with mode: Proportional there may be one each stepInterval: clients may get "
    "as much each time; write it as a limit for each Second"
)
_NOTHING_DAMPS = (
    "is so short that with mode: Proportional the share may change every few seconds for as long as there is a surge: "
    "what was too little is forgotten after ten times as long; write 30s or more"
)
_THE_SUM = "is compared with the sum over all pods, with type Value; AverageValue is for each pod"

_DAMPS = timedelta(seconds=30)

# By field: what is not served in this version, and what happens instead.
_SPEC = {
    "metric_service_ref": _NO_EFFECT,
    "serverless_config": f"{_NO_EFFECT}: there is no platform that the model is deployed on",
}


def warnings_of(model: ModelDeployment) -> tuple[FieldError, ...]:
    """List what in the spec is not served as it is written, in the order of the fields. Valid objects only."""
    return tuple(_in_spec(model))


def _in_spec(model: ModelDeployment) -> Iterator[FieldError]:
    spec, at = model.spec, ("spec",)
    if spec.frontend == "Sidecar":
        words = f"{_NO_EFFECT}: as with {FRONTEND}, clients call the gateway at the port in status.servingPort"
        yield FieldError((*at, "frontend"), words)
    yield from _not_default(spec, _SPEC, at)
    for index, policy in enumerate(spec.policies):
        # One of this cluster, which is not enforced either, keeps everything local: that is reported as a fault.
        if policy.ref_type == "remotePolicy":
            what = "names no policy" if not policy.name else "is not enforced yet"
            yield FieldError(
                (*at, "policies", index), f"{what}: requests may go to the remote backend whatever it says"
            )
    if spec.rate_limit and spec.offloading_config and spec.offloading_config.behavior.mode == "Proportional":
        for index, rule in enumerate(spec.rate_limit.local.rules):
            if rule.limit.unit != "Second":
                yield FieldError((*at, "rateLimit", "local", "rules", index, "limit", "unit"), _BEGINS_ANEW)
    if spec.offloading_config:
        yield from _in_offloading(spec.offloading_config, (*at, "offloadingConfig"))


def _in_offloading(offloading: OffloadingConfig, at: Path) -> Iterator[FieldError]:
    behavior = offloading.behavior
    if behavior.mode == "Proportional" and behavior.restore_after < _DAMPS:
        yield FieldError((*at, "behavior", "restoreAfter"), _NOTHING_DAMPS)
    for index, metric in enumerate(offloading.metrics):
        yield from _in_metric(metric, (*at, "metrics", index))
    if offloading.remote_backend:
        yield from _in_backend(offloading.remote_backend, (*at, "remoteBackend"))
    for index, backend in enumerate(offloading.remote_backends or ()):
        where = (*at, "remoteBackends", index)
        if index:
            yield FieldError(where, f"{_NO_EFFECT}: only the first backend is used")
        else:
            yield from _in_backend(backend, where)


def _in_metric(metric: MetricSpec, at: Path) -> Iterator[FieldError]:
    source = metric.source
    field = (*at, to_camel(metric.field))
    is_resource = isinstance(source, ResourceMetric | ContainerResourceMetric)
    if metric.target.type == "Utilization" and not is_resource:
        yield FieldError((*field, "target"), _NO_SHARE)
    if metric.target.type == "Value" and (is_resource or isinstance(source, PodsMetric)):
        yield FieldError((*field, "target"), _THE_SUM)
    if isinstance(source, MetricByName):
        if source.metric.target:
            yield FieldError(
                (*field, "metric", "target"), "belongs beside metric, not into it; it is taken as if it stood there"
            )
        if source.metric.selector:
            yield from _in_selector(source.metric.selector, (*field, "metric", "selector"))


def _in_selector(selector: LabelSelector, at: Path) -> Iterator[FieldError]:
    for name, value in selector.misplaced.items():
        instead = "it is taken as if it stood there" if isinstance(value, str) else "it is left out"
        yield FieldError((*at, name), f"belongs into matchLabels; {instead}")


def _in_backend(backend: RemoteBackend, at: Path) -> Iterator[FieldError]:
    oauth = backend.auth_config.oauth_config if backend.auth_config else None
    if oauth and oauth.client_secret.get_secret_value():
        yield FieldError(
            (*at, "authConfig", "oauthConfig", "clientSecret"),
            "everybody who may read this object can read it; put it into a Secret and name that in clientSecretRef",
        )
    for name in filter(is_credential_header, backend.headers_to_add):
        yield FieldError(
            (*at, "headersToAdd", name),
            "everybody who may read this object can read it, also in its status; put it into a Secret and name that in "
            "authConfig.apiKey",
        )


def _not_default(value: BaseModel, words: Mapping[str, str], at: Path) -> Iterator[FieldError]:
    fields: dict[str, Any] = type(value).model_fields
    for name, text in words.items():
        if getattr(value, name) != fields[name].get_default():
            yield FieldError((*at, to_camel(name)), text)
