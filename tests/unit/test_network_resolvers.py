"""What this host resolves names with."""

from pathlib import Path

import pytest

from pyrtc.network import resolvers
from pyrtc.network.resolvers import Resolvers, host_resolvers


@pytest.mark.parametrize(
    ("text", "expected", "stub"),
    [
        ("nameserver 10.0.0.1\n# nameserver 10.9.9.9\nnameserver  ::1\n", ("10.0.0.1", "::1"), ("10.0.0.1", "::1")),
        ("nameserver 127.0.0.53\n", ("192.0.2.7",), ("127.0.0.53",)),
        ("nameserver 127.0.0.53\nnameserver 127.0.0.1\n", ("127.0.0.53", "127.0.0.1"), ("127.0.0.53", "127.0.0.1")),
        ("nameserver\nnameserver here\nnameserver 1.2.3\n", (), ()),
        ("", (), ()),
        ("\xff\nnameserver 1.1.1.1 # and more\n", ("1.1.1.1",), ("1.1.1.1",)),
        ("".join(f"nameserver 10.0.0.{n}\n" for n in (1, 1, 2, 3, 4)),) + (("10.0.0.1", "10.0.0.2", "10.0.0.3"),) * 2,
    ],
)
def test_nameservers(tmp_path: Path, monkeypatch, text: str, expected, stub) -> None:
    (tmp_path / "resolv.conf").write_text(text, encoding="latin-1")
    (tmp_path / "systemd").write_text("nameserver 192.0.2.7\n")
    monkeypatch.setattr(resolvers, "_FILE", str(tmp_path / "resolv.conf"))
    monkeypatch.setattr(resolvers, "_BEHIND_STUB", str(tmp_path / "systemd"))
    assert host_resolvers().nameservers == expected
    assert host_resolvers(stub=True).nameservers == stub


def test_search_and_options(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "resolv.conf").write_text("search a b\ndomain c\noptions edns0 ndots:2\noptions edns0\n")
    monkeypatch.setattr(resolvers, "_FILE", str(tmp_path / "resolv.conf"))
    assert host_resolvers() == Resolvers((), ("c",), ("edns0", "ndots:2"))


def test_a_host_that_says_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(resolvers, "_FILE", str(tmp_path / "none"))
    monkeypatch.setattr(resolvers, "_BEHIND_STUB", str(tmp_path / "none"))
    assert host_resolvers() == host_resolvers(stub=True) == Resolvers()


def test_what_a_container_can_reach() -> None:
    found = Resolvers(("127.0.0.53", "10.0.0.1", "::1", "fe80::1%eth0", "0.0.0.0"))
    assert found.elsewhere == ("10.0.0.1", "fe80::1%eth0")
