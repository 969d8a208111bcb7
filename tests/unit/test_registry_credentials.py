"""Where credentials are found and kept."""

import base64
import json
import os
import stat
import threading
import time
from pathlib import Path

import pytest

from pyrtc.errors import RegistryError, UsageError
from pyrtc.image.registry import credentials
from pyrtc.image.registry.credentials import Credentials


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("REGISTRY_AUTH_FILE", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


def auth(pair: str) -> dict[str, str]:
    return {"auth": base64.b64encode(pair.encode()).decode()}


def write(path: Path, **document: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def user(domain: str, path: str = "") -> str | None:
    found = credentials.find(domain, path)
    return found.username if found else None


def test_order_of_files(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert credentials.find("a.test") is None
    write(home / ".docker/config.json", auths={"a.test": auth("docker:x"), "b.test": auth("docker:x")})
    assert user("a.test") == "docker"
    write(home / "config/containers/auth.json", auths={"a.test": auth("config:x")})
    assert user("a.test") == "config"
    write(home / "run/containers/auth.json", auths={"a.test": auth("run:x")})
    assert (user("a.test"), user("b.test")) == ("run", "docker")
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(write(home / "only.json", auths={"c.test": auth("only:x")})))
    assert (user("a.test"), user("c.test")) == (None, "only")


@pytest.mark.parametrize(
    ("key", "domain"),
    [
        ("a.test:5000", "a.test:5000"),
        ("https://a.test", "a.test"),
        ("http://a.test/v2/", "a.test"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
    ],
)
def test_keys(home: Path, key: str, domain: str) -> None:
    write(home / ".docker/config.json", auths={key: auth("me:secret:with:colons")})
    assert credentials.find(domain) == Credentials("me", "secret:with:colons")
    assert credentials.find(f"not-{domain}") is None


def test_the_longest_key_wins(home: Path) -> None:
    write(
        home / ".docker/config.json",
        auths={"a.test": auth("all:x"), "a.test/team": auth("team:x"), "a.test/team/app": auth("app:x")},
    )
    assert [user("a.test", path) for path in ("x", "team/y", "team/app", "teams")] == ["all", "team", "app", "all"]
    assert user("a.test") == "all"


def test_other_kinds(home: Path) -> None:
    write(
        home / ".docker/config.json",
        auths={
            "identity.test": {**auth("u:"), "identitytoken": "t1"},
            "registry.test": {"registrytoken": "t2"},
            "plain.test": {"username": "u", "password": "p"},
            "empty.test": {},
        },
    )
    assert credentials.find("identity.test") == Credentials("u", "", "t1")
    assert credentials.find("registry.test") == Credentials(registry_token="t2")
    assert credentials.find("plain.test") == Credentials("u", "p")
    assert credentials.find("empty.test") is None
    assert "t1" not in repr(credentials.find("identity.test"))


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": []}', '{"auths": {"a.test": {"auth": "%%%"}}}', "[" * 100_000])
def test_damage(home: Path, text: str) -> None:
    (home / ".docker").mkdir()
    (home / ".docker/config.json").write_text(text)
    with pytest.raises(UsageError, match="damaged"):
        credentials.find("a.test")


def test_store_and_forget(home: Path) -> None:
    file = write(home / ".docker/config.json", psFormat="x", auths={"b.test": auth("b:x")})
    file.chmod(0o644)
    credentials.store("a.test", Credentials("me", "pass"))
    credentials.store("docker.io", Credentials("hub", "pass"))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    document = json.loads(file.read_text())
    assert document["psFormat"] == "x"
    assert set(document["auths"]) == {"a.test", "b.test", "https://index.docker.io/v1/"}
    assert credentials.find("docker.io") == Credentials("hub", "pass")
    assert credentials.forget("docker.io")
    assert not credentials.forget("docker.io")
    assert user("b.test") == "b"
    assert os.listdir(home / ".docker") == ["config.json"]


def test_a_link_stays_a_link(home: Path) -> None:
    real = write(home / "elsewhere/real.json", auths={})
    (home / ".docker").mkdir()
    (home / ".docker/config.json").symlink_to(real)
    credentials.store("a.test", Credentials("me", "pass"))
    assert (home / ".docker/config.json").is_symlink()
    assert "a.test" in json.loads(real.read_text())["auths"]


def test_many_logins_at_once(home: Path) -> None:
    threads = [
        threading.Thread(target=credentials.store, args=(f"{number}.test", Credentials("me", "x")))
        for number in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(json.loads((home / ".docker/config.json").read_text())["auths"]) == 12


# ---- helpers --------------------------------------------------------------------------------------------------------


def helper(home: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    (home / "bin").mkdir(exist_ok=True)
    program = home / "bin/docker-credential-test"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{home}/bin:{os.environ['PATH']}")


def test_helpers(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(home, monkeypatch, 'read server; echo "{\\"Username\\": \\"$server\\", \\"Secret\\": \\"s\\"}"')
    write(
        home / ".docker/config.json", credHelpers={"a.test": "test", "docker.io": "test"}, auths={"a.test": auth("x:y")}
    )
    assert credentials.find("a.test") == Credentials("a.test", "s")
    assert user("docker.io") == "https://index.docker.io/v1/"
    assert credentials.find("b.test") is None
    write(home / ".docker/config.json", credsStore="test", auths={"c.test": auth("c:y"), "a.test": {}})
    assert (user("a.test"), user("c.test")) == ("a.test", "c")
    helper(home, monkeypatch, 'echo \'{"Username": "<token>", "Secret": "refresh"}\'')
    assert credentials.find("a.test") == Credentials(identity_token="refresh")


@pytest.mark.parametrize(
    ("body", "match"),
    [
        ("echo nonsense", "no credentials"),
        ("echo broken; exit 3", "failed: broken"),
        ("exit 3", "exit code 3"),
        ("exec sleep 60", "did not end within"),
        ("sleep 60 & echo {}", "did not end within"),
        ("cat /dev/zero", "more than"),
    ],
)
def test_helpers_that_fail(home: Path, monkeypatch: pytest.MonkeyPatch, body: str, match: str) -> None:
    monkeypatch.setattr(credentials, "_HELPER_TIMEOUT", 0.5)
    helper(home, monkeypatch, body)
    write(home / ".docker/config.json", credsStore="test")
    begin = time.monotonic()
    with pytest.raises(RegistryError, match=match):
        credentials.find("a.test")
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize("name", ["../../bin/sh", "a b", "", "-x", "x/y"])
def test_names_of_helpers(home: Path, name: str) -> None:
    write(home / ".docker/config.json", credHelpers={"a.test": name})
    if not name:
        assert credentials.find("a.test") is None
        return
    with pytest.raises(RegistryError, match="no name of a credential helper"):
        credentials.find("a.test")


def test_a_helper_that_is_missing(home: Path) -> None:
    write(home / ".docker/config.json", credsStore="no-such-helper")
    with pytest.raises(RegistryError, match="cannot run the credential helper docker-credential-no-such-helper"):
        credentials.find("a.test")
