"""What may be said of where a container connects to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrtc.egress_words import check_egress, egress, names_in, subnets_in
from pyrtc.errors import UsageError
from pyrtc.network_words import check_networks
from pyrtc.options import NetworkAttachment, RunOptions


@pytest.mark.parametrize(
    ("word", "read"),
    [
        ("none", ()),
        ("10.1.2.3/8,192.0.2.7", ("10.0.0.0/8", "192.0.2.7/32")),
        ("2001:DB8::1,local", ("2001:db8::1/128", "local")),
        ("Example.COM.", ("example.com",)),
        ("*.Example.com,.example.com", ("*.example.com", ".example.com")),
        ("*.com,.org", ("*.com", ".org")),
        ("example.com,EXAMPLE.com", ("example.com",)),
        ("_dmarc.a-b.xn--bcher-kva.example", ("_dmarc.a-b.xn--bcher-kva.example",)),
        (f"{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 61}", (f"{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 61}",)),
    ],
)
def test_words(word: str, read: tuple[str, ...]) -> None:
    assert egress(word) == read
    check_egress(read)


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("", "nothing to connect to"),
        ("a.example,", "nothing to connect to"),
        ("registry", "has no dot"),
        ("*", "nothing to connect to"),
        ("*.", "nothing to connect to"),
        (".", "nothing to connect to"),
        ("..example.com", "nothing to connect to"),
        ("a.*.example", "nothing to connect to"),
        ("*a.example", "nothing to connect to"),
        ("**.example.com", "nothing to connect to"),
        ("-a.example", "nothing to connect to"),
        ("a..example", "nothing to connect to"),
        ("a.example..", "nothing to connect to"),
        ("a example.com", "nothing to connect to"),
        ("a.example\n", "nothing to connect to"),
        ("https://example.com", "no address and no subnet"),
        ("example.com:443", "no address and no subnet"),
        ("example.com/24", "no address and no subnet"),
        ("10.0.0", "does not end with a number"),
        ("1.2.3.256", "does not end with a number"),
        ("10.0.0.0/33", "CIDR"),
        ("bücher.example", "xn--"),
        ("a.example\u212a", "xn--"),  # the sign of kelvin, a small k when lowered
        (f"{'a' * 64}.example", "nothing to connect to"),
        (f"{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 62}", "nothing to connect to"),
        (",".join(f"n{number}.example" for number in range(10_001)), "10001 .* more than"),
    ],
)
def test_what_is_nothing_of_that(word: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        egress(word)


@given(st.text(max_size=30))
def test_whatever_is_read_reads_the_same_again(word: str) -> None:
    try:
        read = egress(word)
    except UsageError:
        return
    check_egress(read)
    assert all(egress(item) == (item,) for item in read)


def test_parts() -> None:
    allowed = ("10.0.0.0/8", "local", "example.com", "*.example.org")
    assert names_in(allowed) == ("example.com", "*.example.org")
    assert subnets_in(allowed) == ("10.0.0.0/8",)
    assert names_in(()) == () and names_in(None) is None


def test_options_say_it_as_it_is_read() -> None:
    networks = (NetworkAttachment("bridge"),)
    check_networks(RunOptions(network="bridge", networks=networks, egress=("example.com",)))
    for word in ("Example.com", "10.0.0.1"):
        with pytest.raises(UsageError, match="written as"):
            check_networks(RunOptions(network="bridge", networks=networks, egress=(word,)))
