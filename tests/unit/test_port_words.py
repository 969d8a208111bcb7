"""`-p` and `--expose` in words."""

import pytest
from hypothesis import given
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
    ],
)
def test_published(word, expected):
    assert published(word) == expected


@pytest.mark.parametrize(
    "word",
    ["", ":", "x", "0", "65536", "80:", "80-79", "1-3:1-2", "80-81:80-82", "80/sctp", "80/", "[::1:80:80", "[::1]80:80",
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
