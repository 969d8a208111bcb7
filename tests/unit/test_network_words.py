"""Networks in words: read, put together, and what contradicts what."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrtc.errors import UsageError
from pyrtc.network_words import attachment, check_networks, container_of, decide_networks, mac_address
from pyrtc.options import NetworkAttachment, Port, RunOptions
from pyrtc.runtime.cgroups import Limits


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("web", NetworkAttachment("web")),
        ("default", NetworkAttachment("bridge")),
        ("host", NetworkAttachment("host")),
        ("container:db", NetworkAttachment("container:db")),
        ("name=web", NetworkAttachment("web")),
        ("name=web,ip=10.0.0.2", NetworkAttachment("web", "10.0.0.2")),
        ("ip6=FD00::2,name=web", NetworkAttachment("web", ip6="fd00::2")),
        ("name=web,alias=a,alias=b.c,alias=a", NetworkAttachment("web", aliases=("a", "b.c"))),
        ("name=web,mac-address=02-42-AC-11-00-02", NetworkAttachment("web", mac="02:42:ac:11:00:02")),
    ],
)
def test_an_attachment(word, expected):
    assert attachment(word) == expected


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("", "not the name of a network"),
        ("a b", "not the name of a network"),
        ("container:", "container is missing"),
        ("ip=10.0.0.2", "name of the network is missing"),
        ("name=web,ip=::1", "not an IPv4"),
        ("name=web,ip=127.0.0.1", "cannot be the address"),
        ("name=web,ip=224.0.0.1", "cannot be the address"),
        ("name=web,ip6=10.0.0.1", "not an IPv6"),
        ("name=web,ip6=fe80::1%eth0", "not an IPv6"),
        ("name=web,ip=1.2.3.4,ip=1.2.3.5", "said twice"),
        ("name=web,mac-address=01:00:5e:00:00:01", "no single device"),
        ("name=web,mac-address=00:00:00:00:00:00", "no single device"),
        ("name=web,mac-address=02:42", "not a MAC"),
        ("name=web,alias=a b", "not a name in a network"),
        ("name=web,alias=-a", "not a name in a network"),
        ("name=web,alias", "invalid field"),
        ("name=web,driver-opt=a", "when the network is made"),
        ("name=web,colour=red", "invalid field 'colour'"),
    ],
)
def test_no_attachment(word, text):
    with pytest.raises(UsageError, match=text):
        attachment(word)


@given(st.text(max_size=30) | st.from_regex(r"(name|ip|ip6|alias|mac-address|x)=[^,]{0,9}(,[a-z]+=.{0,9})*"))
def test_any_word_is_read_or_refused(word):
    try:
        found = attachment(word)
    except UsageError as error:
        assert str(error)
    else:
        assert found.network and not any(char.isspace() for char in found.network)


def test_an_address_in_a_mac_is_kept_whole():
    assert mac_address("02:00:00:00:00:01") == "02:00:00:00:00:01"


def test_what_the_network_is():
    web, db = NetworkAttachment("web"), NetworkAttachment("db", "10.0.0.2")
    assert decide_networks([], publishes=False) == ("none", ())
    assert decide_networks([], publishes=True) == ("bridge", (NetworkAttachment("bridge"),))
    assert decide_networks([web, db], publishes=True) == ("web", (web, db))
    assert decide_networks([NetworkAttachment("host")], publishes=False) == ("host", ())
    assert decide_networks([NetworkAttachment("container:x")], publishes=False) == ("container:x", ())


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ([NetworkAttachment("web"), NetworkAttachment("none")], "cannot attach both"),
        ([NetworkAttachment("container:a"), NetworkAttachment("container:b")], "cannot attach both"),
        ([NetworkAttachment("web"), NetworkAttachment("web")], "named twice"),
        ([NetworkAttachment("host", ip="10.0.0.1")], "a user specified address and the network mode host"),
        ([NetworkAttachment("none", aliases=("a",))], "aliases and the network mode none"),
        ([NetworkAttachment("container:a", mac="02:00:00:00:00:01")], "mac-address and the network mode"),
    ],
)
def test_contradictions(asked, text):
    with pytest.raises(UsageError, match=text):
        decide_networks(asked, publishes=False)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"network": "none", "egress": ()}, "--egress restricts"),
        ({"network": "none", "limits": Limits(network_in=8000)}, "--network-rate-in and -out limit"),
        ({"network": "none", "ports": (Port(80),)}, "port publishing and the network mode none"),
        ({"network": "host", "publish_all": True}, "port publishing and the network mode host"),
        ({"network": "container:a", "ports": (Port(80),)}, "port publishing and the container type"),
        ({"network": "container:a", "expose": (Port(80),)}, "port exposing and the container type"),
        ({"network": "container:a", "hostname": "x"}, "hostname and the network mode"),
        ({"network": "container:a", "dns": ("1.1.1.1",)}, "dns and the network mode"),
        ({"network": "container:a", "add_host": (("a", "1.1.1.1"),)}, "custom host-to-IP mapping"),
    ],
)
def test_options_that_contradict_the_network(options, text):
    with pytest.raises(UsageError, match=text):
        check_networks(RunOptions(**options))


def test_options_that_do_not():
    check_networks(RunOptions(network="host", hostname="x"))
    check_networks(RunOptions(network="container:a"))
    check_networks(RunOptions(network="web", networks=(NetworkAttachment("web"),), ports=(Port(80),)))
    # It has been disconnected from it.
    check_networks(RunOptions(network="web", ports=(Port(80),), egress=(), limits=Limits(network_in=8000)))
    assert container_of("container:a") == "a" and container_of("web") is None
