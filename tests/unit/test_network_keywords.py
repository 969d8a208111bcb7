"""Keyword arguments about networks."""

import pytest

from pyrtc.api import make_options
from pyrtc.errors import UsageError
from pyrtc.options import NetworkAttachment, Port


@pytest.mark.parametrize(
    ("keywords", "network", "networks"),
    [
        ({"network": "web"}, "web", (NetworkAttachment("web"),)),
        ({"network": NetworkAttachment("web", "10.0.0.2")}, "web", (NetworkAttachment("web", "10.0.0.2"),)),
        ({"network": ["web", NetworkAttachment("db")]}, "web", (NetworkAttachment("web"), NetworkAttachment("db"))),
        ({"network": "container:x"}, "container:x", ()),
        ({"network": "web", "ip": "10.0.0.2"}, "web", (NetworkAttachment("web", "10.0.0.2"),)),
        ({"network": "web", "network_aliases": ["a"]}, "web", (NetworkAttachment("web", aliases=("a",)),)),
        ({"network": "web", "mac_address": "02:00:00:00:00:01"}, "web",
         (NetworkAttachment("web", mac="02:00:00:00:00:01"),)),
        ({"network": "web", "ip6": "fd00::2"}, "web", (NetworkAttachment("web", ip6="fd00::2"),)),
        ({"ports": [80]}, "bridge", (NetworkAttachment("bridge"),)),
        ({"publish_all": True}, "bridge", (NetworkAttachment("bridge"),)),
        ({"publish_all": False}, "none", ()),
        ({"network": "host", "expose": [80]}, "host", ()),
    ],
)  # fmt: skip
def test_networks(keywords, network, networks):
    made = make_options(None, **keywords)
    assert (made.network, made.networks) == (network, networks)
    hash(made)


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        ([80, "8080:81/udp"], (Port(80), Port(81, "udp", 8080))),
        ([Port(80, host=8080)], (Port(80, host=8080),)),
        ([Port(80, ip="::1")], (Port(80, ip="::1"),)),
        ([Port(80, host=8000, host_last=8010)], (Port(80, host=8000, host_last=8010),)),
        ({80: 8080}, (Port(80, host=8080),)),
        ({"53/udp": None}, (Port(53, "udp"),)),
        ({80: 0}, (Port(80),)),
        ({80: ("127.0.0.1", 8080)}, (Port(80, host=8080, ip="127.0.0.1"),)),
        ({80: ("127.0.0.1", None)}, (Port(80, ip="127.0.0.1"),)),
        ({80: [8080, ("::1", 8081)]}, (Port(80, host=8080), Port(80, host=8081, ip="::1"))),
        ({80: "8000-8010"}, (Port(80, host=8000, host_last=8010),)),
    ],
)
def test_ports(ports, expected):
    assert make_options(None, ports=ports).ports == expected


@pytest.mark.parametrize(
    "keywords",
    [
        {"network": 5},
        {"network": ["web", 5]},
        {"network": ["web", "host"]},
        {"network": ""},
        {"network": "web", "ip": 5},
        {"network": "web", "network_aliases": "a"},
        {"ip": "10.0.0.2"},
        {"network": NetworkAttachment("web", "x")},
        {"ports": "80"},
        {"ports": 80},
        {"ports": [True]},
        {"ports": [Port(0)]},
        {"ports": [Port(80, "sctp")]},
        {"ports": {80: True}},
        {"ports": {(80,): 80}},
        {"ports": {80: ("x", 80)}},
        {"ports": {"x": 80}},
        {"publish_all": "yes"},
        {"expose": "80"},
        {"expose": ["x"]},
    ],
)
def test_what_means_nothing_is_refused(keywords):
    with pytest.raises(UsageError):
        make_options(None, **keywords)


def test_exposed_ports():
    assert make_options(None, expose=[80, "53/udp"]).expose == (Port(80), Port(53, "udp"))
