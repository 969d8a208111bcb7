"""What another firewall's rules do with a packet, as far as they tell."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrtc.ip import parse_subnet
from pyrtc.network.verdicts import Packet, Rule, chains_of_iptables, chains_of_nft, verdict

OUT = Packet(4, "pyrtc-0000001f", "eth0", parse_subnet("10.31.0.0/16"), None, translated=False)
IN = Packet(4, "eth0", "pyrtc-0000001f", None, parse_subnet("10.31.0.0/16"), translated=True)
OUT6 = Packet(6, "pyrtc-0000001f", "", parse_subnet("fd00:31::/64"), None, translated=False)


@pytest.mark.parametrize(
    ("lines", "going", "coming"),
    [
        ("-P FORWARD DROP", "drop", "drop"),
        ("-P FORWARD ACCEPT", "accept", "accept"),
        ("-P FORWARD DROP|-A FORWARD -i pyrtc-+ -j ACCEPT", "accept", "drop"),
        ("-P FORWARD DROP|-A FORWARD -o pyrtc-0000001f -j ACCEPT", "drop", "accept"),
        ("-P FORWARD DROP|-A FORWARD ! -i eth0 -j ACCEPT", "accept", "drop"),
        ("-P FORWARD DROP|-A FORWARD -s 10.0.0.0/8 -j ACCEPT", "accept", "drop"),
        ("-P FORWARD DROP|-A FORWARD -s 10.31.7.0/24 -j ACCEPT", "drop", "drop"),  # a part of them
        ("-P FORWARD DROP|-A FORWARD ! -s 192.0.2.1/32 -j ACCEPT", "accept", "drop"),
        ("-P FORWARD DROP|-A FORWARD -p tcp -m tcp --dport 80 -j ACCEPT", "drop", "drop"),
        ("-P FORWARD DROP|-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "drop", "drop"),
        ("-P FORWARD DROP|-A FORWARD -m state --state NEW,ESTABLISHED -j ACCEPT", "accept", "accept"),
        ("-P FORWARD ACCEPT|-A FORWARD -p udp -j DROP", "accept", "accept"),
        ("-P FORWARD ACCEPT|-A FORWARD -m comment --comment 'all of it' -j REJECT --reject-with x", "drop", "drop"),
        ("-P FORWARD ACCEPT|-N A|-A FORWARD -j A|-A A -i eth0 -j RETURN|-A A -j DROP", "drop", "accept"),
        ("-P FORWARD DROP|-N A|-A FORWARD -g A|-A FORWARD -j ACCEPT|-A A -i eth0 -j ACCEPT", "drop", "accept"),
        ("-P FORWARD DROP|-N A|-A FORWARD -j LOG|-A FORWARD -j A|-A A -j A", "drop", "drop"),  # no kernel takes it
        ("-A FORWARD|-N|x|", "accept", "accept"),
    ],
)
def test_iptables(lines, going, coming):
    for packet, expected in ((OUT, going), (IN, coming)):
        chains, policies = chains_of_iptables(lines.split("|"), packet)
        assert verdict(chains, "FORWARD", policies.get("FORWARD", "accept")) == expected


def match(left, right, op="=="):
    return {"match": {"op": op, "left": left, "right": right}}


IIF, OIF = ({"meta": {"key": key}} for key in ("iifname", "oifname"))
STATE, STATUS = ({"ct": {"key": key}} for key in ("state", "status"))
FROM, FROM6 = ({"payload": {"protocol": protocol, "field": "saddr"}} for protocol in ("ip", "ip6"))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (match(IIF, "pyrtc-*"), True),
        (match(IIF, "pyrtc-0000001f"), True),
        (match(IIF, "eth0"), False),
        (match(IIF, "eth0", "!="), True),
        (match(IIF, {"set": ["eth0", "pyrtc-0000001f"]}), True),
        (match(IIF, {"set": ["eth0", "eth1"]}), False),
        (match(IIF, {"set": [{"range": ["", ""]}]}), None),
        (match(IIF, "@mine"), None),
        (match(OIF, "eth0"), True),
        (match({"meta": {"key": "nfproto"}}, "ipv4"), True),
        (match({"meta": {"key": "nfproto"}}, "ipv6"), False),
        (match({"meta": {"key": "mark"}}, 1), None),
        (match(STATE, ["established", "related"], "in"), False),
        (match(STATE, ["established", "new"], "in"), True),
        (match(STATE, {"set": ["invalid"]}), False),
        (match(STATUS, "dnat", "in"), False),
        (match(STATUS, "snat", "in"), None),
        (match(FROM, {"prefix": {"addr": "10.0.0.0", "len": 8}}), True),
        (match(FROM, "10.31.0.2"), None),
        (match(FROM, "192.0.2.1"), False),
        (match(FROM, "@set"), None),
        (match(FROM6, {"prefix": {"addr": "fd00::", "len": 8}}), False),
        (match({"concat": [IIF, OIF]}, {"set": [{"concat": ["a", "b"]}]}), None),
        (match({"&": [{"meta": {"key": "mark"}}, 1]}, 1), None),
        ({"xt": {"type": "match", "name": "comment"}}, True),
        ({"xt": {"type": "match", "name": "conntrack"}}, None),
        ({"counter": {"packets": 0, "bytes": 0}}, True),
        ({"limit": {"rate": 1}}, None),
    ],
)
def test_matches_of_nft(found, expected):
    (rules,) = chains_of_nft([{"rule": {"chain": "c", "expr": [found, {"accept": None}]}}], OUT).values()
    assert rules == ([] if expected is False else [Rule(bool(expected), "accept")])


def test_verdicts_of_nft():
    def rules(*expressions):
        return [{"chain": {"name": "c"}}, *({"rule": {"chain": chain, "expr": list(e)}} for chain, *e in expressions)]

    def decided(packet, *expressions):
        return verdict(chains_of_nft(rules(*expressions), packet), "c", "accept")

    reject = {"reject": {"type": "icmpx", "expr": "admin-prohibited"}}
    assert decided(OUT, ("c", reject)) == "drop"
    assert decided(OUT, ("c", {"xt": {"type": "target", "name": "REJECT"}})) == "drop"
    assert decided(OUT, ("c", {"xt": {"type": "target", "name": "LOG"}})) == "accept"
    assert decided(OUT, ("c", {"jump": {"target": "d"}}), ("d", {"drop": None})) == "drop"
    assert decided(OUT, ("c", {"jump": {"target": "d"}}), ("d", {"return": None}), ("c", {"drop": None})) == "drop"
    assert decided(OUT, ("c", {"goto": {"target": "d"}}), ("c", {"drop": None})) == "accept"
    assert decided(IN, ("c", match(STATUS, "dnat", "in"), {"accept": None}), ("c", {"drop": None})) == "accept"
    assert decided(OUT, ("c", match(STATUS, "dnat", "in"), {"accept": None}), ("c", {"drop": None})) == "drop"
    state = {"vmap": {"key": STATE, "data": {"set": [["established", {"accept": None}]]}}}
    assert decided(OUT, ("c", state), ("c", {"drop": None})) == "drop"
    assert decided(OUT6, ("c", match(FROM6, "fd00:31::/64"), {"drop": None})) == "drop"
    assert decided(OUT6, ("c", match(OIF, "eth0"), {"drop": None})) == "accept"


WORDS = st.sampled_from(
    [
        "-A",
        "-P",
        "FORWARD",
        "DROP",
        "-i",
        "pyrtc-+",
        "!",
        "-j",
        "-g",
        "X",
        "-s",
        "10.0.0.0/8",
        "x/y",
        "-m",
        "comment",
        "--ctstate",
    ]
)


@given(st.lists(st.lists(WORDS, max_size=8), max_size=8))
def test_whatever_iptables_prints_has_a_verdict(lines):
    chains, policies = chains_of_iptables([shlex.join(words) for words in lines], OUT)
    assert verdict(chains, "FORWARD", policies.get("FORWARD", "accept")) in ("accept", "drop")
