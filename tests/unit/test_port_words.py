"""`-p` and `--expose` in words."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pyrtc.errors import UsageError
from pyrtc.options import Port
from pyrtc.port_words import exposed, published


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("80", (Port(80),)),
        ("80/UDP", (Port(80, "udp"),)),
        ("8080:80", (Port(80, host=8080),)),
        ("0:80", (Port(80),)),
        (":80", (Port(80),)),
        ("127.0.0.1:8080:80", (Port(80, host=8080, ip="127.0.0.1"),)),
        ("127.0.0.1::80/tcp", (Port(80, ip="127.0.0.1"),)),
        ("[::1]:8080:80", (Port(80, host=8080, ip="::1"),)),
        ("[FE80:0::1]::80", (Port(80, ip="fe80::1"),)),
        ("::1:8080:80", (Port(80, host=8080, ip="::1"),)),
        ("8000-8001:80-81", (Port(80, host=8000), Port(81, host=8001))),
        ("80-81", (Port(80), Port(81))),
        ("8000-8010:80", (Port(80, host=8000, host_last=8010),)),
        ("8000-8000:80", (Port(80, host=8000),)),
        ("published=8080,target=80", (Port(80, host=8080),)),
        ("target=53,protocol=udp", (Port(53, "udp"),)),
        (
            "target=80-81,published=127.0.0.1:8000-8001",
            (Port(80, "tcp", 8000, "127.0.0.1"), Port(81, "tcp", 8001, "127.0.0.1")),
        ),
    ],
)
def test_published(word, expected):
    assert published(word) == expected


@pytest.mark.parametrize(
    "word",
    ["", ":", "x", "0", "65536", "80:", "80-79", "1-3:1-2", "80-81:80-82", "80/sctp", "80/", "[::1:80:80", "[::1]80:80",
     "[::1]:80", "[fe80::1%eth0]:80:80", "published=80", "target=", "target=80,mode=host", "80/sctp:80", "127.0.0.1:80",
     "010.0.0.1:1:1",
     "1.2.3:80:80", "a:80:80", "-80", "80-", "٨٠", "80:80:80:80:80x", "000080"],
)  # fmt: skip
def test_not_published(word):
    with pytest.raises(UsageError):
        published(word)


def test_exposed():
    assert exposed("80") == (Port(80),)
    assert exposed("53-54/udp") == (Port(53, "udp"), Port(54, "udp"))
    for word in ("", "80:80", "x", "1-0"):
        with pytest.raises(UsageError):
            exposed(word)


def test_what_is_no_port_is_said():
    for word, said in (
        ("80/sctp", "'sctp' is not a protocol that ports are published for: tcp and udp are"),
        ("8000-8002:80-81", "invalid ranges specified for container and host Ports: 80-81 and 8000-8002"),
        ("70000:80", "70000 is not a port"),
    ):
        with pytest.raises(UsageError, match=said):
            published(word)


PORTS = st.integers(1, 65535)


@given(PORTS, PORTS, st.sampled_from(("tcp", "udp")), st.one_of(st.none(), st.ip_addresses()))
def test_one_port_in_words(inside, outside, protocol, address):
    ip = "" if address is None else str(address)
    assume(getattr(address, "scope_id", None) is None and getattr(address, "ipv4_mapped", None) is None)
    where = f"{f'[{ip}]' if ':' in ip else ip}:" if ip else ""
    assert published(f"{where}{outside}:{inside}/{protocol}") == (Port(inside, protocol, outside, ip),)
    assert published(f"{where}:{inside}/{protocol}") == (Port(inside, protocol, 0, ip),)


@given(PORTS, PORTS, st.integers(0, 50), st.integers(0, 50))
def test_ranges_in_words(inside, outside, many, most):
    inside, outside = min(inside, 65535 - many), min(outside, 65535 - most)
    word = f"{outside}-{outside + most}:{inside}-{inside + many}"
    if most == many:
        assert published(word) == tuple(Port(inside + i, host=outside + i) for i in range(many + 1))
    elif many == 0:
        assert published(word) == (Port(inside, host=outside, host_last=outside + most),)
    else:
        with pytest.raises(UsageError, match="invalid ranges"):
            published(word)


@given(st.text(alphabet="0123456789:-/.[]tcpudx", max_size=20))
def test_any_word_is_read_or_refused(word):
    try:
        found = published(word)
    except UsageError as error:
        assert str(error)
    else:
        assert found
        for port in found:
            assert 1 <= port.container <= 65535 and 0 <= port.host <= 65535
            assert port.host_last == 0 or port.host < port.host_last <= 65535
