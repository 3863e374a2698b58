"""Where remote backends and token endpoints may be."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.api.destinations import ANYWHERE, OUTSIDE, HostList, parse_destination


@pytest.mark.parametrize(
    ("text", "usual"),
    [
        ("10.1.0.0/16", "10.1.0.0/16"),
        ("10.1.2.3", "10.1.2.3/32"),
        ("FD00::1", "fd00::1/128"),
        ("Models.Example.", "models.example"),
        ("*.Example.com", "*.example.com"),
        ("private", "private"),
    ],
)
def test_an_entry_is_written_in_its_usual_form(text, usual):
    assert parse_destination(text) == usual
    assert parse_destination(usual) == usual


@pytest.mark.parametrize(
    "text",
    ["", ".", "*", "*.", "a.*.b", "10.1.2.3/16", "10.0.0.0/33", "127.1", "0x7f000001", "a/8", "a b", "-a", "a" * 64],
)
def test_what_is_no_entry_is_refused(text):
    with pytest.raises(ValueError, match="must be a range such as"):
        parse_destination(text)


def test_a_name_is_in_a_list_itself_or_below_another_one():
    listed = HostList.of(["models.example", "*.internal.example"])
    for name in ("models.example", "Models.Example.", "a.internal.example", "a.b.internal.example"):
        assert listed.has_name(name), name
    for name in ("a.models.example", "internal.example", "xinternal.example", "example", ""):
        assert not listed.has_name(name), name


def test_what_is_denied_goes_before_what_is_allowed_and_that_before_what_is_beside_the_gateway():
    found = OUTSIDE.configured(allow=["127.0.0.0/8", "10.0.0.0/8"], deny=["10.1.0.0/16", "*.corp"])
    assert found.refused_address("127.0.0.1") is None
    assert found.refused_address("10.2.0.1") is None
    assert found.refused_address("10.1.0.1") == "denied by the configuration (remoteBackends.deny)"
    assert found.refused_address("::ffff:10.1.0.1") == "denied by the configuration (remoteBackends.deny)"
    assert found.refused_host("db.corp") == "denied by the configuration (remoteBackends.deny)"
    assert found.refused_address("::1") == "a loopback address"


def test_private_addresses_are_refused_by_one_word_but_for_those_that_are_allowed():
    found = OUTSIDE.configured(allow=["10.7.0.0/16"], deny=["private"])
    for address in ("10.0.0.1", "192.168.0.1", "172.20.0.1", "100.64.0.1", "fd00::1", "64:ff9b::a00:1"):
        assert found.refused_address(address) == "a private address", address
        assert OUTSIDE.refused_address(address) is None
    assert found.refused_address("10.7.0.1") is None
    assert found.refused_address("203.0.113.1") is None
    # Both in one list: it is allowed.
    assert OUTSIDE.configured(allow=["private"], deny=["private"]).refused_address("10.0.0.1") is None


def test_a_range_that_is_allowed_brings_no_metadata_server_along():
    wide = OUTSIDE.configured(allow=["0.0.0.0/0", "::/0", "private"], deny=[])
    for address in ("169.254.169.254", "100.100.100.200", "fd00:ec2::254", "::ffff:169.254.169.254"):
        assert wide.refused_address(address) == "the address of a cloud's metadata server", address
    itself = OUTSIDE.configured(allow=["169.254.169.254/32"], deny=[])
    assert itself.refused_address("169.254.169.254") is None


def test_a_name_that_is_allowed_may_lead_anywhere_and_another_one_may_not():
    found = OUTSIDE.configured(allow=["models.example"], deny=[])
    assert found.may_lead_anywhere("models.example.")
    assert not found.may_lead_anywhere("other.example")
    # An address is looked at as it is written.
    assert found.may_lead_anywhere("203.0.113.1")
    assert ANYWHERE.may_lead_anywhere("other.example")
    assert found.also_allowing(["Default.Example"]).may_lead_anywhere("default.example")


def test_in_a_folder_only_what_is_denied_is_refused():
    found = ANYWHERE.configured(allow=[], deny=["10.0.0.0/8"])
    assert found.refused_address("127.0.0.1") is None
    assert found.refused_address("10.0.0.1")
    assert not found.may_lead_anywhere("a.example")


@given(st.ip_addresses())
def test_the_ranges_that_envoy_is_told_of_refuse_the_same_addresses(address):
    for found in (
        OUTSIDE,
        ANYWHERE,
        OUTSIDE.configured(allow=["10.7.0.0/16", "::/8", "2002::/17"], deny=["private", "64.0.0.0/2", "8000::/1"]),
    ):
        refused = any(address in one for one in found.denied) or (
            any(address in one for one in found.refused_by_default) and not any(address in one for one in found.allowed)
        )
        assert refused == bool(found.refused_address(str(address))), address


@given(st.ip_addresses(v=4), st.sampled_from(["::ffff:{}", "64:ff9b::{}", "2002:{}::"]))
def test_the_ways_of_ipv6_to_an_address_are_refused_with_it(address, way):
    high, low = int(address) >> 16, int(address) & 0xFFFF
    other = ipaddress.ip_address(way.format(f"{high:x}:{low:x}"))
    found = OUTSIDE.configured(allow=["10.7.0.0/16"], deny=["private"])
    refused = any(other in one for one in found.denied) or (
        any(other in one for one in found.refused_by_default) and not any(other in one for one in found.allowed)
    )
    assert refused == bool(found.refused_address(str(other))) == bool(found.refused_address(str(address)))
