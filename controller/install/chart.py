"""The parts of the Helm chart that are written from the registry and the models: what may not be said twice.

Custom resource definitions that upgrade with the release and outlive it, the roles of the programs with their bindings,
and the schema of the values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from controller.api.contract.installation import NAME as INSTALLATION
from controller.api.resources.configuration import Configuration
from controller.install.crd import definition_files
from controller.install.rbac import ROLES, RbacRole, role_text
from controller.install.schema import descriptions_of

_PREFIX = "beamlit"
_WRITTEN = "{{- /* Written by `make manifests`; do not edit. */}}\n"

Schema = dict[str, Any]


def chart_files() -> Mapping[str, str]:
    """Write each file, by its path in the chart."""
    return {
        "templates/crds.yaml": _definitions(),
        "templates/roles.yaml": _roles(),
        "values.schema.json": json.dumps(values_schema(), indent=2) + "\n",
    }


_FIELD_AT_FAULT = re.compile(r"^( *)- (fieldPath: \S+)\n *(?=\w)", re.MULTILINE)
_KNOWS_FIELDS_AT_FAULT = '{{- $fields := semverCompare ">=1.28.0-0" .Capabilities.KubeVersion.Version }}\n'
"""Kubernetes 1.27 refuses a rule with a `fieldPath`: its errors name the object around the field."""


def _definitions() -> str:
    """Write the definitions as templates: what is in a folder `crds` is never upgraded by helm."""
    kept = 'metadata:\n  annotations:\n    helm.sh/resource-policy: keep\n  labels:\n    {{- include "beamlit.labels" '
    kept += '(list . "crds") | nindent 4 }}\n'
    texts = []
    for text in definition_files().values():
        # What begins a template stands in no description; a test says so.
        comment, _, definition = text.partition("\n")
        assert comment.startswith("#")
        definition = _FIELD_AT_FAULT.sub(r"\1- {{ if $fields }}\2\n\1  {{ end }}", definition)
        texts.append("---\n" + definition.replace("metadata:\n", kept, 1))
    head = f"{_WRITTEN}{_KNOWS_FIELDS_AT_FAULT}{{{{- if .Values.crds.install }}}}\n"
    return f"{head}{''.join(texts)}{{{{- end }}}}\n"


def _roles() -> str:
    return _WRITTEN + "".join(f"---\n{_role(role)}{_bindings(role)}" for role in ROLES)


def _role(role: RbacRole) -> str:
    return role_text(role).replace(f"  name: {role.name}\n", f"  name: {_named(role)}\n{_labels(role)}", 1)


def _named(role: RbacRole) -> str:
    return '{{ include "beamlit.prefix" . }}' + role.name.removeprefix(_PREFIX)


def _labels(role: RbacRole, root: str = ".") -> str:
    return f'  labels:\n    {{{{- include "beamlit.labels" (list {root} "{role.program}") | nindent 4 }}}}\n'


def _bindings(role: RbacRole) -> str:
    """Bind a role where its sentence says: at home, or in each namespace that is allowed, or in all of them."""
    if role.at_home:
        return f"---\n{_binding(role, '{{ .Release.Namespace }}', '.')}"
    everywhere, each = _binding(role, None, "."), _binding(role, "{{ . }}", "$")
    return f"{{{{- range .Values.allowedNamespaces }}}}\n---\n{each}{{{{- else }}}}\n---\n{everywhere}{{{{- end }}}}\n"


def _binding(role: RbacRole, namespace: str | None, root: str) -> str:
    prefix = f'{{{{ include "beamlit.prefix" {root} }}}}'
    name = prefix + role.name.removeprefix(_PREFIX)
    # Two releases may be bound in one namespace: the one of another namespace must not have the name of this one.
    home = f"{{{{ {root.rstrip('.')}.Release.Namespace }}}}"
    own = f"{name}-from-{home}" if namespace == "{{ . }}" else name
    return (
        "apiVersion: rbac.authorization.k8s.io/v1\n"
        f"kind: {'RoleBinding' if namespace else 'ClusterRoleBinding'}\n"
        "metadata:\n"
        f"  name: {own}\n" + (f"  namespace: {namespace}\n" if namespace else "") + _labels(role, root) + "roleRef:\n"
        "  apiGroup: rbac.authorization.k8s.io\n"
        "  kind: ClusterRole\n"
        f"  name: {name}\n"
        "subjects:\n"
        "  - kind: ServiceAccount\n"
        f"    name: {prefix}-{role.program}\n"
        f"    namespace: {home}\n"
    )


def values_schema() -> Schema:
    """Build the schema of values.yaml: a key that it does not know is refused, at every depth."""
    placed = {
        "podAnnotations": _TEXTS,
        "podLabels": _TEXTS,
        "nodeSelector": _TEXTS,
        "tolerations": {"type": "array", "items": _ANYTHING},
        "affinity": _ANYTHING,
        "priorityClassName": _TEXT,
    }
    program = {
        "replicas": _whole(1),
        "logLevel": _one_of("debug", "info", "warning", "error"),
        "extraArgs": _TEXT_LIST,
        "resources": _RESOURCES,
        **placed,
    }
    switched = {"enabled": _FLAG}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of beamlit-controller-chart",
        **_object(
            {
                "global": _ANYTHING,  # helm gives it to every chart
                "allowedNamespaces": {"type": ["array", "null"], "items": _NAMESPACE, "uniqueItems": True},
                "installMetricServer": _FLAG,
                "installBeamlitGateway": _FLAG,
                "beamlitApiToken": _GIVEN_TEXT,
                "beamlitBaseUrl": _TEXT,
                "config": _configuration(),
                "credentials": _object({"existingSecret": _pattern(f"({_SUBDOMAIN})?")}),
                "image": _IMAGE,
                "imagePullSecrets": {"type": "array", "items": _object({"name": _pattern(_SUBDOMAIN)}, "name")},
                "namePrefix": {"type": "string", "pattern": "^([a-z]([a-z0-9-]{0,38}[a-z0-9])?)?$"},
                "crds": _object({"install": _FLAG}),
                "certificates": _object(
                    {
                        "source": _one_of("beamlit", "cert-manager", "existing"),
                        "days": _whole(1, 825),
                        "caDays": _whole(2, 3650),
                        "clients": {
                            "type": "array",
                            "items": {"type": "string", "pattern": "^(gateway/[^/]+|sidecar/[^/]+(/[^/]+)?)$"},
                        },
                        "resources": _RESOURCES,
                    }
                ),
                "controller": _object(program),
                "xdsServer": _object(
                    {
                        **program,
                        "accessLog": _one_of("off", "failures", "all"),
                        "checksSharedBy": _whole(1, 1000),
                        "connectionsPerModel": _whole(1),
                        "remoteChecks": _FLAG,
                        "installation": _pattern(f"({INSTALLATION})?"),
                        "tokens": _object(
                            {
                                **switched,
                                "audience": {"type": "string", "minLength": 1},
                                "clients": {
                                    "type": "array",
                                    "items": _object(_TOKEN_CLIENT, "serviceAccount", "grant"),
                                },
                            }
                        ),
                        "refusedClients": {"type": "array", "items": {"type": "string", "pattern": _REFUSED_CLIENT}},
                    }
                ),
                "gateway": _object(
                    {
                        **program,
                        "image": _IMAGE,
                        "drainDelaySeconds": _whole(0),
                        "drainSeconds": _whole(0),
                        "maxConnections": _whole(1),
                        "allStatistics": _FLAG,
                        "dualStack": _FLAG,
                        "service": _object(
                            {
                                "type": _one_of("ClusterIP", "NodePort", "LoadBalancer"),
                                "annotations": _TEXTS,
                                "modelPorts": _whole(0, 1000),
                            }
                        ),
                    }
                ),
                "podDisruptionBudgets": _object(switched),
                "networkPolicy": _object({**switched, "metricsFrom": {"type": "array", "items": _ANYTHING}}),
                "serviceMonitor": _object({**switched, "labels": _TEXTS, "interval": _pattern(_PROMETHEUS_DURATION)}),
                "prometheusRule": _object({**switched, "labels": _TEXTS}),
                "dashboard": _object({**switched, "labels": _TEXTS}),
                "uninstall": _object({"restore": _FLAG}),
                "metricsServer": _object({"image": _IMAGE, "extraArgs": _TEXT_LIST, "resources": _RESOURCES}),
            }
        ),
    }


def _object(properties: Mapping[str, Schema], *required: str) -> Schema:
    schema = {"type": "object", "additionalProperties": False, "properties": dict(properties)}
    return {**schema, "required": list(required)} if required else schema


def _pattern(whole: str) -> Schema:
    return {"type": "string", "pattern": f"^{whole}$"}


def _one_of(*words: str) -> Schema:
    return {"type": "string", "enum": list(words)}


def _whole(least: int, most: int | None = None) -> Schema:
    return {"type": "integer", "minimum": least, **({"maximum": most} if most is not None else {})}


_FLAG: Schema = {"type": "boolean"}
_TEXT: Schema = {"type": "string"}
_GIVEN_TEXT: Schema = {"type": ["string", "integer"]}
"""What `--set` makes a number of, if it has digits alone."""
_TEXTS: Schema = {"type": "object", "additionalProperties": _TEXT}
# What `xds_server.stream.refused` reads: of a line that it does not, a server that runs only tells, and one that starts
# does not start.
_REFUSED_CLIENT = (
    r"^(#[^\n]*|([Ss][Hh][Aa]256 [Ff]ingerprint=)?([0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}( #[^\n]*)?"
    r"|[^#\s]*[.:]\S*( #[^\n]*)?)?$"
)
_TOKEN_CLIENT: Mapping[str, Schema] = {
    "serviceAccount": {"type": "string", "pattern": "^[a-z0-9-]+/[a-z0-9.-]+$"},
    "grant": {"type": "string", "pattern": "^(gateway(/[^/]+)?|sidecar/[^/]+(/[^/]+)?|reader|controller)$"},
}
_TEXT_LIST: Schema = {"type": "array", "items": _TEXT}
_ANYTHING: Schema = {"type": "object"}
"""An object of Kubernetes, which the API server checks."""
_QUANTITY: Schema = {
    "type": ["string", "number"],
    "pattern": r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([num]|[kMGTPE]i?|Ki|[eE][+-]?[0-9]+)?$",
    "minimum": 0,
}
"""apimachinery/pkg/api/resource, Quantity, without a sign."""
_QUANTITIES: Schema = {"type": "object", "additionalProperties": _QUANTITY}
_RESOURCES = _object({"requests": _QUANTITIES, "limits": _QUANTITIES})
_SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_PROMETHEUS_DURATION = "([0-9]+(ms|[smhdwy]))+"
# Of a range that has bits behind its length only `controller.api.destinations` knows.
_LENGTHS = "(/([0-9]|[12][0-9]|3[0-2]))?", "(/([0-9]|[1-9][0-9]|1[01][0-9]|12[0-8]))?"
_DESTINATION = _pattern(
    rf"([0-9.]+{_LENGTHS[0]}|[0-9a-fA-F.]*:[0-9a-fA-F:.]*{_LENGTHS[1]}|(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?)"
)
_NAMESPACE: Schema = {"type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"}
_IMAGE = _object(
    {
        "repository": {"type": "string", "minLength": 1},
        "tag": _TEXT,
        "digest": {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
        "pullPolicy": _one_of("Always", "IfNotPresent", "Never"),
    }
)

_OF_THE_CHART = ("clientSecretFile",)
"""Keys of the configuration that the chart sets itself."""


def _configuration() -> Schema:
    """Return the schema of the configuration file as its model has it, with every definition in its place."""
    written = Configuration.model_json_schema(by_alias=True)
    definitions = written.get("$defs", {})
    schema = _plain(written, definitions)
    properties = schema["properties"]
    texts = descriptions_of(Configuration)
    for name, field in Configuration.model_fields.items():
        properties[field.alias or name]["description"] = texts[name]
    for key in ("metricsAddr", "probeAddr"):
        # "0" is nowhere, and `--set` makes a number of it.
        properties[key] |= {"type": ["string", "integer"], "minimum": 0, "maximum": 0}
    properties["namespaces"] = {
        "type": ["string", "array", "null"],
        "items": _NAMESPACE,
        "description": texts["namespaces"],
    }
    oauth = properties["defaultRemoteBackend"]["properties"]["authConfig"]["properties"]["oauthConfig"]["properties"]
    for key in ("clientId", "clientSecret"):
        oauth[key] = _GIVEN_TEXT
    backend = properties["defaultRemoteBackend"]
    # Of the chart's own default an empty host makes none.
    host = backend["properties"]["host"]
    host["pattern"] = f"{host['pattern'].removesuffix('$')}?$"
    backend["properties"]["headers"] = _TEXTS
    for destinations in properties["remoteBackends"]["properties"].values():
        destinations["items"] = _DESTINATION
    return schema


_KEPT = (
    "type",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "maxProperties",
)


def _plain(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """Keep what JSON Schema says of form; where nothing may be given, null may, as helm takes a default away by it."""
    if "$ref" in schema:
        return _plain(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in schema:
        (first, *_) = [one for one in schema["anyOf"] if one.get("type") != "null"]
        plain = _plain(first, definitions)
        return {**plain, "type": [*_types(plain), "null"]} if "type" in plain else plain
    plain = {key: schema[key] for key in _KEPT if key in schema}
    if "const" in schema:
        plain["enum"] = [schema["const"]]
    if "properties" in schema:
        plain["properties"] = {
            name: _plain(one, definitions) for name, one in schema["properties"].items() if name not in _OF_THE_CHART
        }
        plain["additionalProperties"] = False
    elif plain.get("type") == "object":
        plain["additionalProperties"] = _TEXT
    if "items" in schema:
        plain["items"] = _plain(schema["items"], definitions)
    return plain


def _types(schema: Schema) -> Sequence[str]:
    given = schema["type"]
    return [given] if isinstance(given, str) else given
