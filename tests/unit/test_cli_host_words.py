"""Names and addresses."""

import pytest

from pyrtc.cli import host_words
from pyrtc.errors import UsageError


@pytest.mark.parametrize(
    ("read", "word", "expected"),
    [
        (host_words.container_name, "web_1.a-b", "web_1.a-b"),
        (host_words.host_name, "a", "a"),
        (host_words.host_name, "db-1.example.org", "db-1.example.org"),
        (host_words.host_name, "x" * 64, "x" * 64),
        (host_words.ip_address, "8.8.8.8", "8.8.8.8"),
        (host_words.ip_address, "2001:DB8::0:1", "2001:db8::1"),
        (host_words.extra_host, "db:10.0.0.1", ("db", "10.0.0.1")),
        (host_words.extra_host, "db=10.0.0.1", ("db", "10.0.0.1")),
        (host_words.extra_host, "db:::1", ("db", "::1")),
        (host_words.extra_host, "db:[::1]", ("db", "::1")),
        (host_words.extra_host, "me:host-gateway", ("me", "host-gateway")),
        (host_words.search_domain, "example.org", "example.org"),
        (host_words.search_domain, "example.org.", "example.org."),
        (host_words.search_domain, ".", "."),
        (host_words.platform, "linux/amd64", "linux/amd64"),
        (host_words.platform, "amd64", "linux/amd64"),
        (host_words.platform, "Linux/x86_64", "linux/amd64"),
        (host_words.platform, "linux/arm64/v8", "linux/arm64/v8"),
        (host_words.platform, "aarch64", "linux/arm64"),
    ],
)
def test_read(read, word, expected):
    assert read(word) == expected


@pytest.mark.parametrize(
    ("read", "word"),
    [
        *((host_words.container_name, word) for word in ("", "a", "-a", "a b", "a/b", "a" * 129, "é1", "ab\n")),
        *((host_words.host_name, word) for word in ("", "-a", "a-", "a b", "x" * 65, "a/b", "a\n", ".")),
        *((host_words.ip_address, word) for word in ("", "1.2.3", "1.2.3.4.5", "x", "::g", "1.2.3.4/8")),
        *((host_words.extra_host, word) for word in ("", "db", "db:", ":1.2.3.4", "a b:1.2.3.4", "db:x", "db:[::1")),
        *((host_words.search_domain, word) for word in ("", "..", "a b", "-a", "a..b", "x" * 64, "a." * 200)),
        *((host_words.platform, word) for word in ("", "/", "linux/", "windows/amd64", "linux/a/b/c", "linux/a b")),
    ],
)
def test_refused(read, word):
    with pytest.raises(UsageError):
        read(word)


def test_long_hostile_domain_is_refused_at_once():
    with pytest.raises(UsageError):
        host_words.search_domain("a" * 250 + "!")
