import contextlib
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrtc.errors import UsageError
from pyrtc.ip import Subnet, address, ip_text, mac_text, number, parse_mac, parse_subnet

FAMILIES = {4: ipaddress.IPv4Address, 6: ipaddress.IPv6Address}
SPARSE = st.lists(st.sampled_from([0, 0, 0, 1, 0xABCD, 0xFFFF]), min_size=8, max_size=8)


@given(st.integers(0, 2**32 - 1))
def test_ipv4_is_what_the_standard_library_says(value):
    text = str(ipaddress.IPv4Address(value))
    assert ip_text(4, value) == text
    assert number(text) == (4, value)


@given(st.one_of(st.integers(0, 2**128 - 1), SPARSE.map(lambda groups: sum(g << 16 * i for i, g in enumerate(groups)))))
def test_ipv6_is_what_the_standard_library_says(value):
    there = ipaddress.IPv6Address(value)
    assert ip_text(6, value) == there.compressed
    for text in (there.compressed, there.exploded, there.compressed.upper()):
        assert number(text) == (6, value)


@given(st.text("0123456789abF:./%x ", max_size=24))
def test_what_is_no_address_is_refused(text):
    wanted = None
    with contextlib.suppress(ValueError):
        wanted = ipaddress.ip_address(text)
    if wanted is None or getattr(wanted, "scope_id", None):
        with pytest.raises(UsageError, match="not an IP address"):
            number(text)
    else:
        assert number(text) == (wanted.version, int(wanted))


@pytest.mark.parametrize("text", ["::", "1::", "::1", "::ffff:1.2.3.4", "1:2:3:4:5:6:7::", "64:ff9b::192.0.2.33"])
def test_odd_forms(text):
    assert number(text) == (6, int(ipaddress.IPv6Address(text)))


def test_an_address_gets_one_form():
    assert address("FD00:0:0:0:0:0:0:1") == "fd00::1"


@given(st.sampled_from([4, 6]), st.data())
def test_subnets(family, data):
    bits = 32 if family == 4 else 128
    value, prefix = data.draw(st.integers(0, 2**bits - 1)), data.draw(st.integers(0, bits))
    other, other_prefix = data.draw(st.integers(0, 2**bits - 1)), data.draw(st.integers(0, bits))
    one = ipaddress.ip_network((FAMILIES[family](value), prefix), strict=False)
    two = ipaddress.ip_network((FAMILIES[family](other), other_prefix), strict=False)
    subnet = parse_subnet(f"{FAMILIES[family](value)}/{prefix}")
    second = parse_subnet(str(two))
    assert (str(subnet), subnet.size, subnet.last) == (str(one), one.num_addresses, int(one.broadcast_address))
    assert subnet.overlaps(second) == one.overlaps(two)
    assert subnet.contains(second) == two.subnet_of(one)
    assert subnet.has(other) == (FAMILIES[family](other) in one)


def test_families_do_not_overlap():
    assert not Subnet(4, 0, 0).overlaps(Subnet(6, 0, 0))
    assert not Subnet(6, 0, 0).contains(Subnet(4, 0, 0))


@pytest.mark.parametrize(
    "text", ["", "10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "::/129", "10.0.0.0/8/8", "x/8"]
)
def test_bad_subnets(text):
    with pytest.raises(UsageError):
        parse_subnet(text)


def test_hardware_addresses():
    assert parse_mac("02-42-AC-11-00-02") == "02:42:ac:11:00:02"
    assert mac_text(0x0242AC110002) == "02:42:ac:11:00:02"
    for text in ("", "02:42", "zz:42:ac:11:00:02", "02:42:ac:11:00:2", "01:00:5e:00:00:01", "00:00:00:00:00:00"):
        with pytest.raises(UsageError, match="invalid MAC address"):
            parse_mac(text)
