import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrtc.errors import NetworkError, UsageError
from pyrtc.ip import Subnet, parse_subnet
from pyrtc.network.addresses import POOLS, HostSubnets, check_pools, host_subnets, pick_pool


def subnets(*texts: str) -> list[Subnet]:
    return [parse_subnet(text) for text in texts]


def test_picked_subnets_are_private_and_free() -> None:
    taken: list[Subnet] = []
    for _ in range(300):  # more than the first pool has
        pool = pick_pool(4, taken)
        assert not any(pool.subnet.overlaps(other) for other in taken)
        assert ipaddress.ip_network(str(pool.subnet)).is_private
        assert pool.gateway == str(ipaddress.ip_network(str(pool.subnet))[1])
        taken.append(pool.subnet)
    first = parse_subnet("172.16.0.0/12")
    assert all(first.contains(subnet) for subnet in taken[:256])
    assert not any(first.contains(subnet) for subnet in taken[256:])


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(8, 32)), max_size=40))
def test_a_pick_never_overlaps(said) -> None:
    taken = [parse_subnet(f"{ipaddress.IPv4Address(value)}/{prefix}") for value, prefix in said]
    pool = pick_pool(4, taken)
    assert not any(pool.subnet.overlaps(other) for other in taken)


def test_the_last_free_one_is_found_and_then_there_is_none() -> None:
    taken = [whole for whole, _ in POOLS[:2]]
    taken += subnets(*(f"192.168.{index}.0/24" for index in range(256) if index != 77))
    assert str(pick_pool(4, taken).subnet) == "192.168.77.0/24"
    with pytest.raises(NetworkError, match="could not find an available, non-overlapping IPv4 address pool"):
        pick_pool(4, [*taken, *subnets("192.168.77.128/32")])


def test_ipv6_subnets_are_unique_local() -> None:
    picked = {pick_pool(6, subnets("10.0.0.0/8")).subnet for _ in range(50)}
    assert len(picked) == 50
    assert all(subnet.prefix == 64 and parse_subnet("fd00::/8").contains(subnet) for subnet in picked)
    assert all(subnet.first & ((1 << 80) - 1) == 0 for subnet in picked)  # the first of its site's subnets


def test_what_a_user_chooses() -> None:
    pools = check_pools(["10.1.0.0/16", "fd00:1::/64"], ["10.1.0.254"], ["10.1.5.0/24"])
    assert str(pools[4].subnet) == "10.1.0.0/16"
    assert (pools[4].gateway, str(pools[4].range)) == ("10.1.0.254", "10.1.5.0/24")
    assert (pools[6].gateway, pools[6].range) == ("fd00:1::1", None)
    assert check_pools([], [], []) == {}


def test_auxiliary_addresses_belong_to_their_subnets() -> None:
    words = [("router", "10.1.0.9"), ("six", "FD00:1::09"), ("nas", "10.1.0.10")]
    pools = check_pools(["10.1.0.0/16", "fd00:1::/64"], [], ["10.1.5.0/24"], words)
    assert pools[4].auxiliary == (("router", "10.1.0.9"), ("nas", "10.1.0.10"))
    assert pools[6].auxiliary == (("six", "fd00:1::9"),)


@pytest.mark.parametrize(
    ("words", "kind", "said"),
    [
        ([("a", "10.2.0.1")], UsageError, "no matching subnet for aux-address 10.2.0.1"),
        ([("a", "fd00::1")], UsageError, "no matching subnet for aux-address fd00::1"),
        ([("a", "")], UsageError, "write NAME=ADDRESS"),
        ([("a", "x")], UsageError, "not an IP address"),
        ([("a", "10.1.0.0")], UsageError, "no host can have that address"),
        ([("a", "10.1.255.255")], UsageError, "no host can have that address"),
        ([("a b", "10.1.0.9")], UsageError, "invalid aux-address"),
        ([("", "10.1.0.9")], UsageError, "invalid aux-address"),
        ([("a", "10.1.0.1")], NetworkError, "Address already in use"),  # the gateway
        ([("a", "10.1.0.9"), ("b", "10.1.0.9")], NetworkError, r"\(b:10\.1\.0\.9\): Address already in use"),
        ([(f"n{index}", f"10.1.1.{index}") for index in range(257)], UsageError, "more than 256"),
    ],
)
def test_auxiliary_addresses_that_cannot_be(words, kind, said) -> None:
    with pytest.raises(kind, match=said):
        check_pools(["10.1.0.0/16"], [], [], words)


@pytest.mark.parametrize(
    ("subnet", "gateway", "part", "said"),
    [
        ("10.1.0.5/16", "", "", r"invalid subnet 10.1.0.5/16: it should be 10.1.0.0/16"),
        ("10.1.0.0", "", "", "invalid CIDR address: 10.1.0.0"),
        ("10.1.0.0/31", "", "", "no room for a gateway and a container"),
        ("fd00::/127", "", "", "no room for a gateway and a container"),
        ("10.0.0.0/7", "", "", "/8 is the largest"),
        ("127.0.0.0/24", "", "", "of no use in a network"),
        ("224.0.0.0/24", "", "", "of no use in a network"),
        ("fe80::/64", "", "", "of no use in a network"),
        ("10.1.0.0/16", "10.2.0.1", "", "no matching subnet for gateway 10.2.0.1"),
        ("10.1.0.0/16", "fd00::1", "", "no matching subnet for gateway fd00::1"),
        ("10.1.0.0/16", "10.1.0.0", "", "invalid gateway 10.1.0.0"),
        ("10.1.0.0/16", "10.1.255.255", "", "invalid gateway 10.1.255.255"),
        ("", "10.1.0.1", "", "no matching subnet for gateway"),
        ("10.1.0.0/16", "", "10.2.0.0/24", "no matching subnet for range 10.2.0.0/24"),
        ("10.1.0.0/16", "", "10.0.0.0/8", "no matching subnet for range"),
        ("10.1.0.0/16", "", "10.1.5.1/24", "invalid ip-range 10.1.5.1/24: it should be 10.1.5.0/24"),
    ],
)  # fmt: skip
def test_what_a_user_cannot_choose(subnet: str, gateway: str, part: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check_pools([subnet] if subnet else [], [gateway] if gateway else [], [part] if part else [])


def test_one_of_each_family() -> None:
    for words in ((["10.1.0.0/16", "10.2.0.0/16"], [], []), (["10.1.0.0/16"], ["10.1.0.2", "10.1.0.3"], []),
                  (["10.1.0.0/16"], [], ["10.1.0.0/24", "10.1.1.0/24"])):  # fmt: skip
        with pytest.raises(UsageError, match="only one IPv4"):
            check_pools(*words)


def test_this_host_can_be_read_by_anybody() -> None:
    known = host_subnets()
    assert (parse_subnet("127.0.0.0/8"), "lo") in known.connected
    assert parse_subnet("127.0.0.0/8") in known.routed
    assert all(subnet.prefix >= 8 for subnet in known.routed)


def test_who_has_a_subnet() -> None:
    known = HostSubnets(((parse_subnet("10.1.2.0/24"), "eth7"),), ())
    assert known.holder(parse_subnet("10.0.0.0/8")) == "eth7"
    assert known.holder(parse_subnet("10.1.3.0/24")) == ""
