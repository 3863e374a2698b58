"""What of Secrets is delivered, and what a change of one touches."""

import contextlib

import pytest

from controller.api.contract.credentials import CredentialSource
from controller.api.contract.route import RouteKey
from controller.api.resources.configuration import DefaultRemoteBackend
from controller.api.schema.values import parse
from tests.support.objects import a_model, a_secret
from tests.support.publishing import publishing
from tests.support.routes import A, a_remote, a_route, a_route_with, with_key, with_token
from tests.support.store import settled
from xds_server.routes.credentials import ServerSecrets
from xds_server.routes.shadow_mode import ShadowedProblem, shadowed_with
from xds_server.routes.translation import ServingOptions
from xds_server.routes.validation import asked_with
from xds_server.snapshot.snapshot import SECRET, SHORT

HUSH = "hush-hush"
PROTECTED = a_route(a_remote(auth=with_key()), away=30)


def text_of(published, name):
    return published.snapshot.by_type[SECRET][name].body.decode()


def holds(published, *words):
    """Whether any resource has one of these words in it."""
    return any(word.encode() in body for body in published.bodies.values() for word in words)


def words(publisher, key):
    return tuple(map(str, publisher.problems(key)))


def decided(model, route, *, generation=1, observed=None, version="1"):
    """Give a model with the status that carries this route."""
    raw = route.model_dump(mode="json", by_alias=True, exclude_none=True)
    status = {"observedGeneration": observed or generation, "route": raw}
    return model.stored(status=status, generation=generation, version=version)


@contextlib.asynccontextmanager
async def delivering(*objects):
    async with publishing(objects, ServingOptions(secrets=ServerSecrets(version_key=b"key"))) as this:
        yield this.store, this.published, this.publisher


CREDENTIAL = ("SDS", "credential/secret/default/s/apiKey")


async def test_a_new_value_touches_the_secret_and_nothing_else():
    secret = a_secret().holding(apiKey="older")
    async with delivering(decided(a_model(), PROTECTED), secret.stored()) as (store, published, publisher):
        store.put(a_secret().holding(apiKey=HUSH).stored(version="2"))
        await settled()
        assert published.changes[1:] == [{CREDENTIAL}]
        assert HUSH in text_of(published, CREDENTIAL[1])
        assert words(publisher, A) == ()


async def test_a_new_annotation_of_a_secret_touches_nothing():
    secret = a_secret().holding(apiKey=HUSH)
    async with delivering(decided(a_model(), PROTECTED), secret.stored()) as (store, published, _):
        store.put(secret.annotated(touched="yes").stored(version="2"))
        await settled()
        assert len(published.changes) == 1


async def test_a_secret_that_nobody_refers_to_is_not_delivered():
    secrets = a_secret().holding(apiKey="x", other=HUSH).stored(), a_secret("t").holding(apiKey=HUSH).stored()
    async with delivering(decided(a_model(), PROTECTED), *secrets) as (store, published, _):
        store.put(a_secret("t").holding(apiKey=f"{HUSH}2").stored(version="2"))
        await settled()
        assert len(published.changes) == 1
        assert not holds(published, HUSH)


async def test_while_a_secret_is_missing_the_model_is_local_and_says_so():
    async with publishing([decided(a_model(), PROTECTED)]) as this:
        store, published, publisher, looked_at = this.store, this.published, this.publisher, this.looked_at
        looked_at.clear()
        assert not any(name.startswith("backend/") for change in published.changes for _, name in change)
        assert words(publisher, A) == ("Secret default/s does not exist",)
        assert publisher.route(A) == PROTECTED

        store.put(a_secret().holding(other="x").stored())
        await settled()
        assert words(publisher, A) == ('Secret default/s: key "apiKey" is missing',)
        # Nothing was published, and still there is something to tell.
        assert (len(published.changes), looked_at) == (1, [{A}])

        store.put(a_secret().holding(apiKey=HUSH).stored(version="2"))
        await settled()
        assert words(publisher, A) == ()
        assert CREDENTIAL in published.changes[-1]
        assert CREDENTIAL in {(SHORT[key.type_url], key.name) for key, _ in publisher.versions(A)}

        store.remove(a_secret().ref)
        await settled()
        assert words(publisher, A) == ("Secret default/s does not exist",)
        assert CREDENTIAL in published.changes[-1]
        assert not holds(published, HUSH)


async def test_a_model_that_cannot_be_translated_keeps_what_it_has_and_the_others_go_on(caplog):
    b, strange = (
        RouteKey.of_model("default", "b"),
        a_route(a_remote(auth=with_token(url="gopher://h")), away=30, port=81),
    )
    secrets = a_secret().holding(apiKey="x", clientSecret=HUSH).stored()
    rotated = a_secret().holding(apiKey=HUSH, clientSecret=HUSH).stored(version="2")
    objects = decided(a_model("a"), PROTECTED), decided(a_model("b"), a_route(port=81)), secrets
    async with delivering(*objects) as (store, published, publisher):
        before = publisher.versions(b)
        store.put(decided(a_model("b"), strange, version="2"), rotated)
        await settled()
        assert HUSH in text_of(published, CREDENTIAL[1])
        assert publisher.versions(b) == before
        assert "cannot be translated" in words(publisher, b)[0]
        store.put(decided(a_model("b"), a_route(port=82), version="3"))
        await settled()
        assert words(publisher, b) == ()
        assert publisher.versions(b) != before
    assert "model/default/b" in str([vars(one) for one in caplog.records])
    assert HUSH not in caplog.text


async def test_a_secret_of_the_same_name_elsewhere_changes_nothing():
    elsewhere = a_secret().in_namespace("other").holding(apiKey=HUSH)
    async with delivering(decided(a_model(), PROTECTED)) as (store, published, publisher):
        store.put(elsewhere.stored())
        await settled()
        assert words(publisher, A) == ("Secret default/s does not exist",)
        assert len(published.changes) == 1


async def test_models_that_refer_to_one_secret_get_it_once_and_both_change():
    b = RouteKey.of_model("default", "b")
    routes = decided(a_model("a"), PROTECTED), decided(a_model("b"), PROTECTED.model_copy(update={"port": 81}))
    async with delivering(*routes) as (store, published, publisher):
        store.put(a_secret().holding(apiKey=HUSH).stored())
        await settled()
        assert (words(publisher, A), words(publisher, b)) == ((), ())
        assert len([one for one in published.changes[-1] if one[0] == "SDS"]) == 1
        store.remove(a_model("a").ref)
        await settled()
        assert CREDENTIAL in published.names
        assert tuple(publisher.routes()) == (b,)


INLINE = a_route(a_remote(auth=with_token(CredentialSource(source="Spec"))), away=30)
IN_SPEC = "credential/spec/model/default/a"


def with_inline(secret, url="https://auth.example/token"):
    oauth = {"clientId": "me", "clientSecret": secret, "tokenUrl": url}
    return a_model().with_remote(authConfig={"type": "oauth", "oauthConfig": oauth})


async def test_a_credential_of_the_spec_is_read_as_it_was_when_the_route_was_decided():
    async with delivering(decided(with_inline("older"), INLINE)) as (store, published, _):
        # Nobody has decided on the new spec yet: its secret is not for the token endpoint of the old one.
        store.put(decided(with_inline(HUSH, "https://other.example"), INLINE, generation=2, observed=1, version="2"))
        await settled()
        assert "older" in text_of(published, IN_SPEC)
        assert len(published.changes) == 1

        store.put(decided(with_inline(HUSH), INLINE, generation=2, version="3"))
        await settled()
        assert HUSH in text_of(published, IN_SPEC)
        assert published.changes[1:] == [{("SDS", IN_SPEC)}]


async def test_a_spec_that_is_refused_gives_its_credential_to_nobody():
    # Such an object keeps the route of before, and its status is about the new generation all the same.
    refused = decided(with_inline(HUSH, "https://other.example"), INLINE, generation=2, version="2")
    async with delivering(decided(with_inline("older"), INLINE)) as (store, published, _):
        store.put(refused)
        await settled()
        assert "older" in text_of(published, IN_SPEC)
        assert len(published.changes) == 1
    async with delivering(refused) as (_, published, publisher):
        assert words(publisher, A)
        assert not holds(published, HUSH)


async def test_a_credential_is_not_for_a_token_endpoint_that_came_with_another():
    elsewhere = with_token(CredentialSource(source="Spec"), "https://other.example")
    route = a_route(a_remote(auth=elsewhere), away=30)
    async with delivering(decided(with_inline(HUSH), INLINE)) as (store, published, publisher):
        # The object as it was when this route was decided on was left out: the next change is there already.
        store.put(decided(with_inline("third", "https://third.example"), route, generation=3, observed=2, version="2"))
        await settled()
        assert "clientSecret is missing" in words(publisher, A)[0]
        assert not holds(published, HUSH, "third")


async def test_who_checks_a_remote_backend_is_given_its_credentials_while_it_is_served():
    source = CredentialSource.of_secret("s", "apiKey")
    async with delivering(decided(a_model(), PROTECTED)) as (store, _, publisher):
        assert publisher.remotes(A) == ()
        store.put(a_secret().holding(apiKey=HUSH).stored(version="2"))
        await settled()
        ((remote, values),) = publisher.remotes(A)
        assert (remote, values[source].get_secret_value()) == (PROTECTED.remote, HUSH)
        assert HUSH not in repr(values)
        store.remove(a_secret().ref)
        await settled()
        assert publisher.remotes(A) == ()


async def test_every_remote_backend_of_a_route_is_given_to_who_checks_it():
    second = a_remote("b.example", name="remote-b")
    route = a_route_with(PROTECTED.remote, second, shares={"remote": 30, "remote-b": 20})
    async with delivering(decided(a_model(), route), a_secret().holding(apiKey=HUSH).stored()) as (_, _, publisher):
        assert [remote for remote, _ in publisher.remotes(A)] == [PROTECTED.remote, second]


async def test_what_cannot_be_translated_is_not_checked_either():
    strange = a_route(a_remote(auth=with_token(url="gopher://h")), away=30)
    secret = a_secret().holding(clientSecret=HUSH).stored()
    async with delivering(decided(a_model(), strange), secret) as (_, _, publisher):
        assert publisher.remotes(A) == ()


def the_default_backend(secret):
    oauth = {"clientId": "me", "clientSecret": secret, "tokenUrl": "https://auth.example/token"}
    return parse(
        DefaultRemoteBackend, {"host": "remote.example", "authConfig": {"type": "oauth", "oauthConfig": oauth}}
    )


async def test_a_renewed_secret_of_the_default_backend_touches_the_secret_and_nothing_else():
    route = a_route(a_remote(auth=with_token(CredentialSource(source="DefaultBackend"))), away=30)
    options = ServingOptions(secrets=ServerSecrets(the_default_backend("older"), b"key"))
    async with publishing([decided(a_model(), route)], options) as this:
        (name,) = this.published.snapshot.by_type[SECRET]
        assert b"older" in this.published.snapshot.by_type[SECRET][name].body
        await this.publisher.replace_default_remote(the_default_backend(HUSH))
        assert this.published.changes[1:] == [{("SDS", name)}]
        assert HUSH in text_of(this.published, name)


async def test_a_secret_that_the_default_backend_lacked_lets_requests_leave():
    route = a_route(a_remote(auth=with_token(CredentialSource(source="DefaultBackend"))), away=30)
    options = ServingOptions(secrets=ServerSecrets(the_default_backend(""), b"key"))
    async with publishing([decided(a_model(), route)], options) as this:
        assert words(this.publisher, A) != ()
        await this.publisher.replace_default_remote(the_default_backend(HUSH))
        assert words(this.publisher, A) == ()


KEPT = {"type": "apiKey", "apiKey": {"secretRef": {"name": "s", "key": "apiKey"}, "header": "x-key"}}
SHADOWING = a_model("a").with_remote("remote.example", authConfig=KEPT).offloading(mode="Shadow")
"""Nothing leaves, so its route has no remote backend, and needs no credential."""


@contextlib.asynccontextmanager
async def shadowing(model, ask=None):
    options = ServingOptions(ask=ask, read_shadowed=shadowed_with(None))
    async with publishing([decided(model, a_route())], options) as this:
        yield this


@pytest.mark.parametrize("ask", [None, asked_with(None)], ids=["in a folder", "in a cluster"])
async def test_what_a_model_in_shadow_would_lack_is_said_and_nothing_of_it_is_delivered(ask):
    async with shadowing(SHADOWING, ask) as this:
        bodies = dict(this.published.bodies)
        (found,) = this.publisher.problems(A)
        assert (found.reason, found.message) == ("SecretNotFound", "Secret default/s does not exist")
        assert found.remote == a_remote(auth=with_key())
        this.store.put(a_secret().holding(apiKey=HUSH).stored())
        await settled()
        assert this.publisher.problems(A) == ()
        this.store.put(a_secret().holding(other=HUSH).stored(version="2"))
        await settled()
        assert [one.reason for one in this.publisher.problems(A)] == ["SecretKeyNotFound"]
        assert dict(this.published.bodies) == bodies


async def test_of_a_model_that_sends_nothing_away_for_another_reason_nothing_is_looked_at():
    for model in (SHADOWING.disabled(), SHADOWING.offloading(percentage=50)):
        async with shadowing(model) as this:
            assert this.publisher.problems(A) == ()


async def test_a_model_that_leaves_shadow_is_served_as_any_other():
    async with shadowing(SHADOWING) as this:
        this.store.put(decided(SHADOWING.offloading(), PROTECTED, version="2", generation=2))
        await settled()
        (found,) = this.publisher.problems(A)
        assert found.reason == "SecretNotFound" and not isinstance(found, ShadowedProblem)
