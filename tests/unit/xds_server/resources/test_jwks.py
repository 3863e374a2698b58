"""Keys of tokens as Envoy is given them: what it would refuse is refused before, for it refuses the listener with it.

On the port that all models share that is everybody's. `tests/data_plane/test_entrance_tokens.py` has a real Envoy.
"""

import json

import pytest

from tests.support.entrance import TokenIssuer
from xds_server.resources.jwks import JwksError, public_keys

EC = json.loads(TokenIssuer().jwks)["keys"][0]
OKP = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}  # RFC 8037, appendix A.2
RSA = {"kty": "RSA", "n": "w" * 342, "e": "AQAB"}


def written(*keys, **more):
    return json.loads(public_keys(json.dumps({"keys": keys, **more})))["keys"]


def test_a_key_is_written_anew_with_what_verifies_signatures_alone():
    told = {**EC, "use": "sig", "x5c": ["MII..."], "key_ops": ["verify"], "n": 1}
    assert written(told, OKP, RSA, and_more=1) == [EC, OKP, {**RSA, "n": RSA["n"][:-1] + written(RSA)[0]["n"][-1]}]
    assert written({**EC, "x": EC["x"] + "="}) == [EC]
    # Python reads it, and no other program has to.
    assert json.loads(public_keys(f'{{"keys": [{json.dumps(EC)[:-1]}, "spare": NaN}}]}}'))["keys"] == [EC]


def test_keys_for_something_else_are_left_out():
    for other in ({**RSA, "use": "enc"}, {**RSA, "alg": "RSA-OAEP"}, {"kty": "OKP", "use": "enc", "crv": "X25519"}):
        assert written(other, EC) == [EC]
        with pytest.raises(JwksError, match="has no key for signatures"):
            written(other)


@pytest.mark.parametrize(
    "key",
    [
        {**EC, "x": EC["y"]},
        {**EC, "x": None},
        {**EC, "x": "é"},
        {**EC, "crv": "secp256k1"},
        {**EC, "crv": ["P-256"]},
        {**OKP, "crv": "X25519"},
        {**OKP, "x": "AAAA"},
        {**RSA, "n": "!!"},
        {**RSA, "n": "w" * 170},
        {**RSA, "n": "w" * 1400},
        {**RSA, "e": "AQ"},
        {**RSA, "e": "AQAA"},
        {**RSA, "e": "w" * 100},
    ],
)
def test_what_no_envoy_takes_is_refused(key):
    with pytest.raises(JwksError, match=r"must have in keys\[1\] a public key, whole"):
        written(EC, key)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x", "is no JSON"),
        ("[" * 15_000, "is no JSON"),
        (json.dumps([EC]), "must be an object with a list `keys` of 1 to 16 keys"),
        (json.dumps({"keys": []}), "must be an object with a list `keys`"),
        (json.dumps({"keys": [EC] * 17}), "must be an object with a list `keys`"),
        (json.dumps({"keys": ["x"]}), "has no `kty` in keys"),
        (json.dumps({"keys": [{"kty": "oct", "k": "hush"}]}), "has a private key in keys"),
        (json.dumps({"keys": [{"kty": "XYZ", "x": "y"}]}), "must have in keys"),
        (json.dumps({"keys": [{"kty": "EC"}]}), "must have in keys"),
    ],
)
def test_what_holds_no_keys_says_why(text, words):
    with pytest.raises(JwksError, match=words) as refused:
        public_keys(text)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("told", [{"kid": 5}, {"alg": ["ES256"]}, {"use": {}}, {"kid": "\ud800"}])
def test_what_is_told_of_a_key_is_text(told):
    with pytest.raises(JwksError, match="must have text"):
        written({**EC, **told})
