"""Challenges, addresses, proxies and patience of registries."""

import threading
import time
from email.utils import formatdate

import pytest

from pyrtc.errors import RegistryError, RegistryUnreachable, UsageError
from pyrtc.image.cancelled import Cancelled
from pyrtc.image.registry.addresses import Origin, check_reach, is_loopback, reach
from pyrtc.image.registry.auth import Challenge, parse_challenges
from pyrtc.image.registry.patience import Pace, Patience, Stop, retry_after
from pyrtc.image.registry.proxies import proxy_for


@pytest.mark.parametrize(
    ("headers", "challenges"),
    [
        (['Basic realm="x"'], [Challenge("basic", {"realm": "x"})]),
        (
            ['Bearer realm="https://a.test/token",service="s",scope="repository:a/b:pull,push"'],
            [
                Challenge(
                    "bearer",
                    {"realm": "https://a.test/token", "service": "s", "scope": "repository:a/b:pull,push"},
                )
            ],
        ),
        (
            ['Bearer realm="a", Basic realm="b"', "Negotiate"],
            [Challenge("bearer", {"realm": "a"}), Challenge("basic", {"realm": "b"}), Challenge("negotiate", {})],
        ),
        ([r'BASIC Realm="a \"b\" \\c"'], [Challenge("basic", {"realm": 'a "b" \\c'})]),
        (["Bearer realm=plain , service = x"], [Challenge("bearer", {"realm": "plain", "service": "x"})]),
        ([""], []),
        (['="', "\0", '"realm"'], []),
        (['Bearer realm="never closed'], [Challenge("bearer", {})]),
    ],
)
def test_challenges(headers: list[str], challenges: list[Challenge]) -> None:
    assert list(parse_challenges(headers)) == challenges


def test_a_challenge_without_end_takes_no_time() -> None:
    begin = time.monotonic()
    parse_challenges(['Bearer realm="' + "\\" * 1_000_000, "Bearer " + ", " * 500_000, "a " * 500_000])
    assert time.monotonic() - begin < 1


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://A.test/x?y", Origin("https", "a.test", 443)),
        ("http://a.test:81", Origin("http", "a.test", 81)),
        ("http://[::1]:5000/", Origin("http", "::1", 5000)),
    ],
)
def test_origins(url: str, origin: Origin) -> None:
    assert Origin.of(url) == origin
    assert Origin.of(origin.base) == origin


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a.test",
        "ftp://a.test",
        "https://",
        "https://u:p@a.test",
        "http://a.test:x",
        "http://a\n.test",
        "http://[::1",
    ],
)
def test_what_is_no_origin(url: str) -> None:
    with pytest.raises(RegistryError):
        Origin.of(url)


@pytest.mark.parametrize(
    ("host", "kind"),
    [
        ("localhost", "loopback"),
        ("127.9.9.9", "loopback"),
        ("::1", "loopback"),
        ("0.0.0.0", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("169.254.169.254", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("fd00:ec2::254", "link-local"),
        ("168.63.129.16", "link-local"),
        ("224.0.0.1", "multicast"),
        ("10.0.0.1", ""),
        ("a.test", ""),
        ("localhost.a.test", ""),
    ],
)
def test_reach(host: str, kind: str) -> None:
    assert reach(host) == kind
    assert is_loopback(host) is (kind == "loopback")
    if kind:
        with pytest.raises(RegistryError, match=kind):
            check_reach(host, "", "a redirect")
    check_reach(host, kind, "a redirect")


@pytest.mark.parametrize(
    ("no_proxy", "host", "proxied"),
    [
        ("", "a.test", True),
        ("a.test", "a.test", False),
        ("a.test", "b.a.test", False),
        (".a.test", "b.a.test", False),
        ("*.a.test", "b.a.test", False),
        ("a.test", "ba.test", True),
        ("a.test:443", "a.test", False),
        ("a.test:80", "a.test", True),
        ("*", "a.test", False),
        ("10.0.0.0/8", "10.1.2.3", False),
        ("10.0.0.0/8", "11.1.2.3", True),
        ("10.1.2.3", "10.1.2.3", False),
        ("x, a.test ,y", "a.test", False),
        ("", "localhost", False),
        ("", "127.0.0.1", False),
    ],
)
def test_no_proxy(monkeypatch: pytest.MonkeyPatch, no_proxy: str, host: str, proxied: bool) -> None:
    for name in ("HTTPS_PROXY", "ALL_PROXY", "all_proxy", "NO_PROXY", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", "http://proxy.test:3128")
    monkeypatch.setenv("no_proxy", no_proxy)
    assert proxy_for(Origin("https", host, 443)) == ("http://proxy.test:3128" if proxied else None)
    assert proxy_for(Origin("http", host, 80)) is None


def test_which_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "no_proxy", "NO_PROXY", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALL_PROXY", "proxy.test:1")
    assert proxy_for(Origin("https", "a.test", 443)) == "http://proxy.test:1"
    monkeypatch.setenv("HTTPS_PROXY", "socks5://proxy.test")
    with pytest.raises(UsageError, match="neither http"):
        proxy_for(Origin("https", "a.test", 443))
    # CVE-2016-5385: in a CGI program the visitor sets HTTP_PROXY.
    monkeypatch.setenv("ALL_PROXY", "")
    monkeypatch.setenv("HTTP_PROXY", "http://evil.test")
    assert proxy_for(Origin("http", "a.test", 80)) == "http://evil.test"
    monkeypatch.setenv("REQUEST_METHOD", "GET")
    assert proxy_for(Origin("http", "a.test", 80)) is None


def test_retry_after() -> None:
    assert retry_after("120") == 120
    assert retry_after(" 0 ") == 0
    assert 55 < (retry_after(formatdate(time.time() + 60, usegmt=True)) or 0) <= 60
    assert retry_after(formatdate(time.time() - 60, usegmt=True)) == 0
    for text in (None, "", "soon", "-5", "1e9", "9" * 400):
        assert retry_after(text) is None


def test_delays_grow_and_end() -> None:
    patience = Patience()
    assert all(0 < patience.delay(number) <= patience.longest_delay for number in range(50))
    assert patience.delay(0) <= 0.3 < patience.delay(10)
    assert 5 <= patience.delay(0, asked=5) < 6


def test_pace() -> None:
    pace = Pace(Patience(rate=1000, window=0.05), "it")
    pace.count(1)  # too early to say
    time.sleep(0.06)
    with pytest.raises(RegistryUnreachable, match="comes too slowly: 2 bytes"):
        pace.count(1)
    pace = Pace(Patience(rate=1000, window=0.05), "it")
    for _ in range(3):
        time.sleep(0.03)
        pace.count(1000)


def test_stop() -> None:
    stop, event = Stop(), threading.Event()
    stop.on_set(event.set)
    assert not event.is_set()
    stop.set()
    assert event.is_set()
    late = threading.Event()
    stop.on_set(late.set)
    assert late.is_set()
    with pytest.raises(Cancelled):
        Patience.wait(10, event)
