"""Published ports in words."""

import pytest

from pyrtc.cli.port_texts import bindings, column, destinations
from pyrtc.options import Port


@pytest.mark.parametrize(
    ("ports", "text"),
    [
        ([], ""),
        ([Port(80, host=8080)], "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"),
        ([Port(80, host=8080, ip="127.0.0.1")], "127.0.0.1:8080->80/tcp"),
        ([Port(80, host=8080, ip="::1")], "[::1]:8080->80/tcp"),
        ([Port(53, "udp", 53, "10.0.0.1")], "10.0.0.1:53->53/udp"),
        (
            [Port(81, host=8001, ip="1.1.1.1"), Port(80, host=8000, ip="1.1.1.1")],
            "1.1.1.1:8000-8001->80-81/tcp",
        ),
        (
            [Port(81, host=9001, ip="1.1.1.1"), Port(80, host=8000, ip="1.1.1.1")],
            "1.1.1.1:8000->80/tcp, 1.1.1.1:9001->81/tcp",
        ),
        ([Port(443), Port(80, host=8080, ip="1.1.1.1")], "1.1.1.1:8080->80/tcp, 443/tcp"),
        ([Port(82), Port(81), Port(80), Port(90), Port(80, "udp")], "80-82/tcp, 90/tcp, 80/udp"),
        (
            [Port(80, host=8080, ip="1.1.1.1"), Port(80, host=8081, ip="1.1.1.1")],
            "1.1.1.1:8080->80/tcp, 1.1.1.1:8081->80/tcp",
        ),
    ],
)
def test_the_column(ports, text):
    assert column(ports) == text


def test_bindings():
    ports = (Port(80, host=8080), Port(80, host=8081, ip="::1"), Port(53, "udp"))
    assert bindings(ports) == {
        "80/tcp": [
            {"HostIp": "0.0.0.0", "HostPort": "8080"},
            {"HostIp": "::", "HostPort": "8080"},
            {"HostIp": "::1", "HostPort": "8081"},
        ],
        "53/udp": None,
    }


def test_destinations():
    assert destinations(Port(80, host=8080)) == ("0.0.0.0:8080", "[::]:8080")
    assert destinations(Port(80, host=8080, ip="::1")) == ("[::1]:8080",)
