"""What is secret stays out of everything that can be printed."""

import traceback

import pytest

from controller.api.kubernetes.objects import Secret
from controller.api.resources.model import ModelDeployment
from controller.api.schema.errors import InvalidObjectError
from controller.api.schema.values import parse

HUSH = "hush-hush"


def deployment(**backend):
    spec = {
        "model": "a",
        "modelSourceRef": {"name": "a"},
        "offloadingConfig": {"remoteBackend": {"host": "h", **backend}},
    }
    return {"metadata": {"name": "a"}, "spec": spec}


def oauth(**config):
    return deployment(authConfig={"type": "oauth", "oauthConfig": config})


def test_not_in_a_secret_that_is_printed():
    secret = parse(Secret, {"metadata": {"name": "a"}, "data": {"key": HUSH}, "stringData": {"other": HUSH}})
    assert secret.data["key"].get_secret_value() == HUSH
    for printed in (repr(secret), str(secret), secret.model_dump_json(), f"{secret.data}"):
        assert HUSH not in printed


def test_not_in_a_model_that_is_printed():
    model = parse(ModelDeployment, oauth(clientId="me", clientSecret=HUSH, tokenUrl="http://t"))
    for printed in (repr(model), str(model), model.model_dump_json()):
        assert HUSH not in printed


@pytest.mark.parametrize(
    ("schema", "raw"),
    [
        (Secret, {"metadata": {"name": "a"}, "data": HUSH}),
        (Secret, {"metadata": {"name": "a"}, "data": [HUSH]}),
        (Secret, {"metadata": {"name": "a"}, "data": {"key": [HUSH]}}),
        (Secret, {"metadata": {}, "data": {"key": HUSH}}),
        (ModelDeployment, oauth(clientSecret=[HUSH])),
        (ModelDeployment, oauth(clientSecret={"value": HUSH})),
        (ModelDeployment, oauth(secret=HUSH)),
        (ModelDeployment, oauth(clientSecret=HUSH, scopes="all")),
        (ModelDeployment, oauth(clientSecret=HUSH, clientSecretRef=HUSH)),
        (ModelDeployment, deployment(authConfig={"type": "oauth", "oauthConfig": HUSH})),
        (ModelDeployment, deployment(authConfig=HUSH)),
        (ModelDeployment, deployment(authConfig={"type": "apiKey", "apiKey": {"secretRef": HUSH}})),
        (ModelDeployment, deployment(authConfig={"type": "apiKey", "apiKey": {"key": HUSH}})),
        (ModelDeployment, deployment(headersToAdd={"Authorization": f"Bearer\n{HUSH}"})),
        (ModelDeployment, deployment(headersToAdd=[HUSH])),
        (ModelDeployment, deployment(host=f"me:{HUSH}@h")),
        (ModelDeployment, deployment(pathPrefix=f"/v1?key={HUSH}")),
    ],
)
def test_not_in_what_is_told_of_a_faulty_object(schema, raw):
    with pytest.raises(InvalidObjectError) as caught:
        parse(schema, raw)
    assert HUSH not in str(caught.value)
    # Logged with its traceback, an error brings the one along that it was raised from.
    assert HUSH not in "".join(traceback.format_exception(caught.value))
