"""The text of the firewall's table and of its elements."""

import re

from pyrtc.network import ruleset
from pyrtc.network.ruleset import PLACES, Element

LISTING = {
    "nftables": [
        {"metainfo": {"json_schema_version": 1}},
        {"table": {"family": "inet", "name": "pyrtc", "handle": 1}},
        {"set": {"name": f"layout_{ruleset.LAYOUT}", "table": "pyrtc", "type": "mark", "elem": [1]}},
        {"set": {"name": "layout_99", "table": "pyrtc", "type": "mark"}},
        {"set": {"name": "layout_x", "table": "pyrtc", "type": "mark"}},
        {"set": {"name": "bridges", "type": "ifname", "elem": ["pyrtc-0000001f"]}},
        {"set": {"name": "unknown", "type": "ifname", "elem": ["x"]}},
        {
            "set": {
                "name": "home4",
                "type": ["ifname", "ipv4_addr"],
                "elem": [{"concat": ["pyrtc-0000001f", {"prefix": {"addr": "10.31.0.0", "len": 16}}]}],
            }
        },
        {"set": {"name": "subnets6", "elem": [{"prefix": {"addr": "fd00:1::", "len": 64}}]}},
        {
            "map": {
                "name": "pub4",
                "elem": [
                    [
                        {"elem": {"val": {"concat": ["tcp", 80]}, "comment": "pyrtc-0000001f 0123456789ab"}},
                        {"concat": ["10.31.0.2", 8080]},
                    ],
                    [{"concat": ["udp", 53]}, {"concat": ["10.31.0.2", 53]}],
                ],
            }
        },
        {"chain": {"name": "pass"}},
        {"rule": {"chain": "pass"}},
    ]
}


def test_elements_are_read_from_what_nft_says():
    found = list(ruleset.elements_in(LISTING["nftables"]))
    assert found == [
        Element(f"layout_{ruleset.LAYOUT}", ("1",)),
        Element("bridges", ("pyrtc-0000001f",)),
        Element("home4", ("pyrtc-0000001f", "10.31.0.0/16")),
        Element("subnets6", ("fd00:1::/64",)),
        Element("pub4", ("tcp", "80"), ("10.31.0.2", "8080"), "pyrtc-0000001f 0123456789ab"),
        Element("pub4", ("udp", "53"), ("10.31.0.2", "53")),
    ]
    assert [element.bridge for element in found] == ["", "pyrtc-0000001f", "pyrtc-0000001f", "", "pyrtc-0000001f", ""]
    assert ruleset.layouts(LISTING["nftables"]) == {ruleset.LAYOUT, 99}


def test_elements_are_written():
    port = Element("pub4_at", ("192.0.2.1", "tcp", "80"), ("10.31.0.2", "8080"), "pyrtc-0000001f 0123456789ab")
    home = Element("home6", ("pyrtc-0000001f", "fd00:1::/64"))
    mark = f"add element inet pyrtc layout_{ruleset.LAYOUT} {{ 1 }}\n"
    assert ruleset.add([home]) == f'{mark}add element inet pyrtc home6 {{ "pyrtc-0000001f" . fd00:1::/64 }}\n'
    assert ruleset.create([port]) == (
        f"{mark}create element inet pyrtc pub4_at "
        '{ 192.0.2.1 . tcp . 80 comment "pyrtc-0000001f 0123456789ab" : 10.31.0.2 . 8080 }\n'
    )
    assert ruleset.delete([port]) == "delete element inet pyrtc pub4_at { 192.0.2.1 . tcp . 80 }\n"
    assert port.holder == Element("held", ("tcp", "80", "01:23:45:67:89:ab")) and home.holder is None
    assert ruleset.forbid([Element("pub4", ("tcp", "80"), ("0.0.0.0", "0"))]) == (
        "create element inet pyrtc pub4 { tcp . 80 : 0.0.0.0 . 0 }\ndelete element inet pyrtc pub4 { tcp . 80 }\n"
    )
    assert Element("shut4", ("eth0",)).bridge == ""


def test_the_text_names_what_it_declares():
    assert ruleset.TEXT.count("table inet pyrtc {") == 1
    assert "flush" not in ruleset.TEXT
    used = set(re.findall(r"@(\w+)", ruleset.TEXT))
    assert used == PLACES.keys() - {f"layout_{ruleset.LAYOUT}", "held"}
    chains = set(re.findall(r"chain (\w+) {", ruleset.TEXT))
    assert set(re.findall(r"(?:jump|goto) (\w+)", ruleset.TEXT)) <= chains
    # Nothing of ours may drop what is not about containers: base chains accept what no rule is about.
    assert len(re.findall(r"type \w+ hook", ruleset.TEXT)) == ruleset.TEXT.count("policy accept;")
