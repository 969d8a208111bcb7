"""Firewalls of others that drop packets of containers: found, and mended by what is said about them."""

import json

import pytest
from network_place import HOST, OUTSIDE, place
from network_site import SHORT, site

__all__ = ["place", "site"]

# What each makes, the beginning of what is said to let packets through.
IPTABLES = "{0} -P FORWARD DROP; {0} -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
DOCKER = (
    "iptables -P FORWARD DROP; iptables -N DOCKER-USER; iptables -A FORWARD -j DOCKER-USER; "
    "iptables -A DOCKER-USER -j RETURN; iptables -A FORWARD -o docker0 -m conntrack --ctstate ESTABLISHED -j ACCEPT; "
    "iptables -A FORWARD -i docker0 ! -o docker0 -j ACCEPT"
)
REJECTS = (
    "iptables -A FORWARD -i eth7 -j ACCEPT; iptables -A FORWARD -s 192.0.2.0/24 -j ACCEPT; "
    "iptables -A FORWARD -m comment --comment 'the rest' -j REJECT --reject-with icmp-host-prohibited"
)
NFT = (
    "nft add table inet mine; nft 'add chain inet mine far {{ }}'; "
    "nft 'add chain inet mine onward {{ type filter hook forward priority 10; {0} }}'; "
    "nft 'add rule inet mine onward ct state vmap {{ established : accept, related : accept }}'; "
    'nft \'add rule inet mine onward iifname {{ "eth7", "eth8" }} accept\'; {1}'
)
FIREWALLS = {
    "iptables": (IPTABLES.format("iptables"), "iptables -I FORWARD -i pyrtc-+ -j ACCEPT && iptables -I FORWARD -o"),
    "legacy": (
        IPTABLES.format("iptables-legacy"),
        "iptables-legacy -I FORWARD -i pyrtc-+ -j ACCEPT && iptables-legacy",
    ),
    "docker": (DOCKER, "iptables -I DOCKER-USER -i pyrtc-+ -j ACCEPT && iptables -I DOCKER-USER -o pyrtc-+ -j ACCEPT"),
    "rejects": (REJECTS, "iptables -I FORWARD -i pyrtc-+ -j ACCEPT"),
    "policy": (NFT.format("policy drop;", ":"), "nft insert rule inet mine onward iifname '\"pyrtc-*\"' accept"),
    "last": (
        NFT.format("", "nft add rule inet mine onward jump far; nft add rule inet mine far drop"),
        "nft insert rule inet mine onward iifname '\"pyrtc-*\"' accept && nft insert rule inet mine onward oifname",
    ),
}
ASK = "from pyrtc.network.obstacles import obstacles; print(json.dumps(obstacles(network(31))))"


@pytest.mark.parametrize("name", FIREWALLS)
def test_a_firewall_that_drops_is_found_and_what_is_said_helps(site, name):
    make, remedy = FIREWALLS[name]
    site.bridge(31)
    site.pyrtc("firewall.add_network(network(31)); firewall.publish([Port(80, host=8080)], endpoint(31, 2))")
    inside = site.container(31, 2)
    site.serve(site.place.outside, "outside", 700)
    assert site.ask(inside, ("tcp", OUTSIDE, 700)) == [f"outside {HOST}"]
    made = site.place.run("sh", "-ec", make, check=False)
    if name == "legacy" and made.returncode:
        pytest.skip(f"no older iptables here: {made.stderr}")
    assert made.returncode == 0, made.stderr
    assert site.ask(inside, ("tcp", OUTSIDE, 700), patience=SHORT) == [None]
    assert site.ask(site.place.outside, ("tcp", HOST, 8080), patience=SHORT) == [None]
    (said,) = json.loads(site.pyrtc(ASK))
    before, _, command = said.partition("; to let them through: ")
    assert "drops packets of containers on the network net31" in before
    assert command.startswith(remedy)
    site.place.run("sh", "-ec", command)
    assert json.loads(site.pyrtc(ASK)) == []
    assert site.ask(inside, ("tcp", OUTSIDE, 700)) == [f"outside {HOST}"]
    assert site.ask(site.place.outside, ("tcp", HOST, 8080)) == [f"c31.2 {OUTSIDE}"]


def test_ufw_and_firewalld_are_told_in_their_own_words(site):
    site.bridge(31)
    site.place.run(
        "sh",
        "-ec",
        "ip6tables -P FORWARD DROP; ip6tables -N ufw6-user-forward; ip6tables -A FORWARD -j ufw6-user-forward",
    )
    site.place.run(
        "nft",
        "add table inet firewalld; add chain inet firewalld filter_FORWARD { type filter hook forward priority 10; }; "
        "add rule inet firewalld filter_FORWARD ct status dnat accept; "
        "add rule inet firewalld filter_FORWARD reject with icmpx admin-prohibited",
    )
    said = json.loads(site.pyrtc(ASK))
    assert [sentence.partition("; to let them through: ")[2] for sentence in said] == [
        "ufw route allow in on pyrtc-0000001f && ufw route allow out on pyrtc-0000001f",
        "firewall-cmd --permanent --zone=trusted --add-source=10.31.0.0/16 --add-source=fd00:31::/64 && "
        "firewall-cmd --reload",
    ]


def test_a_firewall_that_lets_them_through_is_no_obstacle(site):
    site.bridge(31)
    site.pyrtc("firewall.add_network(network(31))")
    site.place.run(
        "sh",
        "-ec",
        "iptables -P INPUT DROP; iptables -P FORWARD DROP; iptables -A FORWARD -s 10.0.0.0/8 -j ACCEPT; "
        "iptables -A FORWARD -d 10.31.0.0/16 -m comment --comment ours -j ACCEPT; "
        "nft 'add table ip6 six; add chain ip6 six f { type filter hook forward priority 0; policy drop; }'; "
        "nft add rule ip6 six f ct state new accept",
    )
    assert json.loads(site.pyrtc(ASK)) == []
    assert json.loads(site.pyrtc(ASK.replace("network(31)", "network(31, internal=True)"))) == []
