"""What tests with registries share: a store, no settings but their own, and the real registries."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from servers import DockerRegistry, Faulty, TokenServer, make_certificate, need

from pyrtc.image.images import Images
from pyrtc.store import Store


@pytest.fixture(autouse=True)
def own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the machine's settings, credentials and proxies out; returns the directory that stands for the home."""
    home = tmp_path / "home"
    home.mkdir()
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
            monkeypatch.delenv(name)
    (home / "registries.conf").write_text("")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("DOCKER_CONFIG", str(home / ".docker"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home / "run"))
    monkeypatch.setenv("PYRTC_REGISTRIES_CONF", str(home / "registries.conf"))
    monkeypatch.setenv("PYRTC_CERTS_D", str(home / "certs.d"))
    return home


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as opened:
        yield opened


@pytest.fixture
def images(store: Store) -> Images:
    return Images(store)


@pytest.fixture
def faulty() -> Iterator[Faulty]:
    with Faulty() as server:
        yield server


@pytest.fixture(scope="session")
def docker_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    registry = DockerRegistry(tmp_path_factory.mktemp("plain"))
    yield registry
    registry.close()


@pytest.fixture(scope="session")
def secure_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DockerRegistry, Path]]:
    """TLS and htpasswd, for alice with s3cret; with the file of its CA."""
    need("docker-registry", "htpasswd", "openssl")
    directory = tmp_path_factory.mktemp("secure")
    cert, key = make_certificate(directory)
    done = subprocess.run(["htpasswd", "-Bbn", "alice", "s3cret"], check=True, capture_output=True)
    (directory / "htpasswd").write_bytes(done.stdout)
    registry = DockerRegistry(
        directory / "registry",
        http=f", tls: {{certificate: {cert}, key: {key}}}",
        auth=f"auth: {{htpasswd: {{realm: tests, path: {directory}/htpasswd}}}}\n",
        tls=True,
    )
    yield registry, cert
    registry.close()


@pytest.fixture(scope="session")
def token_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DockerRegistry, TokenServer]]:
    need("docker-registry")
    directory = tmp_path_factory.mktemp("token")
    tokens = TokenServer(directory)
    registry = DockerRegistry(directory / "registry", auth=tokens.auth())
    yield registry, tokens
    registry.close()
    tokens.close()
