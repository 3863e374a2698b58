"""`spec.jwt`: who has no token for the model is answered by the gateway, and the token of who has goes no further."""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
import trustme
from cryptography.hazmat.primitives.asymmetric import rsa

from controller.api.contract.entrance import EntranceTls, JwtProvider
from controller.api.contract.rate_limit import RouteRateLimit
from tests.support.data_plane.access_log import lines_of
from tests.support.data_plane.backends import Backends
from tests.support.data_plane.model import Model, Wanted
from tests.support.data_plane.plane import Plane
from tests.support.entrance import TokenIssuer, Trust, a_pair
from xds_server.resources.access_log import AccessLog

pytestmark = pytest.mark.asyncio(loop_scope="module")

ISSUER, OTHER = TokenIssuer(), TokenIssuer(issuer="https://other.test")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def wanted(plane: Plane, authority: trustme.CA) -> Wanted:
    """Ask for a model that believes the issuer."""
    pair = a_pair(authority, plane.network.host(1))
    return Wanted(entrance=EntranceTls(certificates=("cert",)), pairs=(("cert", pair),), jwt=(ISSUER.provider(),))


@pytest_asyncio.fixture(loop_scope="module")
async def client(authority: trustme.CA, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(verify=Trust(authority, folder).context(), trust_env=False, timeout=120) as client:
        yield client


async def asked(
    client: httpx.AsyncClient, model: Model, authorization: str | None, path: str = "/v1", **headers: str
) -> httpx.Response:
    said = {} if authorization is None else {"authorization": authorization}
    return await client.get(model.url.replace("http:", "https:").rstrip("/") + path, headers={**said, **headers})


async def test_a_client_is_let_in_by_a_token_for_the_model(
    plane: Plane, wanted: Wanted, client: httpx.AsyncClient
) -> None:
    model = await plane.serve(wanted)
    token = ISSUER.token()
    head, claims, signature = token.split(".")
    for status, authorization in (
        (200, f"Bearer {token}"),
        (200, f"Bearer {ISSUER.token(aud=['other', 'chat'])}"),
        (401, None),
        (401, token),
        (401, "Bearer x"),
        (401, f"Basic {token}"),
        (401, f"Bearer {ISSUER.token(exp=int(time.time()) - 3600)}"),
        (401, f"Bearer {ISSUER.token(exp=None)}"),
        (401, f"Bearer {ISSUER.token(nbf=int(time.time()) + 3600)}"),
        (401, f"Bearer {ISSUER.token(iss='https://evil.test')}"),
        (401, f"Bearer {OTHER.token(iss=ISSUER.issuer)}"),
        (401, f"Bearer {ISSUER.unsigned_token()}"),
        (401, f"Bearer {head}.{ISSUER.token(sub='admin').split('.')[1]}.{signature}"),
        (401, f"Bearer {head}.{claims}."),
        (403, f"Bearer {ISSUER.token(aud='somebody-else')}"),
        (403, f"Bearer {ISSUER.token(aud=None)}"),
    ):
        assert (await asked(client, model, authorization)).status_code == status, authorization
    # A log may have the path.
    assert (await asked(client, model, None, f"/v1?access_token={token}")).status_code == 401


async def test_a_token_of_any_of_the_providers_is_enough(
    plane: Plane, wanted: Wanted, client: httpx.AsyncClient
) -> None:
    both: tuple[JwtProvider, ...] = (ISSUER.provider(), OTHER.provider("other", audience="else"))
    model = await plane.serve(replace(wanted, jwt=both))
    tokens = (ISSUER.token(), OTHER.token(aud="else"), OTHER.token(), ISSUER.token(aud="else"))
    found = [(await asked(client, model, f"Bearer {token}")).status_code for token in tokens]
    assert found == [200, 200, 403, 403]


async def test_a_token_goes_to_no_server_and_into_no_log(
    plane: Plane, backends: Backends, wanted: Wanted, client: httpx.AsyncClient
) -> None:
    token, refused = ISSUER.token(), ISSUER.token(exp=1)
    for away in (0, 100):
        model = await plane.serve(replace(wanted, away=away, access_log=AccessLog.ALL))
        await plane.healthy(model, 3)
        probe = f"token-{away}"
        for failing in ({}, {f"on-{'remote' if away else 'local'}": "status=503"}):
            answer = await asked(client, model, f"Bearer {token}", probe=probe, **failing)
            assert answer.status_code == 200
        assert (await asked(client, model, f"Bearer {refused}")).status_code == 401
        assert len(backends.seen(probe)) == 3
        for seen in backends.seen(probe):
            assert "authorization" not in {name.lower() for name, _ in seen["headers"]}
        await lines_of(plane, model, 3)
    log = plane.envoy.process.log.read_text()
    assert not any(part in log for one in (token, refused) for part in one.split(".")[1:])


async def test_who_has_no_token_uses_up_no_rate_limit(plane: Plane, wanted: Wanted, client: httpx.AsyncClient) -> None:
    limit = RouteRateLimit(requests=2, unit="Hour")
    model = await plane.serve(replace(wanted, rate_limits=(limit,)))
    tokens = [None, None, None, *[f"Bearer {ISSUER.token()}"] * 3]
    found = [(await asked(client, model, token)).status_code for token in tokens]
    assert found == [401, 401, 401, 200, 200, 429]


async def test_keys_of_every_kind_and_words_of_no_kind_are_read_by_envoy(
    plane: Plane, wanted: Wanted, client: httpx.AsyncClient
) -> None:
    """A listener is refused with keys that are not, and on the shared port it is everybody's."""
    (own,) = json.loads(ISSUER.jwks)["keys"]
    spare = rsa.generate_private_key(65537, 2048).public_key().public_numbers()
    n, e = (urlsafe_b64encode(one.to_bytes(size, "big")).decode() for one, size in ((spare.n, 256), (spare.e, 4)))
    of_rsa = {"kty": "RSA", "n": n, "e": e, "kid": "2", "use": "sig", "alg": "PS256", "x5c": [5]}
    text = json.dumps({"keys": [of_rsa, own], "issued": float("nan")})
    provider = ISSUER.provider().model_copy(update={"jwks": text})
    model = await plane.serve(replace(wanted, jwt=(provider,)))
    assert plane.refused() == {}
    assert (await asked(client, model, f"Bearer {ISSUER.token()}")).status_code == 200
