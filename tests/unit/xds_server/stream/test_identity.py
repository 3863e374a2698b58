"""What a client may be by the names of its certificate."""

import pytest

from xds_server.snapshot.scope import GATEWAY, Role, Scope
from xds_server.stream.admission import ClientAdmission, ClientStanding
from xds_server.stream.callers import Callers, NotAllowedError
from xds_server.stream.identity import ClientGrant, ClientTable, certified_names, parse_binding
from xds_server.stream.wire import Node

MEMBER, READER = ClientStanding(authorised=True, trusted=True), ClientStanding(authorised=False, trusted=False)


class Certified:
    """A connection whose certificate has these names."""

    def __init__(self, *uris: str, dns: tuple[str, ...] = ()) -> None:
        self._context = {
            "peer_uri": [one.encode() for one in uris],
            "peer_dns": [one.encode() for one in dns],
            "x509_subject_alternative_name": [b"spiffe://beamlit/gateway"],
            "x509_common_name": [b"spiffe://beamlit/gateway"],
        }

    def auth_context(self):
        return self._context

    def invocation_metadata(self):
        return (("authorization", "Bearer a-token-says-nothing-here"),)

    def peer(self):
        return "ipv4:10.0.0.1:4711"


async def standing(admission: ClientAdmission, node: Node, connection: Certified) -> ClientStanding:
    async with admission.call(connection):
        return admission.standing(node, connection)


def admission(*bindings: str) -> ClientAdmission:
    made = ClientAdmission("token")
    made.require(Callers(ClientTable.of(map(parse_binding, bindings))))
    return made


@pytest.mark.parametrize(
    "text", ["gateway", "gateway/envoy-1", "sidecar/ns", "sidecar/ns/proxy", "reader", "controller"]
)
def test_a_grant_is_written_as_it_is_read(text):
    assert str(ClientGrant.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "gatewa", "GATEWAY", "gateway/", "gateway/a/b", "sidecar", "sidecar/", "sidecar/a/b/c", "reader/a", "/gateway",
     "controller/a", "gateway/a b", "gateway/../x", "gateway/" + "a" * 300, "sidecar/-a"],
)  # fmt: skip
def test_what_is_no_grant_is_refused_with_what_there_is(text):
    with pytest.raises(ValueError, match="is not gateway"):
        ClientGrant.parse(text)


@pytest.mark.parametrize(
    "text", ["gateway", "=gateway", "spiffe://a/b=", "spiffe://a/b=root", "a b=gateway", "x\n=gateway"]
)
def test_what_is_no_binding_is_refused(text):
    with pytest.raises(ValueError, match="is not"):
        parse_binding(text)


def test_a_binding_may_have_the_sign_in_its_name():
    assert parse_binding("spiffe://a/b=c=gateway/e") == ("spiffe://a/b=c", ClientGrant.parse("gateway/e"))


@pytest.mark.parametrize(
    ("grant", "scope", "node", "may"),
    [
        ("gateway", GATEWAY, "any", True),
        ("gateway/a", GATEWAY, "a", True),
        ("gateway/a", GATEWAY, "b", False),
        ("gateway/a", GATEWAY, "A", False),
        ("gateway/a", GATEWAY, "", True),
        ("gateway/a", GATEWAY, "debug/b", True),
        ("gateway", Scope(Role.SIDECAR, "ns"), "any", False),
        ("sidecar/ns", Scope(Role.SIDECAR, "ns"), "any", True),
        ("sidecar/ns", Scope(Role.SIDECAR, "other"), "any", False),
        ("sidecar/ns", GATEWAY, "any", False),
        ("sidecar/ns/a", Scope(Role.SIDECAR, "ns"), "b", False),
        ("reader", GATEWAY, "any", False),
        ("controller", GATEWAY, "any", False),
    ],
)
def test_who_may_join_as_which_node(grant, scope, node, may):
    assert ClientGrant.parse(grant).lets_join(Node(node, scope=scope)) is may


async def test_over_tls_the_certificate_alone_decides():
    node = Node("envoy-1", token="token")
    assert await standing(admission(), node, Certified("spiffe://beamlit/gateway")) == MEMBER
    assert await standing(admission(), node, Certified("spiffe://beamlit/reader")) == READER
    with pytest.raises(NotAllowedError, match=r"is gateway/envoy-2, and not the gateway 'envoy-1'"):
        await standing(admission(), node, Certified("spiffe://beamlit/gateway/envoy-2"))
    with pytest.raises(NotAllowedError, match=r"is controller, which is nobody for xDS"):
        await standing(admission(), node, Certified("spiffe://beamlit/controller"))


@pytest.mark.parametrize(
    "names",
    [(), ("spiffe://beamlit.evil/gateway",), ("SPIFFE://beamlit/gateway",),
     ("spiffe://beamlit/gateway/",), ("spiffe://beamlit/gateway%00",), ("spiffe://beamlit//gateway",), ("gateway",),
     ("spiffe://beamlit/gateway/@pod",)],
)  # fmt: skip
async def test_a_certificate_that_is_nobodys_is_refused_and_its_names_are_told(names):
    with pytest.raises(NotAllowedError, match="no client of this server has a certificate of these names: "):
        await standing(admission(), Node("a"), Certified(*names))


async def test_what_a_certificate_says_is_cut_and_made_printable():
    with pytest.raises(NotAllowedError) as refused:
        await standing(admission(), Node("a"), Certified(*(f"spiffe://x/\x1b[31m\n{'a' * 2000}" for _ in range(100))))
    assert len(str(refused.value)) < 2000
    assert str(refused.value).isprintable()


async def test_a_table_replaces_the_convention():
    table = admission("spiffe://cluster.local/ns/a/sa/envoy=gateway", "envoy.example=gateway/e", "envoy.example=reader")
    assert await standing(table, Node("any"), Certified("spiffe://cluster.local/ns/a/sa/envoy")) == MEMBER
    assert await standing(table, Node("e"), Certified(dns=("envoy.example",))) == MEMBER
    assert await standing(table, Node("other"), Certified(dns=("envoy.example",))) == READER
    with pytest.raises(NotAllowedError):
        await standing(table, Node("any"), Certified("spiffe://beamlit/gateway"))


async def test_accounts_are_bound_beside_the_convention_and_no_certificate_has_their_names():
    account = "system:serviceaccount:team-a:envoy"
    table = ClientTable.of(map(parse_binding, [f"{account}=sidecar/team-a/@pod", f"{account}=reader"]))
    assert {str(one) for one in table.grants_of_account(account, "envoy-0")} == {"sidecar/team-a/envoy-0", "reader"}
    assert {str(one) for one in table.grants_of_account(account, "")} == {"reader"}, "bound to no pod"
    assert table.grants_of_account("system:serviceaccount:team-b:envoy", "envoy-0") == frozenset()
    assert {str(one) for one in table.grants(["spiffe://beamlit/gateway"])} == {"gateway"}
    assert table.grants([account]) == frozenset()


@pytest.mark.parametrize(
    "text",
    ["system:serviceaccount:a=gateway", "system:serviceaccount:a:b:c=gateway", "system:serviceaccount:A:b=gateway",
     "system:serviceaccount::b=gateway", "spiffe://a/b=gateway/@pod", "system:serviceaccount:a:b=gateway/@node",
     "system:serviceaccount:a:b=sidecar/@pod"],
)  # fmt: skip
def test_what_is_no_binding_of_an_account_is_refused(text):
    with pytest.raises(ValueError, match=r"is not|is bound to no pod"):
        parse_binding(text)


def test_names_that_are_too_long_or_no_text_name_nobody():
    long = b"spiffe://beamlit/gateway/" + b"a" * 3000
    assert certified_names({"peer_uri": [long, b"\xff\xfe", b""]}) == ("\ufffd\ufffd",)


def test_without_tls_the_token_decides():
    plain = ClientAdmission("token")
    assert plain.standing(Node("a", token="token"), Certified()) == MEMBER
    assert plain.standing(Node("a", token="other"), Certified("spiffe://beamlit/gateway")) == READER
    assert ClientAdmission("").standing(Node("a"), Certified()) == ClientStanding(authorised=False, trusted=True)
