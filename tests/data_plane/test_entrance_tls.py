"""`spec.tls`: at its own port a model speaks TLS alone; on the port that all share it is found by the name (SNI).

A connection that was let in for one model is for that one: whoever writes another Host on it is misdirected (421).
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from base64 import b64encode
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trustme
from pydantic import SecretStr

from controller.api.contract.entrance import ClientValidation, EntranceTls
from tests.support.data_plane.backends import Backends
from tests.support.data_plane.model import SHARED_PORT, Model, Wanted
from tests.support.data_plane.plane import Plane
from tests.support.entrance import Trust, a_pair, authorities_of
from tests.support.waiting import until
from xds_server.resources.access_log import AccessLog

pytestmark = pytest.mark.asyncio(loop_scope="module")

XFCC = "x-forwarded-client-cert"
OWN = EntranceTls(certificates=("cert",))


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def trust(authority: trustme.CA, folder: Path) -> Trust:
    return Trust(authority, folder)


@dataclass(frozen=True)
class Client:
    """A connection that is kept, by HTTP/1."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def of(cls, plane: Plane, port: int, trust: Trust | None, name: str | None = None) -> Client:
        """Connect, over TLS unless nothing is trusted; `name` is who is asked for. Raises OSError (and SSLError)."""
        context = trust.context() if trust else None
        return cls(*await asyncio.open_connection(plane.network.host(1), port, ssl=context, server_hostname=name))

    async def ask(self, host: str = "a", *lines: str) -> tuple[int, dict[str, str]]:
        """Ask once; return the status and the headers. Raises OSError or EOFError where there is no answer."""
        head = "".join(f"{line}\r\n" for line in ("GET / HTTP/1.1", f"host: {host}", *lines))
        self.writer.write(f"{head}\r\n".encode())
        first, *rest = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower().strip().split("\r\n")
        headers = dict(line.split(": ", 1) for line in rest)
        await self.reader.readexactly(int(headers.get("content-length", "0")))
        return int(first.split()[1]), headers

    @property
    def certificate(self) -> bytes:
        connection: ssl.SSLObject = self.writer.get_extra_info("ssl_object")
        shown = connection.getpeercert(binary_form=True)
        assert shown
        return shown

    def close(self) -> None:
        self.writer.close()


async def asked(plane: Plane, port: int, trust: Trust | None, name: str | None, host: str = "a", *lines: str) -> int:
    """Ask once over a connection of its own; 0 where no answer is to be had."""
    try:
        client = await Client.of(plane, port, trust, name)
    except OSError:
        return 0
    try:
        return (await client.ask(host, *lines))[0]
    except (OSError, EOFError):
        return 0
    finally:
        client.close()


def over_tls(authority: trustme.CA, *names: str, tls: EntranceTls = OWN, hosts: tuple[str, ...] = ()) -> Wanted:
    """Ask for a model with a certificate for these names, in a Secret of the first of them."""
    own = tls.model_copy(update={"certificates": names[:1]})
    return Wanted(entrance=own, pairs=((names[0], a_pair(authority, *names)),), hosts=hosts)


async def test_its_own_port_speaks_tls_and_nothing_else(plane: Plane, authority: trustme.CA, trust: Trust) -> None:
    for alpn, chosen in ((OWN.alpn, "http/1.1"), (("h2", "http/1.1"), "h2")):
        model = await plane.serve(over_tls(authority, "chat.test", tls=OWN.model_copy(update={"alpn": alpn})))
        assert await asked(plane, model.port, trust, "chat.test") == 200
        assert await asked(plane, model.port, None, None) == 0
        with closing(await Client.of(plane, model.port, replace(trust, alpn=("h2", "http/1.1")), "chat.test")) as both:
            assert both.writer.get_extra_info("ssl_object").selected_alpn_protocol() == chosen


async def test_the_lowest_version_is_what_the_model_says(plane: Plane, authority: trustme.CA, trust: Trust) -> None:
    older = replace(trust, highest=ssl.TLSVersion.TLSv1_2)
    strict = EntranceTls(certificates=("cert",), min_version="1.3")
    for tls, answered in ((OWN, 200), (strict, 0)):
        model = await plane.serve(over_tls(authority, "chat.test", tls=tls))
        assert await asked(plane, model.port, older, "chat.test") == answered
        assert await asked(plane, model.port, trust, "chat.test") == 200


async def test_of_several_certificates_it_shows_that_of_the_name(
    plane: Plane, authority: trustme.CA, trust: Trust
) -> None:
    pairs = (("one", a_pair(authority, "one.test")), ("two", a_pair(authority, "two.test")))
    model = await plane.serve(Wanted(entrance=EntranceTls(certificates=("one", "two")), pairs=pairs))
    for name in ("one.test", "two.test"):  # which the client verifies
        assert await asked(plane, model.port, trust, name) == 200
    assert await asked(plane, model.port, trust, "three.test") == 0


async def test_a_certificate_is_replaced_without_ending_a_connection(
    plane: Plane, authority: trustme.CA, trust: Trust
) -> None:
    first = over_tls(authority, "chat.test", hosts=("rotating.a",))
    model = await plane.serve(first)
    counters = ("listener_modified", "listener_in_place_updated")
    before = [await plane.envoy.stat(f"listener_manager.{one}") for one in counters]
    with closing(await Client.of(plane, model.port, trust, "chat.test")) as kept:
        assert (await kept.ask())[0] == 200
        second = over_tls(authority, "chat.test", hosts=("rotating.a",))
        await plane.change(model, second)

        async def is_shown() -> bool:
            with closing(await Client.of(plane, model.port, trust, "chat.test")) as client:
                return client.certificate == ssl.PEM_cert_to_DER_cert(second.pairs[0][1].chain.get_secret_value())

        await until(is_shown, "new connections are shown the new certificate")
        status, headers = await kept.ask()
        assert (status, headers.get("connection")) == (200, None)
    assert [await plane.envoy.stat(f"listener_manager.{one}") for one in counters] == before
    await plane.withdraw(model)


async def test_no_key_is_shown(plane: Plane, authority: trustme.CA, trust: Trust) -> None:
    wanted = replace(over_tls(authority, "chat.test", hosts=("shown.a",)), access_log=AccessLog.ALL)
    model = await plane.serve(wanted)
    assert await asked(plane, model.port, trust, "chat.test") == 200
    dump = await plane.envoy.dump()
    assert "serving/ns/chat.test" in dump
    (_, pair), *_ = wanted.pairs
    lines = pair.key.get_secret_value().splitlines()[1:-1]
    words = {*lines, b64encode(pair.key.get_secret_value().encode()).decode()}
    assert not any(word in shown for word in words for shown in (dump, plane.envoy.process.log.read_text()))
    await plane.withdraw(model)


async def test_on_the_shared_port_a_connection_is_for_the_model_that_was_asked_for(
    plane: Plane, authority: trustme.CA, trust: Trust
) -> None:
    hosts = {"one": ("one.a", "one.a:80"), "two": ("two.a", "two.a:8000"), "plain": ("plain.a",)}
    names = {name: [f"{name}.a", f"{name}.a.svc.cluster.local"] for name in hosts}
    one, two = [await plane.serve(over_tls(authority, *names[name], hosts=hosts[name])) for name in ("one", "two")]
    plain = await plane.serve(Wanted(hosts=hosts["plain"]))
    for model in (one, two, plain):
        await plane.acknowledged(model)

    async def at(name: str | None, host: str) -> int:
        return await asked(plane, SHARED_PORT, trust if name else None, name, host)

    for host in ("one.a", "ONE.a.", "one.a:80", "one.a:443", "one.a.svc", "one.a.svc.cluster.local:443"):
        assert await at("one.a", host) == 200, host
    assert [await at("one.a.svc.cluster.local", "one.a"), await at("two.a", "two.a:8000")] == [200, 200]
    # Whoever was let in to one model reaches no other, with TLS or without, nor a port that is none of its.
    for host in ("two.a", "two.a:8000", "plain.a", "one.a:8000", "one", "nobody.a", ""):
        assert await at("one.a", host) in ((421,) if host else (400, 421)), host
    # Names that nobody has are nobody's.
    assert [await at("plain.a", "plain.a"), await at("nobody.a", "one.a")] == [0, 0]
    # In the clear a model with TLS is not there; the one without is.
    assert [await at(None, "one.a"), await at(None, "two.a:8000"), await at(None, "plain.a")] == [421, 421, 200]
    for model in (one, two, plain):
        await plane.withdraw(model)


async def test_who_comes_to_the_shared_port_and_goes_ends_no_connection_of_another(
    plane: Plane, authority: trustme.CA, trust: Trust
) -> None:
    first = await plane.serve(over_tls(authority, "first.a", hosts=("first.a",)))
    plain = await plane.serve(Wanted(hosts=("simple.a",)))

    async def whole_updates() -> int:
        modified, in_place = [
            await plane.envoy.stat(f"listener_manager.listener_{one}") for one in ("modified", "in_place_updated")
        ]
        return modified - in_place

    with contextlib.ExitStack() as stack:
        kept = {
            host: stack.enter_context(closing(await Client.of(plane, SHARED_PORT, trusted, host if trusted else None)))
            for host, trusted in (("first.a", trust), ("simple.a", None))
        }

        async def all_answer() -> None:
            for host, client in kept.items():
                status, headers = await client.ask(host)
                assert (status, headers.get("connection")) == (200, None), host

        await all_answer()
        before = await whole_updates()
        second = await plane.serve(over_tls(authority, "second.a", hosts=("second.a",)))
        await plane.acknowledged(second)
        assert await asked(plane, SHARED_PORT, trust, "second.a", "second.a") == 200
        await all_answer()
        await plane.withdraw(second)

        async def is_gone() -> bool:
            return await asked(plane, SHARED_PORT, trust, "second.a", "second.a") == 0

        await until(is_gone, "nobody has the name of the second")
        await all_answer()
        assert await whole_updates() == before
    for model in (first, plain):
        await plane.withdraw(model)


async def test_a_certificate_that_envoy_refuses_keeps_no_other_model_from_the_shared_port(
    plane: Plane, authority: trustme.CA, trust: Trust
) -> None:
    wanted = over_tls(authority, "refused.a", hosts=("refused.a",))
    (name, pair), other = wanted.pairs[0], a_pair(authority, "refused.a")
    refused = await plane.serve(replace(wanted, pairs=((name, replace(pair, key=other.key)),)), ready=False)
    await until(lambda: any(key.name == f"serving/ns/{name}" for key in plane.refused()), "the key is refused")
    model = await plane.serve(over_tls(authority, "next.a", hosts=("next.a",)))

    async def is_served() -> bool:
        return await asked(plane, SHARED_PORT, trust, "next.a", "next.a") == 200

    await until(is_served, "the next model is served")
    for one in (model, refused):
        await plane.withdraw(one)


def checking(authority: trustme.CA, clients: trustme.CA, **more: object) -> Wanted:
    """Ask for a model that asks clients for a certificate of an authority."""
    validation = ClientValidation.model_validate({"authorities": ("clients",), **more})
    tls = EntranceTls(certificates=("cert",), client_validation=validation)
    wanted = over_tls(authority, "chat.test", tls=tls)
    return replace(wanted, client_authorities=SecretStr(authorities_of(clients)))


async def test_who_has_to_show_a_certificate_is_let_in_with_one_of_those_authorities(
    plane: Plane, authority: trustme.CA, trust: Trust
) -> None:
    clients, others = trustme.CA(), trustme.CA()
    right = replace(trust, shown=clients.issue_cert("client.test"))
    wrong = replace(trust, shown=others.issue_cert("client.test"))
    for optional, without in ((None, 0), (True, 200)):
        model = await plane.serve(checking(authority, clients, optional=optional))
        found = [await asked(plane, model.port, one, "chat.test") for one in (right, wrong, trust)]
        assert found == [200, 0, without], optional


async def told_of_client(
    plane: Plane, backends: Backends, model: Model, trust: Trust, *lines: str
) -> dict[str, dict[str, str]]:
    """Ask, with something that a client may not say of itself, and return what each side was told."""
    probe = f"{model.key.name}-{len(lines)}"
    forged = f"{XFCC}: Hash=forged;Subject=forged"
    with closing(await Client.of(plane, model.port, trust, "chat.test")) as client:
        assert (await client.ask("a", f"probe: {probe}", forged, *lines))[0] == 200
    seen = backends.seen(probe)
    assert seen
    return {one["servedBy"][:5]: {name.lower(): value for name, value in one["headers"]} for one in seen}


async def test_replicas_are_told_of_a_certificate_if_the_model_asks_for_it_and_the_remote_backend_never(
    plane: Plane, backends: Backends, authority: trustme.CA, trust: Trust
) -> None:
    clients = trustme.CA()
    shown = replace(trust, shown=clients.issue_cert("client.test"))
    quiet = await plane.serve(checking(authority, clients))
    telling = checking(authority, clients, told=("DNS",))
    model, away = await plane.serve(telling), await plane.serve(replace(telling, away=100))
    for one in (quiet, model, away):
        await plane.healthy(one, 3)
    told = await told_of_client(plane, backends, quiet, shown)
    assert XFCC not in told["local"]
    told = await told_of_client(plane, backends, model, shown)
    assert "DNS=client.test" in told["local"][XFCC]
    assert "forged" not in told["local"][XFCC]
    told = await told_of_client(plane, backends, away, shown)
    assert XFCC not in told["remot"]
    # A replica that is asked since the remote backend did not answer is told what the front said.
    told = await told_of_client(plane, backends, away, shown, "on-remote: status=503")
    assert XFCC not in told["remot"]
    assert "DNS=client.test" in told["local"][XFCC]
    assert "forged" not in told["local"][XFCC]
