"""Which of the gateways that are ready get their configuration."""

from dataclasses import replace

from controller.api.contract.reports import RouteReport
from controller.observe.gateways import not_connected, ready_gateways
from controller.observe.proxies import ProxyFacts, ServerFacts
from tests.support.objects import a_slice


def gateways(*endpoints, family="IPv4"):
    """A slice of the gateway's Service: pairs of a pod (empty for none) and an address, `False` for one not ready."""
    found = [
        {
            "addresses": [address],
            "conditions": {"ready": not rest},
            **({"targetRef": {"kind": "Pod", "name": pod}} if pod else {}),
        }
        for pod, address, *rest in endpoints
    ]
    return a_slice("gateway").of(family)._with(found, "endpoints").stored()


def reported(*names, connected=None, says=True):
    """What one xDS server says: the names of its Envoys, or (`says` False) how many they are and no more."""
    report = RouteReport(namespace="default", name="a", route="x", connected=len(names))
    count = report.model_copy(update={"connected": connected}) if connected is not None else report
    return ProxyFacts((ServerFacts(count, 0, "xds", frozenset(names) if says else None),))


TWO = gateways(("gateway-a", "10.9.0.1"), ("gateway-b", "10.9.0.2"))


def test_a_gateway_is_known_by_the_name_of_its_pod_or_by_its_address():
    assert not_connected([TWO], reported("gateway-a", "gateway-b")) == ""
    assert not_connected([TWO], reported("10.9.0.2", "other", "10.9.0.1")) == ""


def test_a_pod_that_drains_is_not_taken_for_the_new_one():
    draining = gateways(("gateway-a", "10.9.0.1"), ("gateway-b", "10.9.0.2"), ("gateway-old", "10.9.0.3", "drains"))
    words = not_connected([draining], reported("gateway-a", "gateway-old", "10.9.0.1", "10.9.0.3", connected=2))
    assert words == "of 2 gateways that are ready the xDS servers do not have gateway-b"


def test_a_pod_that_drains_is_not_taken_for_the_only_new_one():
    rolled = gateways(("gateway-new", "10.9.0.1"), ("gateway-old", "10.9.0.3", "drains"))
    words = "of 1 gateways that are ready the xDS servers do not have gateway-new"
    assert not_connected([rolled], reported("gateway-old", "10.9.0.3", connected=1)) == words
    assert not_connected([rolled], reported("mine", "10.9.0.3", connected=2)) == words
    assert not_connected([rolled], reported("gateway-old", "gateway-new")) == ""


def test_of_many_that_are_missing_three_are_named():
    many = gateways(*((f"gateway-{number}", f"10.9.0.{number}") for number in range(1, 7)))
    words = not_connected([many], reported("gateway-1", *("a", "b", "c", "d", "e")))
    assert words.endswith("do not have gateway-2, gateway-3, gateway-4 and 2 more")


def test_where_none_is_known_they_are_counted():
    words = "2 gateways are ready, and 1 Envoys are connected to the xDS servers"
    assert not_connected([TWO], reported("mine")) == words
    assert not_connected([TWO], reported("mine", "yours")) == ""
    assert not_connected([TWO], reported(connected=1, says=False)) == words
    assert not_connected([TWO], reported(connected=2, says=False)) == ""


def test_who_comes_and_does_not_count_is_told_with_those_that_are_missing():
    why = "the client at 10.9.0.2 is no Envoy of ours: it does not carry the node token"
    (said,) = reported("gateway-a").replicas
    words = not_connected([TWO], ProxyFacts((replace(said, refused=why),)))
    assert words == f"of 2 gateways that are ready the xDS servers do not have gateway-b: {why}"
    (said,) = reported("mine").replicas
    assert not_connected([TWO], ProxyFacts((replace(said, refused=why),))).endswith(
        f"connected to the xDS servers: {why}"
    )


def test_who_is_none_of_the_gateways_that_are_missing_is_told_to_nobody_here():
    (said,) = reported("gateway-a").replicas
    for address in ("10.9.0.1", "10.9.0.20", "10.7.0.9"):
        stranger = replace(said, refused=f"the client at {address} is no Envoy of ours: it is of another namespace")
        missing = not_connected([TWO], ProxyFacts((stranger,)))
        assert missing == "of 2 gateways that are ready the xDS servers do not have gateway-b"
        named_so = gateways(("gateway-a", "10.9.0.8"), ("client", "10.9.0.9"))
        assert not_connected([named_so], ProxyFacts((stranger,))).endswith("do not have client")


def test_replicas_of_the_xds_server_have_some_each_and_one_of_them_may_not_say_whom():
    one, other = reported("gateway-a"), reported("gateway-b")
    assert not_connected([TWO], ProxyFacts((*one.replicas, *other.replicas))) == ""
    silent = reported(connected=0, says=False)
    assert "1 Envoys" in not_connected([TWO], ProxyFacts((*one.replicas, *silent.replicas)))


def test_an_address_of_each_family_is_one_gateway():
    four, six = gateways(("gateway-a", "10.9.0.1")), gateways(("gateway-a", "fd00::1"), family="IPv6")
    (found,) = ready_gateways([four, six])
    assert found.known_as == {"gateway-a", "10.9.0.1", "fd00::1"}
    bare = [gateways(("", "10.9.0.1"), ("", "10.9.0.2")), gateways(("", "fd00::1"), family="IPv6")]
    assert [one.name for one in ready_gateways(bare)] == ["10.9.0.1", "10.9.0.2"]
    assert ready_gateways([]) == ()
