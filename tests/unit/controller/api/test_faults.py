"""What is wrong is told by field, in words that name the fix."""

import pytest

from controller.api.contract.route import Route
from controller.api.kubernetes.objects import EndpointSlice, Secret, Service, Workload
from controller.api.registry import faults
from controller.api.resources.model import ModelDeployment
from controller.api.schema.errors import InvalidObjectError
from controller.api.schema.values import parse

SPEC = {"model": "a", "modelSourceRef": {"name": "a"}}


def told(schema, raw):
    return [str(fault) for fault in faults(schema, raw)]


def in_spec(**spec):
    return told(ModelDeployment, {"metadata": {"name": "a"}, "spec": {**SPEC, **spec}})


def in_behavior(**behavior):
    return in_spec(offloadingConfig={"behavior": behavior})


def in_backend(**backend):
    return in_spec(offloadingConfig={"remoteBackend": {"host": "h", **backend}})


def in_metric(type_, **fields):
    return in_spec(offloadingConfig={"metrics": [{"type": type_, **fields}]})


def probed(**http_get):
    return {"spec": {"template": {"spec": {"containers": [{"readinessProbe": {"httpGet": http_get}}]}}}}


VALUE = {"type": "Value", "value": 1}
DURATION = 'must be a duration such as "30s", "1m30s" or "500ms", is '
PATH = "must be a path such as /v1, without a query"
VARIABLES = "may use the variables $workspace and $model, no others; write %24 for a dollar sign"
OAUTH = {"clientId": "me", "clientSecretRef": {"name": "s"}, "tokenUrl": "https://t"}
HOST = "must be a host or host:port, such as models.example.com:8080 or [::1]:80, without a scheme or a path"
QUANTITY = 'must be a quantity such as 10, "500m" or "2Gi", is '
SECRET_NAME = "must be the name of a Secret: lower case letters, digits, '-' and '.'"
MODEL_NAME = (
    "must be letters and digits, with '.', '_', '-', ':', '@' or '+' between them, in parts with '/' between them"
)


LIMIT = {"requests": 1, "unit": "Second"}


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ({"model": ""}, f"model: {MODEL_NAME}"),
        ({"model": "-a"}, f"model: {MODEL_NAME}"),
        ({"model": "a b"}, f"model: {MODEL_NAME}"),
        ({"model": "a/"}, f"model: {MODEL_NAME}"),
        ({"model": 3}, "model: must be a string, is a number, write it in quotes"),
        ({"model": True}, "model: must be a string, is a boolean, write it in quotes"),
        ({"model": "a" * 254}, "model: must have at most 253 characters, has 254"),
        ({"model": None}, "model: is required"),
        ({"modelSourceRef": {}}, "modelSourceRef.name: is required"),
        ({"modelSourceRef": {"name": ""}}, "modelSourceRef.name: must not be empty"),
        ({"modelSourceRef": None}, "modelSourceRef: is required"),
        ({"modelSourceRef": "a"}, "modelSourceRef: must be an object, is a string"),
        ({"serviceRef": {}}, "serviceRef.name: is required"),
        (
            {"serviceRef": {"name": "s", "targetPort": [80]}},
            "serviceRef.targetPort: must be the number or the name of a port, is a list",
        ),
        (
            {"serviceRef": {"name": "s", "targetPort": True}},
            "serviceRef.targetPort: must be the number or the name of a port, is a boolean",
        ),
        ({"serviceRef": {"name": "s", "target": 80}}, "serviceRef.target: is not a known field; is targetPort meant?"),
        ({"enabled": "yes"}, "enabled: must be true or false, is a string"),
        ({"enabled": "false"}, "enabled: must be true or false, is a string"),
        ({"enabled": 0}, "enabled: must be true or false, is a number"),
        ({"environment": 7}, "environment: must be a string, is a number, write it in quotes"),
        ({"policies": {}}, "policies: must be a list, is an object"),
        (
            {"policies": [{"name": "a", "refType": "local"}]},
            "policies[0].refType: must be 'remotePolicy' or 'localPolicy', is 'local'",
        ),
        ({"policies": [{"refType": "localPolicy", "name": "a"}, 5]}, "policies[1]: must be an object, is a number"),
        ({"serverlessConfig": {"minNumReplicas": -1}}, "serverlessConfig.minNumReplicas: must be at least 0, is -1"),
        ({"serverlessConfig": {"scaleUpMinimum": 1}}, "serverlessConfig.scaleUpMinimum: must be at least 2, is 1"),
        (
            {"serverlessConfig": {"maxNumReplicas": "lots"}},
            "serverlessConfig.maxNumReplicas: must be a whole number, is a string",
        ),
        ({"offloadingConfig": []}, "offloadingConfig: must be an object, is a list"),
        (
            {"offloadingConfig": {"behaviour": {}}},
            "offloadingConfig.behaviour: is not a known field; is behavior meant?",
        ),
        (
            {"offloadingConfig": {"when": {}}},
            "offloadingConfig.when: is not a known field; known are behavior, metrics, remoteBackend, remoteBackends",
        ),
        ({"offloading_config": {}}, "offloading_config: is not a known field; is offloadingConfig meant?"),
        ({"modle": "x"}, "modle: is not a known field; is model meant?"),
        ({"frontend": "gateway"}, "frontend: must be 'Takeover', 'Gateway' or 'Sidecar', is 'gateway'"),
        ({"serviceRef": {"name": "s", "targetPort": 0}}, "serviceRef.targetPort: must be a port from 1 to 65535, is 0"),
        (
            {"serviceRef": {"name": "s", "targetPort": "HTTP"}},
            "serviceRef.targetPort: must be the name of a port: lower case letters, digits and '-', at most 63 of them",
        ),
        (
            {"offloadingConfig": {"remoteBackends": [{"host": "a"}], "remoteBackend": {"host": "b"}}},
            "offloadingConfig.remoteBackends: must be left out when remoteBackend is given: write all backends in"
            " remoteBackends",
        ),
        (
            {"offloadingConfig": {"remoteBackends": []}},
            "offloadingConfig.remoteBackends: must have at least 1 of them, has 0",
        ),
        (
            {"offloadingConfig": {"remoteBackends": [{"host": "a"}] * 9}},
            "offloadingConfig.remoteBackends: must have at most 8 of them, has 9",
        ),
        (
            {"offloadingConfig": {"remoteBackends": [{"host": "a"}, {"host": "b", "authConfig": {"type": "oauth"}}]}},
            "offloadingConfig.remoteBackends[1].authConfig.oauthConfig: is required when type is oauth",
        ),
        ({"rateLimit": {}}, "rateLimit.local: is required"),
        ({"rateLimit": {"local": {"rules": []}}}, "rateLimit.local.rules: must have at least 1 of them, has 0"),
        (
            {"rateLimit": {"local": {"rules": [{"limit": LIMIT}] * 5}}},
            "rateLimit.local.rules: must have at most 4 of them, has 5",
        ),
    ],
)
def test_the_spec(spec, fault):
    assert in_spec(**spec) == [f"spec.{fault}"]


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        ({}, "limit: is required"),
        ({"limit": {"unit": "Hour"}}, "limit.requests: is required"),
        ({"limit": {"requests": 0, "unit": "Hour"}}, "limit.requests: must be at least 1, is 0"),
        ({"limit": {"requests": 2**31, "unit": "Hour"}}, "limit.requests: must be at most 2147483647, is 2147483648"),
        ({"limit": {"requests": 1, "unit": "Day"}}, "limit.unit: must be 'Second', 'Minute' or 'Hour', is 'Day'"),
        ({"per": "Client", "limit": LIMIT}, "per: must be 'Model', 'ClientAddress' or 'Header', is 'Client'"),
        ({"per": "Header", "limit": LIMIT}, "header: must be given with per: Header, and only then"),
        ({"header": "x-key", "limit": LIMIT}, "header: must be given with per: Header, and only then"),
        (
            {"per": "ClientAddress", "header": "x", "limit": LIMIT},
            "header: must be given with per: Header, and only then",
        ),
        *(
            (
                {"per": "Header", "header": header, "limit": LIMIT},
                "header: must be the name of a header: letters, digits and '-' between them",
            )
            for header in ("", "x_key", "-x", "x-", "x key", ":path", "x'] + 'y", "x\n")
        ),
        *(
            (
                {"per": "Header", "header": header, "limit": LIMIT},
                "header: must be one that clients can be told apart by: "
                "this one belongs to the connection or to the gateway",
            )
            for header in ("X-Beamlit-Tenant", "x-envoy-external-address", "Proxy", "te", "X-Forwarded-Client-Cert")
        ),
        ({"per": "Header", "header": "x" * 65, "limit": LIMIT}, "header: must have at most 64 characters, has 65"),
    ],
)
def test_a_rule_of_a_rate_limit(rule, fault):
    assert in_spec(rateLimit={"local": {"rules": [rule]}}) == [f"spec.rateLimit.local.rules[0].{fault}"]


@pytest.mark.parametrize(
    ("behavior", "fault"),
    [
        ({"percentage": 101}, "percentage: must be at most 100, is 101"),
        ({"percentage": -1}, "percentage: must be at least 0, is -1"),
        ({"percentage": "half"}, "percentage: must be a whole number, is a string"),
        ({"percentage": "50"}, "percentage: must be a whole number, is a string"),
        ({"percentage": 50.5}, "percentage: must be a whole number, is a number"),
        ({"percentage": True}, "percentage: must be a whole number, is a boolean"),
        ({"mode": "Slow"}, "mode: must be 'Threshold', 'Proportional' or 'Shadow', is 'Slow'"),
        ({"maxRequestsPerReplica": 0}, "maxRequestsPerReplica: must be at least 1, is 0"),
        ({"offloadAfter": "soon"}, f"offloadAfter: {DURATION}'soon'"),
        ({"offloadAfter": 5}, f"offloadAfter: {DURATION}5"),
        ({"restoreAfter": "-5s"}, f"restoreAfter: {DURATION}'-5s'"),
        ({"restoreAfter": ""}, f"restoreAfter: {DURATION}''"),
        ({"recoverAfter": "1d"}, f"recoverAfter: {DURATION}'1d'"),
        ({"recoverAfter": "99999999999999999h"}, "recoverAfter: must be at most a year (8760h)"),
        ({"recoverAfter": "9000h"}, "recoverAfter: must be at most a year (8760h)"),
        ({"stepInterval": "50ms"}, "stepInterval: must be at least 100ms, is 50ms"),
        ({"tolerance": 1}, "tolerance: must be below 1"),
        ({"tolerance": "some"}, "tolerance: must be a number, is a string"),
        ({"maxStep": 0}, "maxStep: must be at least 1, is 0"),
        ({"maxStep": 200}, "maxStep: must be at most 100, is 200"),
        ({"onUnknown": "hold"}, "onUnknown: must be 'Hold', 'Local' or 'Remote', is 'hold'"),
        ({"firstByteTimeout": "0s"}, "firstByteTimeout: must be at least 100ms, is 0s"),
        ({"percent": 3}, "percent: is not a known field; is percentage meant?"),
    ],
)
def test_the_behavior(behavior, fault):
    assert in_behavior(**behavior) == [f"spec.offloadingConfig.behavior.{fault}"]


@pytest.mark.parametrize(
    ("backend", "fault"),
    [
        ({"host": None}, "host: is required"),
        ({"host": ""}, f"host: {HOST}"),
        ({"host": "http://h"}, f"host: {HOST}"),
        ({"host": "h/v1"}, f"host: {HOST}"),
        ({"host": "a b"}, f"host: {HOST}"),
        ({"host": "h\n"}, f"host: {HOST}"),
        ({"host": "::1"}, f"host: {HOST}"),
        ({"host": "h:0"}, "host: must have a port from 1 to 65535, has 0"),
        ({"host": "h:70000"}, "host: must have a port from 1 to 65535, has 70000"),
        ({"scheme": "ftp"}, "scheme: must be 'http' or 'https', is 'ftp'"),
        ({"pathPrefix": "v1"}, f"pathPrefix: {PATH}"),
        ({"pathPrefix": "/a b"}, f"pathPrefix: {PATH}"),
        ({"pathPrefix": "/a?b"}, f"pathPrefix: {PATH}"),
        ({"pathPrefix": "/$name"}, f"pathPrefix: {VARIABLES}"),
        ({"tls": {"sni": "h:443"}}, "tls.sni: must be a host name, without a port"),
        (
            {"tls": {"clientCertRef": {"name": "c", "key": "k"}}},
            "tls.clientCertRef.key: may not be set: a client certificate is tls.crt and tls.key",
        ),
        (
            {"authConfig": {"type": "oauth", "oauthConfig": {**OAUTH, "tokenUrl": "https://t:0/"}}},
            "authConfig.oauthConfig.tokenUrl: must have a port from 1 to 65535, has 0",
        ),
        (
            {"authConfig": {"type": "oauth", "oauthConfig": {**OAUTH, "clientSecret": "x"}}},
            "authConfig.oauthConfig.clientSecret: must be left out when clientSecretRef is given",
        ),
        (
            {"authConfig": {"type": "apiKey", "apiKey": {"secretRef": {"name": "s"}, "header": "TE"}}},
            "authConfig.apiKey.header: may not be set: it belongs to the connection, which is Envoy's",
        ),
        (
            {"headersToAdd": {"X-Envoy-Max-Retries": "5"}},
            "headersToAdd.X-Envoy-Max-Retries: may not be set: Envoy does as it says, and does not send it",
        ),
        ({"retry": {"attempts": 11}}, "retry.attempts: must be at most 10, is 11"),
        ({"headersToAdd": {"a b": "x"}}, "headersToAdd.a b: must be the name of a header, without spaces, ':' or '%'"),
        (
            {"headersToAdd": {":path": "/"}},
            "headersToAdd.:path: must be the name of a header, without spaces, ':' or '%'",
        ),
        ({"headersToAdd": {"a%b": "x"}}, "headersToAdd.a%b: must be the name of a header, without spaces, ':' or '%'"),
        *(
            (
                {"headersToAdd": {"a": f"x{control}y"}},
                "headersToAdd.a: must be the value of a header, on one line, without control characters",
            )
            for control in "\n\x01\x1b\x7f"
        ),
        ({"headersToAdd": {"a": 1}}, "headersToAdd.a: must be a string, is a number, write it in quotes"),
        ({"headersToAdd": [{"name": "a"}]}, "headersToAdd: must be an object, is a list"),
        (
            {"headersToAdd": {"Host": "x"}},
            "headersToAdd.Host: may not be set: the Host that is sent is remoteBackend.host",
        ),
        ({"authConfig": {}}, "authConfig.type: is required"),
        ({"authConfig": {"type": "basic"}}, "authConfig.type: must be 'oauth' or 'apiKey', is 'basic'"),
        (
            {"authConfig": {"type": "oauth", "oauthConfig": {"clientSecretRef": {"name": ""}}}},
            f"authConfig.oauthConfig.clientSecretRef.name: {SECRET_NAME}",
        ),
        ({"authConfig": {"type": "apiKey", "apiKey": {}}}, "authConfig.apiKey.secretRef: is required"),
        ({"tls": {"caRef": {}}}, "tls.caRef.name: is required"),
        ({"tls": {"insecure": True}}, "tls.insecure: is not a known field; known are caRef, sni, clientCertRef"),
        ({"healthCheck": {}}, "healthCheck.path: is required"),
        ({"healthCheck": {"path": ""}}, "healthCheck.path: must be a path such as /healthz"),
        ({"healthCheck": {"path": "up"}}, "healthCheck.path: must be a path such as /healthz"),
        ({"healthCheck": {"path": "/", "interval": "0s"}}, "healthCheck.interval: must be at least 100ms, is 0s"),
    ],
)
def test_the_remote_backend(backend, fault):
    assert in_backend(**backend) == [f"spec.offloadingConfig.remoteBackend.{fault}"]


@pytest.mark.parametrize(
    ("metric", "fault"),
    [
        (("Resource", {}), "resource: is required when type is Resource"),
        (("ContainerResource", {}), "containerResource: is required when type is ContainerResource"),
        (("Resource", {"resource": {"name": "cpu"}}), "resource.target: is required"),
        (
            ("Resource", {"resource": {"name": "cpu", "target": {"type": "Utilization"}}}),
            "resource.target.averageUtilization: is required when type is Utilization",
        ),
        (
            ("Resource", {"resource": {"name": "cpu", "target": {"type": "AverageValue", "value": 1}}}),
            "resource.target.averageValue: is required when type is AverageValue",
        ),
        (
            ("Resource", {"resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 0}}}),
            "resource.target.averageUtilization: must be at least 1, is 0",
        ),
        (
            ("Resource", {"resource": {"name": "cpu", "target": VALUE}, "requests": {"target": VALUE}}),
            "requests: must be left out when type is Resource, which needs only resource",
        ),
        (("Pods", {"pods": {"target": VALUE}}), "pods.metric: is required"),
        (("Object", {"object": {"metric": {"name": "x"}, "target": VALUE}}), "object.describedObject: is required"),
        (
            ("Requests", {"requests": {"target": {"type": "AverageValue", "averageValue": "lots"}}}),
            f"requests.target.averageValue: {QUANTITY}'lots'",
        ),
        (
            ("Requests", {"requests": {"target": {"type": "Value", "value": []}}}),
            f"requests.target.value: {QUANTITY}[]",
        ),
        (
            ("Scrape", {"scrape": {"port": {}, "metric": {"name": "x"}, "target": VALUE}}),
            "scrape.port: must be the number or the name of a port, is an object",
        ),
        (
            (
                "External",
                {
                    "external": {
                        "metric": {"name": "x", "selector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}},
                        "target": VALUE,
                    }
                },
            ),
            "external.metric.selector.matchExpressions[0].operator: must be 'In', 'NotIn', 'Exists' or 'DoesNotExist',"
            " is 'Is'",
        ),
        (
            ("CPU", {}),
            "type: must be 'Resource', 'ContainerResource', 'Pods', 'Object', 'External', 'Requests' or 'Scrape',"
            " is 'CPU'",
        ),
    ],
)
def test_a_metric(metric, fault):
    type_, fields = metric
    assert in_metric(type_, **fields) == [f"spec.offloadingConfig.metrics[0].{fault}"]


@pytest.mark.parametrize(
    ("metadata", "fault"),
    [
        ({}, "metadata.name: is required"),
        ({"name": ""}, "metadata.name: must not be empty"),
        ({"name": 3}, "metadata.name: must be a string, is a number, write it in quotes"),
        ({"name": "a", "labels": []}, "metadata.labels: must be an object, is a list"),
        (
            {"name": "a", "annotations": {"beamlit.com/paused": True}},
            "metadata.annotations.beamlit.com/paused: must be a string, is a boolean, write it in quotes",
        ),
    ],
)
def test_the_metadata(metadata, fault):
    assert told(ModelDeployment, {"metadata": metadata, "spec": SPEC}) == [fault]


@pytest.mark.parametrize(
    ("schema", "fields", "fault"),
    [
        (Service, {"spec": {"ports": [{}]}}, "spec.ports[0].port: is required"),
        (Service, {"spec": {"ports": [{"port": 0}]}}, "spec.ports[0].port: must be at least 1, is 0"),
        (Service, {"spec": {"ports": [{"port": "http"}]}}, "spec.ports[0].port: must be a whole number, is a string"),
        (
            Service,
            {"spec": {"ports": [{"port": 80, "protocol": "tcp"}]}},
            "spec.ports[0].protocol: must be 'TCP', 'UDP' or 'SCTP', is 'tcp'",
        ),
        (
            Service,
            {"spec": {"ports": [{"port": 80, "nodePort": 99999}]}},
            "spec.ports[0].nodePort: must be at most 65535, is 99999",
        ),
        (
            Service,
            {"spec": {"ports": [{"port": 80, "targetPort": 1.5}]}},
            "spec.ports[0].targetPort: must be the number or the name of a port, is a number",
        ),
        (Service, {}, "spec.ports: is required"),
        (Service, {"spec": {"ports": []}}, "spec.ports: is required"),
        (Service, {"spec": {"ports": [{"port": 0}]}}, "spec.ports[0].port: must be at least 1, is 0"),
        (EndpointSlice, {"endpoints": []}, "addressType: is required"),
        (EndpointSlice, {"addressType": "IPv4"}, "endpoints: is required"),
        (
            EndpointSlice,
            {"addressType": "ipv4", "endpoints": []},
            "addressType: must be 'IPv4', 'IPv6' or 'FQDN', is 'ipv4'",
        ),
        (
            EndpointSlice,
            {"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["::1"]}]},
            "endpoints[1].addresses[0]: must be an IPv4 address, is '::1'",
        ),
        (
            EndpointSlice,
            {"addressType": "IPv6", "endpoints": [{"addresses": ["pod-1"]}]},
            "endpoints[0].addresses[0]: must be an IPv6 address, is 'pod-1'",
        ),
        (
            EndpointSlice,
            {"addressType": "IPv4", "endpoints": [{"addresses": []}]},
            "endpoints[0].addresses: must have at least 1 of them, has 0",
        ),
        (
            EndpointSlice,
            {"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": "yes"}}]},
            "endpoints[0].conditions.ready: must be true or false, is a string",
        ),
        (
            Workload,
            {"spec": {"template": {"spec": {"containers": [{"readinessProbe": {"httpGet": {"path": "/"}}}]}}}},
            "spec.template.spec.containers[0].readinessProbe.httpGet.port: is required",
        ),
        (Secret, {"data": "s3cret"}, "data: must be an object, is a string"),
        (Secret, {"stringData": {"pin": 1234}}, "stringData.pin: must be a string, is a number, write it in quotes"),
    ],
)
def test_an_object_of_kubernetes(schema, fields, fault):
    assert told(schema, {"metadata": {"name": "a"}, **fields}) == [fault]


@pytest.mark.parametrize(
    ("route", "fault"),
    [
        ({"split": {"local": 60, "remote": 60}}, "split: local and remote must make 100, make 120"),
        ({"split": {"local": 0, "remote": 100}}, "split.remote: must be 0 without a remote"),
        ({"port": 0}, "port: must be at least 1, is 0"),
    ],
)
def test_a_route(route, fault):
    whole = {"port": 80, "split": {"local": 100, "remote": 0}, "local": {"namespace": "n", "service": "s"}}
    assert told(Route, {**whole, **route}) == [fault]


def test_every_fault_of_an_object_is_told_at_once():
    assert told(ModelDeployment, {"apiVersion": "v1", "metadata": {}, "spec": {}}) == [
        "apiVersion: must be 'deployment.beamlit.com/v1alpha1', is 'v1'",
        "metadata.name: is required",
        "spec.model: is required",
        "spec.modelSourceRef: is required",
    ]


TOO_FEW = {**LIMIT, "requests": 0}
NEEDS_HEADER = "must be given with per: Header, and only then"


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        (
            {"rateLimit": {"local": {"rules": [{"limit": LIMIT}, {"per": "Header", "limit": TOO_FEW}]}}},
            [
                "rateLimit.local.rules[1].limit.requests: must be at least 1, is 0",
                f"rateLimit.local.rules[1].header: {NEEDS_HEADER}",
            ],
        ),
        (
            {"frontend": "Takeover", "gatewayService": {"name": "a"}, "enabled": "yes"},
            [
                "enabled: must be true or false, is a string",
                "gatewayService: needs frontend: Gateway; with Takeover clients call their own Service",
            ],
        ),
        (
            {"offloadingConfig": {"metrics": [{"type": "Requests", "requests": {"target": {"type": "Value"}}}]}},
            ["offloadingConfig.metrics[0].requests.target.value: is required when type is Value"],
        ),
        # What needs the field at fault is not known.
        (
            {"rateLimit": {"local": {"rules": [{"per": "Heder", "header": "x-a", "limit": LIMIT}]}}},
            ["rateLimit.local.rules[0].per: must be 'Model', 'ClientAddress' or 'Header', is 'Heder'"],
        ),
        (
            {"offloadingConfig": {"remoteBackend": {"host": "h", "authConfig": {"type": "oauth", "oauthConfig": 1}}}},
            ["offloadingConfig.remoteBackend.authConfig.oauthConfig: must be an object, is a number"],
        ),
    ],
    ids=["beside", "above", "beneath", "at fault itself", "needed and at fault"],
)
def test_fields_are_compared_with_each_other_though_one_is_at_fault(spec, found):
    assert in_spec(**spec) == [f"spec.{one}" for one in found]


def test_how_often_fields_are_compared_beside_faults_is_bounded():
    metrics = [{"type": "Pods", "resource": {"name": "cpu", "target": {**VALUE, "value": "x"}}}] * 32
    found = in_spec(offloadingConfig={"metrics": metrics})
    compared = [one for one in found if one.endswith(".pods: is required when type is Pods")]
    assert (len(found) - len(compared), 0 < len(compared) <= 20) == (32, True)


def test_what_kubernetes_leaves_null_is_no_fault():
    headless = {"ports": None, "clusterIP": "None"}
    assert told(Service, {"metadata": {"name": "a", "labels": None}, "spec": headless}) == []
    assert told(Service, {"metadata": {"name": "a"}, "spec": {"type": "ExternalName"}}) == []
    assert told(Secret, {"metadata": {"name": "a"}, "data": None}) == []
    nulls = {"addressType": "IPv4", "ports": None, "endpoints": [{"addresses": ["10.0.0.1"], "conditions": None}]}
    assert told(EndpointSlice, {"metadata": {"name": "a"}, **nulls}) == []
    assert told(EndpointSlice, {"metadata": {"name": "a"}, "addressType": "IPv4", "endpoints": None}) == []


@pytest.mark.parametrize(
    ("schema", "written", "absent"),
    [
        (Service, {"spec": {"ports": [{"port": 80, "nodePort": 0}]}}, {"spec": {"ports": [{"port": 80}]}}),
        (Service, {"spec": {"ports": [{"port": 80, "protocol": ""}]}}, {"spec": {"ports": [{"port": 80}]}}),
        (Service, {"spec": {"ports": [{"port": 80, "targetPort": 0}]}}, {"spec": {"ports": [{"port": 80}]}}),
        (Service, {"spec": {"ports": [{"port": 80, "targetPort": ""}]}}, {"spec": {"ports": [{"port": 80}]}}),
        (
            Service,
            {"metadata": {"name": "a", "namespace": ""}, "spec": {"ports": [{"port": 80}]}},
            {"spec": {"ports": [{"port": 80}]}},
        ),
        (
            EndpointSlice,
            {"addressType": "IPv4", "endpoints": [], "ports": [{"name": "", "port": 0}]},
            {"addressType": "IPv4", "endpoints": [], "ports": [{}]},
        ),
        (
            Workload,
            probed(path="", port=80, scheme=""),
            probed(port=80),
        ),
        (Secret, {"type": ""}, {}),
        (ModelDeployment, {"metadata": {"name": "a", "namespace": ""}, "spec": SPEC}, {"spec": SPEC}),
    ],
)
def test_what_is_empty_in_go_is_absent(schema, written, absent):
    """As `SetDefaults_Service` and its like have it; clients in Go write what has no `omitempty`."""
    named = {"metadata": {"name": "a"}}
    assert parse(schema, named | written) == parse(schema, named | absent)


def test_what_is_empty_in_a_map_or_false_is_no_absence():
    labels = {"metadata": {"name": "a", "labels": {"x": ""}}}
    assert parse(Service, labels | {"spec": {"ports": [{"port": 80}]}}).metadata.labels == {"x": ""}
    endpoints = [{"addresses": ["10.0.0.1"], "conditions": {"ready": False}}]
    one = parse(EndpointSlice, {"metadata": {"name": "a"}, "addressType": "IPv4", "endpoints": endpoints})
    assert not one.endpoints[0].ready


def test_an_error_carries_paths_and_words():
    with pytest.raises(InvalidObjectError) as caught:
        parse(ModelDeployment, {"metadata": {"name": "a"}, "spec": {**SPEC, "policies": [{"refType": 1}]}})
    (first, *_) = caught.value.errors
    assert first.path == ("spec", "policies", 0, "refType")
    assert str(caught.value).startswith("spec.policies[0].refType: must be ")
