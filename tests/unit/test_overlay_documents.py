"""What is read from etcd is held to what can be: anybody may have written it."""

import json

import pytest

from pyrtc.ip import number, parse_subnet
from pyrtc.network.overlay.documents import (
    CLUSTER,
    EndpointDocument,
    HostDocument,
    NetworkDocument,
    Wrong,
    block_key,
    block_of,
    check_unicast,
    dump,
    encrypts,
    endpoint_key,
    host_key,
    live_key,
    network_key,
    read_endpoint,
    read_host,
    read_network,
    tunnel_address,
)
from pyrtc.network.overlay.etcd import Item
from pyrtc.network.overlay.view import view_of

HOST, OTHER = "a" * 32, "b" * 32
NETWORK = "c" * 64
CONTAINER = "d" * 64
KEY, OTHER_KEY = "oKr5/0z6yKOfD+f+/n8sbGTyob1No+WTTXmgn/w8gSs=", "lfjEdvCCqGV9xGDgA7l6A6wGALAdHnY/KM0PnMs/L2I="
SUBNET = parse_subnet("10.70.0.0/16")


def host(**changes):
    return dump(HostDocument(**{"name": "h1", "vtep": "192.0.2.1", "mtu": 1500, "version": "0.1.0", **changes}))


def network(**changes):
    words = {"id": NETWORK, "vni": 5000, "subnet": "10.70.0.0/16", "gateway": "10.70.0.1", "mtu": 1450, "created": 1.5}
    return dump(NetworkDocument(**{**words, **changes}))


def endpoint(**changes):
    words = {"host": HOST, "mac": "02:00:00:00:00:05", "container": CONTAINER, "names": ["db", "db-1.x_y"]}
    return dump(EndpointDocument(**{**words, **changes}))


def items(**changes):
    found = {
        CLUSTER: b"e" * 32,
        host_key(HOST): host(),
        host_key(OTHER): host(name="h2", vtep="192.0.2.2"),
        live_key(HOST): b"",
        network_key("web"): network(),
        block_key(NETWORK, "10.70.1.0/26"): HOST.encode(),
        block_key(NETWORK, "10.70.2.64/26"): OTHER.encode(),
        block_key(NETWORK, "10.70.3.0/26"): b"*",
        endpoint_key(NETWORK, "10.70.1.5"): endpoint(),
        endpoint_key(NETWORK, "10.70.3.7"): endpoint(host=OTHER, mac="02:00:00:00:00:06"),
        "/pyrtc/v1/something/else": b"x",
    }
    found.update(changes.pop("more", {}))
    return [Item(key, value, 1, 7) for key, value in found.items() if value is not None]


def test_a_cluster_is_read():
    view = view_of(items())
    assert view.cluster == "e" * 32
    assert {key: value.name for key, value in view.hosts.items()} == {HOST: "h1", OTHER: "h2"}
    assert view.live == {HOST}
    assert view.networks["web"].vni == 5000
    assert view.blocks[NETWORK] == {"10.70.1.0/26": HOST, "10.70.2.64/26": OTHER, "10.70.3.0/26": "*"}
    assert {address: written.document.host for address, written in view.endpoints[NETWORK].items()} == {
        "10.70.1.5": HOST,
        "10.70.3.7": OTHER,
    }
    assert view.wrong == ()


def test_nothing_is_a_cluster_too():
    view = view_of([])
    assert (view.cluster, view.hosts, view.networks, view.wrong) == ("", {}, {}, ())


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        (endpoint_key(NETWORK, "10.70.2.70"), endpoint(), "block"),  # of the other host
        (endpoint_key(NETWORK, "10.70.9.70"), endpoint(), "block"),  # of nobody
        (endpoint_key(NETWORK, "10.71.1.5"), endpoint(), "address"),
        (endpoint_key(NETWORK, "10.70.0.0"), endpoint(), "address"),
        (endpoint_key(NETWORK, "010.70.1.5"), endpoint(), "address"),
        (endpoint_key(NETWORK, "x"), endpoint(), "address"),
        (endpoint_key(NETWORK, "10.70.1.6"), endpoint(host="f" * 32), "no such host"),
        (endpoint_key(NETWORK, "10.70.1.6"), endpoint(mac="01:00:00:00:00:05"), "MAC"),
        (endpoint_key(NETWORK, "10.70.1.6"), endpoint(mac="02-00-00-00-00-05"), "mac"),
        (endpoint_key(NETWORK, "10.70.1.6"), endpoint(names=["a b"]), "names"),
        (endpoint_key(NETWORK, "10.70.1.6"), endpoint(names=["a\nb"]), "names"),
        (endpoint_key(NETWORK, "10.70.1.6"), endpoint(names=["x"] * 100), "names"),
        (endpoint_key(NETWORK, "10.70.1.6"), b"[]", "Expected"),
        (endpoint_key(NETWORK, "10.70.1.6"), b"x" * 20000, "bytes"),
        (block_key(NETWORK, "10.71.1.0/26"), HOST.encode(), "no such block"),
        (block_key(NETWORK, "10.70.1.0/24"), HOST.encode(), "block"),
        (block_key(NETWORK, "10.70.1.64/26"), b"me", "not an id"),
        (host_key("x"), host(), "not an id"),
        (network_key("a/b"), network(id="9" * 64), "name"),
        (network_key("a b"), network(id="9" * 64), "name"),
        (CLUSTER, b"", "not an id"),
    ],
)
def test_what_cannot_be_is_left_out_and_named(key, value, words):
    whole = view_of(items())
    view = view_of(items(more={key: value}))
    assert len(view.wrong) == 1 and words in view.wrong[0]
    assert view.endpoints == whole.endpoints
    assert view.networks == whole.networks
    assert view.hosts == whole.hosts


def test_hosts_that_say_they_have_one_address_are_both_left_out():
    view = view_of(items(more={host_key("f" * 32): host(vtep="192.0.2.1")}))
    assert set(view.hosts) == {OTHER}
    assert set(view.endpoints[NETWORK]) == {"10.70.3.7"}
    assert "2 hosts say that they have 192.0.2.1" in view.wrong


def test_hosts_tell_keys():
    assert view_of(items()).keys == {}
    view = view_of(items(more={host_key(HOST): host(key=KEY)}))
    assert view.keys == {HOST: KEY} and view.wrong == ()


def test_of_two_hosts_with_one_key_nobody_is_sent_anything_encrypted():
    """Whoever copied it: what is for one of them would be sent to the other. Without encryption they go on."""
    view = view_of(
        items(more={host_key(HOST): host(key=KEY), host_key(OTHER): host(name="h2", vtep="192.0.2.2", key=KEY)})
    )
    assert view.keys == {} and set(view.hosts) == {HOST, OTHER}
    assert len(view.wrong) == 1 and KEY in view.wrong[0]


def test_of_two_hosts_with_one_address_in_the_tunnel_nobody_is_sent_anything_encrypted():
    twin = HOST[:16] + "9" * 16
    assert tunnel_address(twin) == tunnel_address(HOST) == "fe80::aaaa:aaaa:aaaa:aaaa"
    view = view_of(items(more={host_key(HOST): host(key=KEY), host_key(twin): host(vtep="192.0.2.3", key=OTHER_KEY)}))
    assert view.keys == {} and set(view.hosts) == {HOST, OTHER, twin}
    assert "fe80::aaaa:aaaa:aaaa:aaaa" in view.wrong[0]


def test_an_encrypted_network_is_one_whatever_the_value():
    _name, document = read_network(network_key("web"), network(options={"encrypted": "false"}))
    assert encrypts(document.options)
    assert not encrypts(read_network(network_key("web"), network(options={"mtu": "1400"}))[1].options)


def test_many_wrong_things_are_not_all_named():
    view = view_of(items(more={endpoint_key(NETWORK, f"10.70.9.{number}"): endpoint() for number in range(100)}))
    assert len(view.wrong) == 20
    assert len(view.endpoints[NETWORK]) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "c" * 32},
        {"vni": 0},
        {"vni": 1 << 24},
        {"subnet": "10.70.0.1/16"},
        {"subnet": "10.70.0.0/27"},
        {"subnet": "0.0.0.0/8"},
        {"subnet": "127.0.0.0/8"},
        {"subnet": "224.0.0.0/8"},
        {"subnet": "169.254.0.0/16"},
        {"subnet": "fd00::/64"},
        {"gateway": "10.71.0.1"},
        {"gateway": "10.70.255.255"},
        {"gateway": ""},
        {"mtu": 100},
        {"mtu": 1 << 20},
        {"labels": {str(number): "" for number in range(100)}},
        {"labels": {"a": "x" * 5000}},
        {"range": "10.71.0.0/24"},
        {"range": "10.70.1.0/27"},
        {"range": "10.70.1.5/24"},
        {"range": "x"},
        {"auxiliary": {"a": "10.71.0.5"}},
        {"auxiliary": {"a": "10.70.0.1"}},  # the gateway
        {"auxiliary": {"a": "10.70.0.0"}},
        {"auxiliary": {"a": "fd00::1"}},
        {"auxiliary": {"a": "010.70.0.5"}},
        {"auxiliary": {"a b": "10.70.0.5"}},
        {"auxiliary": {f"n{number}": f"10.70.1.{number}" for number in range(1, 260)}},
    ],
)
def test_networks_that_cannot_be(changes):
    with pytest.raises(Wrong):
        read_network(network_key("web"), network(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"name": "a b"},
        {"vtep": "127.0.0.1"},
        {"vtep": "fe80::1"},
        {"vtep": "x"},
        {"mtu": 0},
        {"version": "\n"},
        {"key": "x"},
        {"key": "A" * 43 + "="},  # of all zeros
        {"key": "A" * 42 + "B="},  # 32 bytes and bits beyond them
        {"key": KEY[:-1]},
        {"key": KEY + "\n"},
        {"key": "\u0661" * 43 + "="},
    ],
)
def test_hosts_that_cannot_be(changes):
    with pytest.raises(Wrong):
        read_host(host_key(HOST), host(**changes))


def test_documents_of_other_types_are_refused():
    for text in ({"name": 1, "vtep": "192.0.2.1", "mtu": 1500}, {"name": "h"}, [], "h", None):
        with pytest.raises(Wrong):
            read_host(host_key(HOST), json.dumps(text).encode())
    with pytest.raises(Wrong):
        read_endpoint(endpoint_key(NETWORK, "10.70.1.5"), b"\xff", SUBNET)


@pytest.mark.parametrize(
    "text",
    ["0.0.0.0", "127.1.2.3", "169.254.1.1", "224.0.0.5", "255.255.255.255", "::", "::1", "fe80::1", "ff02::1",
     "::ffff:192.0.2.1", "", "x", "192.0.2.1/24"],
)  # fmt: skip
def test_addresses_that_no_other_host_reaches(text):
    with pytest.raises(Wrong):
        check_unicast(text)


def test_addresses_that_others_reach():
    assert check_unicast("192.0.2.1") == "192.0.2.1"
    assert check_unicast("2001:DB8:0::1") == "2001:db8::1"


def test_the_block_of_an_address():
    assert str(block_of(number("10.70.1.127")[1])) == "10.70.1.64/26"
    assert str(block_of(number("10.70.1.0")[1])) == "10.70.1.0/26"
