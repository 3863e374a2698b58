"""Objects drawn from the schema of a custom resource, with a bias to what is interesting and mostly accepted.

A schema cannot say which of its fields go together. Where they have to, `WRITTEN` draws what a user would write; all
else comes from the schema alone, so a field that is added is drawn as well.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

Schema = dict[str, Any]

LONGEST = 60
"""Characters of a text, and three items of a list: more of the same finds nothing new."""

ALWAYS = frozenset(("serviceRef", "offloadingConfig", "remoteBackend"))
LIKELY = frozenset(("metrics", "authConfig", "tls", "scheme", "headersToAdd"))
"""Optional fields that all objects, or most, shall have: they are what configuration is made of."""
ABSENT = object()

DURATIONS = ("0s", "100ms", "10s", "1s", "1m30s", "1.5h", "0.5s", "8760h", "2h3m4s5ms")
NAMES = ("models.example.com", "a", "A.b-c_d", "x" * 63, "h" * 253, "-", "_", "..", "xn--nxasmq6b", "0x7f", "localhost")
# What an Envoy connects to must be this machine, whatever is drawn.
HOSTS = st.one_of(
    st.sampled_from(NAMES),
    st.from_regex(r"[g-zG-Z._-][A-Za-z0-9._-]{0,20}", fullmatch=True),
    st.sampled_from(["127.0.0.1", "127.255.255.254", "[::1]", "[::ffff:127.0.0.1]"]),
)
AUTHORITIES = st.builds("".join, st.tuples(HOSTS, st.sampled_from(["", ":1", ":80", ":0443", ":65535"])))
SECRET = st.fixed_dictionaries({"name": st.sampled_from(["present", "absent"])})
PATHS = st.sampled_from(["", "/", "/v1", "/$workspace/models/$model", "/$model$model", "//", "/%41", "/a;b=c,d/@x:y/"])
OAUTH = st.fixed_dictionaries(
    {
        "clientId": st.sampled_from(["me", "a b", "x" * 100, '"', "%DOWNSTREAM%"]),
        "tokenUrl": st.sampled_from(
            ["https://auth.example.com/token", "http://127.0.0.1:9/t?a=b", "https://[::1]:8443"]
        ),
    },
    optional={"scopes": st.lists(st.sampled_from(["a", "b:c", "!"]), max_size=2)},
)
SECRETS = st.one_of(
    st.fixed_dictionaries({"clientSecret": st.sampled_from(["hush", " ", "%", "ü"])}),
    st.fixed_dictionaries({"clientSecretRef": SECRET}),
)
AUTH = st.one_of(
    st.builds(lambda known, secret: {"type": "oauth", "oauthConfig": {**known, **secret}}, OAUTH, SECRETS),
    st.fixed_dictionaries(
        {
            "type": st.just("apiKey"),
            "apiKey": st.fixed_dictionaries(
                {"secretRef": SECRET},
                optional={"header": st.sampled_from(["X-Api-Key", "authorization", "!#$&'*+.^_`|~"])},
            ),
        }
    ),
)
EXPRESSIONS = st.sampled_from(
    [
        {"key": "a", "operator": "Exists"},
        {"key": "b", "operator": "In", "values": ["c"]},
        {"key": "", "operator": "DoesNotExist"},
    ]
)
WRITTEN: dict[str, SearchStrategy[Any]] = {
    "modelSourceRef": st.just({"apiVersion": "apps/v1", "kind": "Deployment", "name": "fronted"}),
    "serviceRef": st.fixed_dictionaries(
        {"name": st.just("fronted")},
        optional={"targetPort": st.sampled_from([80, "80", "http", 8080, "8080", 80, "http", "absent"])},
    ),
    # All alike likely: two objects with one port are a conflict, and one of them is not served.
    "servingPort": st.sampled_from(range(10_000, 30_000)),
    "host": AUTHORITIES,
    "pathPrefix": PATHS,
    "authConfig": AUTH,
    "caRef": SECRET,
    "clientCertRef": SECRET,
    "sni": st.sampled_from(["models.example.com", "a", "1", "x" * 63]),
    "matchExpressions": st.lists(EXPRESSIONS, max_size=2),
}


def objects_of(schema: Schema, count: int) -> list[Any]:
    """Draw so many objects, the same ones each time."""
    found: list[Any] = []

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(drawn_from(schema))
    def draw(one: Any) -> None:
        found.append(one)

    draw()
    return found


def drawn_from(schema: Schema, name: str = "") -> SearchStrategy[Any]:
    """Draw values of a schema that stands under a name."""
    if name in WRITTEN:
        return WRITTEN[name]
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return st.one_of(st.integers(1, 65535), st.sampled_from(["1", "80", "500"]))
    match schema["type"]:
        case "object":
            return _objects(schema, name)
        case "array":
            least = schema.get("minItems", 0)
            return st.lists(drawn_from(schema["items"], f"{name}[]"), min_size=least, max_size=least + 2)
        case "boolean":
            return st.booleans()
        case "integer":
            return st.integers(schema.get("minimum", -(2**31)), schema.get("maximum", 2**31 - 1))
        case "number":
            return st.floats(schema["minimum"], schema["maximum"], allow_subnormal=False)
    return _texts(schema)


def _texts(schema: Schema) -> SearchStrategy[str]:
    pattern = schema.get("pattern")
    if pattern and "ms)" in pattern:
        return st.sampled_from(DURATIONS)
    drawn = st.from_regex(pattern, fullmatch=True) if pattern else st.text(min_size=schema.get("minLength", 0))
    return drawn.filter(lambda text: len(text) <= min(LONGEST, schema.get("maxLength", LONGEST)))


def _objects(schema: Schema, name: str) -> SearchStrategy[Any]:
    if values := schema.get("additionalProperties"):
        keys = st.from_regex(r"[!#$&'*+.^_`|~0-9A-Za-z-]{1,12}", fullmatch=True)
        return st.dictionaries(keys, drawn_from(values), max_size=2)
    fields = {field: drawn_from(part, field) for field, part in schema.get("properties", {}).items()}
    needed = frozenset(schema.get("required", ()))
    if name == "metrics[]":
        return _with_what_the_type_names(fields)
    if "averageUtilization" in fields:
        return _with_the_number_of_its_type(fields)
    several = fields.pop("remoteBackends", None)
    secured = "tls" in fields
    always = {field: fields.pop(field) for field in sorted(needed | ALWAYS & fields.keys())}
    likely = {field: _likely(fields.pop(field)) for field in sorted(LIKELY & fields.keys())}
    whole = st.fixed_dictionaries({**always, **likely}, optional=fields).map(_without_what_is_absent)
    if "metric" in needed:
        return whole.map(_with_one_target)
    if secured:
        return whole.map(_with_tls_over_https)
    if several is None:
        return whole
    return st.one_of(
        whole,
        whole,
        st.builds(lambda one, more: {**_without(one, "remoteBackend"), "remoteBackends": more}, whole, several),
    )


def _likely(values: SearchStrategy[Any]) -> SearchStrategy[Any]:
    return st.one_of(*[values] * 5, st.just(ABSENT))


def _without_what_is_absent(drawn: dict[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in drawn.items() if value is not ABSENT}


def _with_what_the_type_names(fields: dict[str, SearchStrategy[Any]]) -> SearchStrategy[Any]:
    return st.one_of(
        st.fixed_dictionaries({"type": st.just(field[0].upper() + field[1:]), field: source})
        for field, source in fields.items()
        if field != "type"
    )


def _with_the_number_of_its_type(fields: dict[str, SearchStrategy[Any]]) -> SearchStrategy[Any]:
    numbers = {"Utilization": "averageUtilization", "Value": "value", "AverageValue": "averageValue"}
    return st.one_of(
        st.fixed_dictionaries({"type": st.just(type_), field: fields[field]}) for type_, field in numbers.items()
    )


def _with_one_target(drawn: dict[str, Any]) -> dict[str, Any]:
    """Leave it at the one target inside the metric, if there is one there."""
    if "target" in drawn["metric"]:
        return _without(drawn, "target")
    return {"target": {"type": "Value", "value": 1}, **drawn}


def _with_tls_over_https(drawn: dict[str, Any]) -> dict[str, Any]:
    return {**drawn, "scheme": "https"} if "tls" in drawn else drawn


def _without(drawn: dict[str, Any], field: str) -> dict[str, Any]:
    return {name: value for name, value in drawn.items() if name != field}
