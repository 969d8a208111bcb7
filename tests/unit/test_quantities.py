"""Numbers as people write them."""

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrtc import quantities
from pyrtc.errors import UsageError
from pyrtc.options import Ulimit


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("512", 512),
        ("512b", 512),
        ("64m", 64 << 20),
        ("64M", 64 << 20),
        ("64mb", 64 << 20),
        ("64MiB", 64 << 20),
        ("64 mb", 64 << 20),
        ("1.5g", 3 << 29),
        ("0.5k", 512),
        ("2t", 2 << 40),
        ("1p", 1 << 50),
        ("0", 0),
        ("9223372036854775807", (1 << 63) - 1),
    ],
)
def test_size(word, value):
    assert quantities.size(word) == value


@pytest.mark.parametrize(
    "word",
    ["", "m", "-1", "1.", ".5m", "5q", "1e3", "5 ", " 5", "5  m", "0x10", "1,5g", "٣", "9223372036854775808", "9p1"],
)
def test_no_size(word):
    with pytest.raises(UsageError):
        quantities.size(word)


@given(st.integers(0, (1 << 63) - 1))
def test_size_of_plain_bytes_is_exact(value):
    assert quantities.size(str(value)) == value


@pytest.mark.parametrize(
    "convert",
    [
        quantities.size,
        quantities.swap_size,
        quantities.integer,
        quantities.cpus,
        quantities.octal_mode,
        quantities.duration,
        quantities.stop_timeout,
        quantities.signal_number,
        quantities.signal_name,
        quantities.ulimit,
        quantities.device_rate,
        quantities.device_count,
    ],
)
@given(st.text(max_size=30) | st.text(alphabet="0123456789.kmg:-+=/ RTMINsh", max_size=30) | st.just("9" * 5000))
def test_any_word_converts_or_is_refused(convert, word):
    try:
        convert(word)
    except UsageError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("8000", 8000),
        ("8000bit", 8000),
        ("500kbit", 500_000),
        ("10mbit", 10_000_000),
        ("10 Mbit/s", 10_000_000),
        ("1.5gbit", 1_500_000_000),
        ("0", 0),
    ],
)
def test_bit_rate(word, value):
    assert quantities.bit_rate(word) == value


@pytest.mark.parametrize("word", ["", "fast", "10m", "10mb", "10mbps", "-1mbit", "1e3bit", "5pbit", "1,5gbit"])
def test_no_bit_rate(word):
    """Bytes and bits are not guessed at."""
    with pytest.raises(UsageError, match="10mbit"):
        quantities.bit_rate(word)


def test_zero_stands_for_no_limit():
    assert quantities.network_rate("0") is quantities.network_rate("0.0mbit") is None
    assert quantities.network_rate("0.4") == 1  # which is refused, and not taken for none
    assert quantities.limit_size("0") is None
    assert quantities.whole("0") is None
    assert quantities.cpus("0") is None
    assert quantities.swap_size("0") is None
    assert quantities.swap_size("-1") == -1


@pytest.mark.parametrize(
    ("word", "seconds"), [("5", 5), ("0.5", 0.5), ("500ms", 0.5), ("1m30s", 90), ("2h", 7200), ("1.5m", 90), ("0", 0)]
)
def test_duration(word, seconds):
    assert quantities.duration(word) == pytest.approx(seconds)


@pytest.mark.parametrize("word", ["", "s", "1x", "-1", "1m30", "1 m", "inf", "nan", "1e3", "999999999999"])
def test_no_duration(word):
    with pytest.raises(UsageError):
        quantities.duration(word)


def test_stop_timeout_can_be_for_ever():
    assert quantities.stop_timeout("0") == 0
    assert quantities.stop_timeout("-1") == quantities.MAX_SECONDS
    with pytest.raises(UsageError, match="not a time"):
        quantities.stop_timeout("-2")


@pytest.mark.parametrize("word", ["TERM", "SIGTERM", "sigterm", "term", "15"])
def test_signal_in_every_spelling(word):
    assert quantities.signal_number(word) == signal.SIGTERM
    assert quantities.signal_name(word) == "SIGTERM"


def test_real_time_signals():
    assert quantities.signal_number("SIGRTMIN+3") == signal.SIGRTMIN + 3
    assert quantities.signal_number("RTMAX-1") == signal.SIGRTMAX - 1
    assert quantities.signal_name("RTMIN+3") == str(signal.SIGRTMIN + 3)
    assert quantities.signal_number("rtmin") == signal.SIGRTMIN


@pytest.mark.parametrize("word", ["", "0", "65", "SIGFOO", "-9", "RTMIN-1", "RTMAX+1", "RTMIN+", "TERM ", "SIG"])
def test_no_signal(word):
    with pytest.raises(UsageError):
        quantities.signal_number(word)


@pytest.mark.parametrize(
    ("word", "limit"),
    [
        ("nofile=1024:2048", Ulimit("nofile", 1024, 2048)),
        ("nofile=1024", Ulimit("nofile", 1024, 1024)),
        ("core=-1", Ulimit("core", -1, -1)),
        ("core=0:-1", Ulimit("core", 0, -1)),
        ("stack=unlimited", Ulimit("stack", -1, -1)),
    ],
)
def test_ulimit(word, limit):
    assert quantities.ulimit(word) == limit


@pytest.mark.parametrize(
    "word", ["nofile", "files=1", "nofile=", "nofile=2:1", "nofile=-1:5", "nofile=-2", "nofile=1:2:3"]
)
def test_no_ulimit(word):
    with pytest.raises(UsageError):
        quantities.ulimit(word)


def test_device_rates():
    assert quantities.device_rate("/dev/sda:10mb") == ("/dev/sda", 10 << 20)
    assert quantities.device_rate("8:0:1k") == ("8:0", 1024)
    assert quantities.device_count("/dev/sda:1000") == ("/dev/sda", 1000)
    for word in ("/dev/sda", "/dev/sda:", ":5", "/dev/sda:x"):
        with pytest.raises(UsageError):
            quantities.device_rate(word)
    with pytest.raises(UsageError):
        quantities.device_count("/dev/sda:1k")


def test_octal_mode():
    assert quantities.octal_mode("1777") == 0o1777
    assert quantities.octal_mode("0755") == 0o755
    for word in ("", "8", "17777", "-1", "rwx"):
        with pytest.raises(UsageError):
            quantities.octal_mode(word)
