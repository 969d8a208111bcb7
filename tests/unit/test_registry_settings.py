"""registries.conf and certs.d, as a pull reads them."""

from pathlib import Path

import pytest

from pyrtc.errors import RegistryError, UsageError
from pyrtc.image.reference import Reference
from pyrtc.image.registry.settings import Endpoint, Settings


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "registries.conf"
    monkeypatch.setenv("PYRTC_REGISTRIES_CONF", str(path))
    monkeypatch.setenv("PYRTC_CERTS_D", str(tmp_path / "certs.d"))
    return path


def pulled(name: str) -> list[str]:
    return [endpoint.repository for endpoint in Settings.load().to_pull(Reference.parse(name))]


def test_nothing_said(conf: Path) -> None:
    conf.write_text("")
    assert Settings.load().to_pull(Reference.parse("debian")) == (Endpoint("docker.io", "library/debian"),)
    endpoint = Settings.load().to_push(Reference.parse("example.com:5000/a/b:1"))
    assert (endpoint.host, endpoint.port, endpoint.path, endpoint.insecure) == ("example.com", 5000, "a/b", False)
    assert Endpoint("docker.io", "").host == "registry-1.docker.io"
    assert Endpoint("[::1]:5000", "").host == "::1"


def test_prefix_location_and_mirrors(conf: Path) -> None:
    conf.write_text(
        """
        unqualified-search-registries = ["ignored.example.com"]
        [[registry]]
        location = "docker.io"
        [[registry.mirror]]
        location = "mirror.example.com/hub"
        [[registry.mirror]]
        location = "tags.example.com"
        pull-from-mirror = "tag-only"
        [[registry.mirror]]
        location = "digests.example.com"
        pull-from-mirror = "digest-only"
        [[registry]]
        prefix = "example.com/team"
        location = "internal.example.com/space"
        insecure = true
        """
    )
    assert pulled("debian") == [
        "mirror.example.com/hub/library/debian",
        "tags.example.com/library/debian",
        "docker.io/library/debian",
    ]
    assert pulled(f"debian@sha256:{'0' * 64}")[1] == "digests.example.com/library/debian"
    assert pulled("example.com/team/app") == ["internal.example.com/space/app"]
    assert pulled("example.com/teams/app") == ["example.com/teams/app"]
    assert Settings.load().to_push(Reference.parse("debian")).repository == "docker.io/library/debian"
    assert Settings.load().to_push(Reference.parse("example.com/team/app")).insecure


def test_the_longest_prefix_wins(conf: Path) -> None:
    conf.write_text(
        """
        [[registry]]
        prefix = "*.example.com"
        insecure = true
        [[registry]]
        prefix = "a.example.com/x"
        blocked = true
        """
    )
    settings = Settings.load()
    (endpoint,) = settings.to_pull(Reference.parse("b.example.com:444/y"))
    assert (endpoint.repository, endpoint.insecure) == ("b.example.com:444/y", True)
    with pytest.raises(RegistryError, match=r"blocks a\.example\.com/x"):
        settings.to_pull(Reference.parse("a.example.com/x"))
    with pytest.raises(RegistryError, match="blocks"):
        settings.to_push(Reference.parse("a.example.com/x/y"))
    assert not settings.to_pull(Reference.parse("example.com/z"))[0].insecure


def test_the_old_format(conf: Path) -> None:
    conf.write_text(
        '[registries.insecure]\nregistries = ["old.example.com"]\n[registries.block]\nregistries = ["bad.com"]'
    )
    settings = Settings.load()
    assert settings.to_pull(Reference.parse("old.example.com/x"))[0].insecure
    with pytest.raises(RegistryError):
        settings.to_pull(Reference.parse("bad.com/x"))


@pytest.mark.parametrize(
    "text",
    [
        "[[registry]]",
        "registry = 5",
        '[[registry]]\nlocation = "https://example.com"',
        '[[registry]]\nlocation = "example.com/"',
        '[[registry]]\nlocation = "a"\ninsecure = "yes"',
        '[[registry]]\nlocation = "a"\n[[registry.mirror]]\ninsecure = true',
        '[[registry]]\nlocation = "a"\n[[registry.mirror]]\nlocation = "b"\npull-from-mirror = "never"',
        "[[[",
        '[registries.insecure]\nregistries = "a"',
    ],
)
def test_damage_is_named(conf: Path, text: str) -> None:
    conf.write_text(text)
    with pytest.raises(UsageError, match=r"registries\.conf"):
        Settings.load()


def test_where_files_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYRTC_REGISTRIES_CONF", "CONTAINERS_REGISTRIES_CONF", "PYRTC_CERTS_D"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    own = tmp_path / "containers"
    (own / "registries.conf.d").mkdir(parents=True)
    (own / "registries.conf").write_text('[[registry]]\nlocation = "a.test"\ninsecure = true')
    (own / "registries.conf.d/1.conf").write_text('[[registry]]\nlocation = "b.test"\ninsecure = true')
    (own / "registries.conf.d/2.conf").write_text('[[registry]]\nlocation = "a.test"\nblocked = true')
    (own / "certs.d/b.test:5000").mkdir(parents=True)
    settings = Settings.load()
    with pytest.raises(RegistryError):
        settings.to_pull(Reference.parse("a.test/x"))
    assert settings.to_pull(Reference.parse("b.test/x"))[0].insecure
    assert settings.to_pull(Reference.parse("b.test:5000/x"))[0].certificates == own / "certs.d/b.test:5000"
    assert settings.to_pull(Reference.parse("b.test/x"))[0].certificates is None
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(tmp_path / "missing"))
    with pytest.raises(UsageError, match="missing"):
        Settings.load()


@pytest.mark.parametrize(
    ("domain", "plain"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("127.1.2.3", True),
        ("[::1]:5000", True),
        ("localhost.example.com", False),
        ("evil.localhost", False),
        ("127.0.0.1.example.com", False),
        ("10.0.0.1", False),
        ("docker.io", False),
    ],
)
def test_plain_http_is_for_this_machine(domain: str, plain: bool) -> None:
    assert Endpoint(domain, "x").plain_allowed is plain
    assert Endpoint(domain, "x", insecure=True).plain_allowed
    assert not Endpoint(domain, "x", certificates=Path("/")).plain_allowed
