"""The certificates as Secrets: what is due, what a crash between two writes leaves, how an authority is replaced."""

import base64
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from controller.programs.certificate_secrets import SETTLED, CertificateSecrets
from controller.programs.certificates import Lifetimes, Wanted, parse_grants
from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import ConflictError
from tests.support.store import MemoryStore

NOW = datetime(2027, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
WANTED = Wanted(("xds.beamlit.svc",), parse_grants(("gateway", "controller")), Lifetimes(90 * DAY, 400 * DAY))
NAMES = ("beamlit-ca", "beamlit-xds-server-tls", "beamlit-gateway-tls", "beamlit-controller-tls")
PROGRAMS = NAMES[1:]


def empty(name):
    """A Secret as the chart makes it: without data."""
    metadata = {"namespace": "system", "name": name, "uid": f"uid-{name}", "resourceVersion": "1"}
    raw = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque"}
    return StoredObject(ObjectRef("Secret", "system", name), raw)


class Place:
    """The Secrets of a release, over time."""

    def __init__(self, store=None, wanted=WANTED):
        self.store = store or MemoryStore(map(empty, NAMES))
        self.secrets = CertificateSecrets(self.store, ("system", "beamlit"), wanted)

    async def at(self, now):
        """Look, and return the Secrets that were written."""
        done, ends = await self.secrets.make_due(now)
        assert set(ends) == set(NAMES)
        return {str(one.folder) for one in done}

    def data(self, name):
        return self.store[ObjectRef("Secret", "system", name)].raw.get("data") or {}

    def certificates(self, name, file):
        return x509.load_pem_x509_certificates(base64.b64decode(self.data(name)[file]))

    def signer(self, name):
        """Which authority signed the certificate of a program, by its name."""
        (leaf,) = self.certificates(name, "tls.crt")
        return leaf.issuer

    @property
    def authority(self):
        return self.certificates("beamlit-ca", "ca.crt")[0].subject

    def everybody_believes(self, *names):
        return all({one.subject for one in self.certificates(one, "ca.crt")} >= set(names) for one in PROGRAMS)


async def test_empty_secrets_are_filled_and_then_left_alone():
    place = Place()
    assert await place.at(NOW) == set(NAMES)
    assert {name: sorted(place.data(name)) for name in NAMES} == {
        "beamlit-ca": ["ca.crt", "ca.key"],
        **{name: ["ca.crt", "tls.crt", "tls.key"] for name in PROGRAMS},
    }
    written = [place.store[ObjectRef("Secret", "system", name)] for name in NAMES]
    assert await place.at(NOW + DAY) == set()
    assert [place.store[one.ref] for one in written] == written


async def test_what_is_not_there_is_made():
    place = Place(MemoryStore())
    await place.at(NOW)
    assert place.data("beamlit-gateway-tls").keys() == {"ca.crt", "tls.crt", "tls.key"}


@pytest.mark.parametrize(("days", "is_due"), [(59, False), (61, True)])
async def test_certificates_are_renewed_when_a_third_of_their_time_is_left(days, is_due):
    place = Place()
    await place.at(NOW)
    authority = place.authority
    assert (await place.at(NOW + days * DAY) >= set(PROGRAMS)) == is_due
    assert place.authority == authority


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: {},
        lambda data: {**data, "tls.key": None},
        lambda data: {**data, "tls.crt": base64.b64encode(b"no certificate").decode()},
        lambda data: {**data, "ca.crt": "no base64"},
        lambda data: {name: data[name] for name in ("ca.crt", "tls.crt")},
    ],
    ids=["empty", "no-key", "no-certificate", "no-base64", "half"],
)
async def test_a_secret_that_was_spoilt_is_made_anew_by_the_same_authority(spoil):
    place = Place()
    await place.at(NOW)
    authority, ref = place.authority, ObjectRef("Secret", "system", "beamlit-gateway-tls")
    stored = place.store[ref]
    spoilt = {name: value for name, value in spoil(stored.raw["data"]).items() if value is not None}
    place.store.put(StoredObject(ref, {**stored.raw, "data": spoilt}))
    assert await place.at(NOW + DAY) >= set(PROGRAMS)
    assert place.signer("beamlit-gateway-tls") == place.authority == authority


async def test_a_certificate_for_other_names_is_made_anew():
    place = Place()
    await place.at(NOW)
    renamed = Wanted(("xds.other.svc",), WANTED.grants, WANTED.lifetimes)
    assert await Place(place.store, renamed).at(NOW + DAY) >= {"beamlit-xds-server-tls"}


async def test_an_authority_is_made_known_a_day_before_it_signs_and_the_one_before_is_believed_until_it_ends():
    place = Place()
    await place.at(NOW)
    first = place.authority
    near = NOW + 400 * DAY - 90 * DAY - SETTLED
    while await place.at(NOW) != set():
        pass
    await place.at(near)  # renews and announces, one step at a time
    await place.at(near)
    (second,) = {one.subject for one in place.certificates("beamlit-ca", "next.crt")}
    assert place.authority == first
    assert place.everybody_believes(first, second)
    assert await place.at(near + SETTLED - timedelta(minutes=1)) == set()
    assert await place.at(near + SETTLED) >= set(PROGRAMS)
    assert place.authority == second
    assert {place.signer(one) for one in PROGRAMS} == {second}
    assert place.everybody_believes(first, second)
    assert "next.crt" not in place.data("beamlit-ca")
    assert "next.key" not in place.data("beamlit-ca")
    over = NOW + 401 * DAY
    await place.at(over)
    assert not place.everybody_believes(first)
    assert place.everybody_believes(second)


async def test_an_authority_does_not_sign_before_every_program_was_given_it():
    """The program ended after it had written the authority, and before the Secrets of programs."""
    place = Place()
    await place.at(NOW)
    near = NOW + 400 * DAY - 90 * DAY
    await place.at(near)  # renews
    first, before = place.authority, {name: place.data(name) for name in PROGRAMS}
    await place.at(near)  # announces
    for name, data in before.items():
        ref = ObjectRef("Secret", "system", name)
        place.store.put(StoredObject(ref, {**place.store[ref].raw, "data": data}))
    later = near + 2 * SETTLED
    await place.at(later)
    assert place.authority == first
    (second,) = {one.subject for one in place.certificates("beamlit-ca", "next.crt")}
    assert place.everybody_believes(first, second)
    assert await place.at(later + timedelta(hours=1)) == set()


async def test_an_authority_that_has_ended_gives_way_to_another_one():
    place = Place()
    await place.at(NOW)
    first = place.authority
    assert await place.at(NOW + 401 * DAY) == set(NAMES)
    assert place.authority != first
    assert {place.signer(one) for one in PROGRAMS} == {place.authority}


async def test_of_two_who_make_them_at_once_one_writes():
    store = MemoryStore(map(empty, NAMES))
    mine, theirs = Place(store), Place(store)
    read = await mine.secrets._read()
    await theirs.at(NOW)
    with pytest.raises(ConflictError):
        await mine.secrets._write(read, WANTED, NOW)
    assert await mine.at(NOW) == set()


async def test_run_by_hand_everything_is_made_anew_and_a_new_authority_signs_with_the_next_run():
    place = Place()
    await place.secrets.make_all(NOW)
    first = place.authority
    anew = Wanted(WANTED.server_names, WANTED.grants, WANTED.lifetimes, new_authority=True)
    await Place(place.store, anew).secrets.make_all(NOW)
    assert {place.signer(one) for one in PROGRAMS} == {first}
    await place.secrets.make_all(NOW)
    assert place.authority != first
    assert {place.signer(one) for one in PROGRAMS} == {place.authority}
    assert place.everybody_believes(first, place.authority)
