"""Proving who one is: passwords over TLS, tokens, certificates, login and logout, and what liars do not get."""

import base64
import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from image_builder import simple_layout
from servers import DockerRegistry, Faulty, TokenServer, challenge, make_certificate, redirect, reply

from pyrtc.errors import RegistryDenied, RegistryError, RegistryUnreachable
from pyrtc.image.images import Images
from pyrtc.image.reference import Reference
from pyrtc.image.registry import auth, credentials
from pyrtc.image.registry.patience import Patience
from pyrtc.image.registry.pull import pull

QUICK = Patience(connect=2, silence=2, answer=2, attempts=2, first_delay=0.01, longest_delay=0.02)
BASIC = "Basic " + base64.b64encode(b"alice:s3cret").decode()


def trust(home: Path, host: str, cert: Path) -> Path:
    directory = home / "certs.d" / host
    directory.mkdir(parents=True)
    (directory / "ca.crt").write_bytes(cert.read_bytes())
    return directory


def write_auth(home: Path, *hosts: str) -> None:
    (home / ".docker").mkdir(exist_ok=True)
    entry = {"auth": base64.b64encode(b"alice:s3cret").decode()}
    (home / ".docker/config.json").write_text(json.dumps({"auths": dict.fromkeys(hosts, entry)}))


def pyrtc(*words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "pyrtc.cli.main", *words], input=stdin, capture_output=True, check=False, timeout=60
    )


# ---- TLS and htpasswd -----------------------------------------------------------------------------------------------


def test_login_push_pull_logout(
    images: Images, secure_registry: tuple[DockerRegistry, Path], own_settings: Path, tmp_path: Path
) -> None:
    registry, cert = secure_registry
    images.load(f"oci:{simple_layout().write(tmp_path / 'app')}")
    name = f"{registry.host}/private/app:1"
    images.tag(images.list()[0].id, name)
    with pytest.raises(RegistryUnreachable, match=rf"cannot prove who it is.*certs.d/{registry.host}/ca.crt"):
        images.push(name)
    trust(own_settings, registry.host, cert)
    with pytest.raises(RegistryDenied, match=f"'pyrtc login {registry.host}'"):
        images.push(name)
    done = pyrtc("login", "-u", "alice", "--password-stdin", registry.host, stdin=b"wrong\n")
    assert done.returncode == 1
    assert b"denied" in done.stderr
    file = own_settings / ".docker/config.json"
    assert not file.exists()
    done = pyrtc("login", "-u", "alice", "--password-stdin", registry.host, stdin=b"s3cret\n")
    assert (done.returncode, done.stdout) == (0, b"Login Succeeded\n")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text())["auths"][registry.host] == {"auth": base64.b64encode(b"alice:s3cret").decode()}
    result = images.push(name)
    images.remove(name)
    assert images.pull(name).digest == result.digest
    # Docker's own tools read the same file.
    words = ["skopeo", "inspect", "--cert-dir", own_settings / "certs.d" / registry.host, "--authfile", file]
    done = subprocess.run([*words, f"docker://{name}"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert pyrtc("logout", registry.host).stdout == f"Removing login credentials for {registry.host}\n".encode()
    assert json.loads(file.read_text())["auths"] == {}
    with pytest.raises(RegistryDenied):
        images.pull(f"{registry.host}/private/app:2")


def test_wrong_password(images: Images, secure_registry: tuple[DockerRegistry, Path], own_settings: Path) -> None:
    registry, cert = secure_registry
    trust(own_settings, registry.host, cert)
    (own_settings / ".docker").mkdir()
    entry = {"auth": base64.b64encode(b"alice:no").decode()}
    (own_settings / ".docker/config.json").write_text(json.dumps({"auths": {registry.host: entry}}))
    with pytest.raises(RegistryDenied, match="denied as alice"):
        images.pull(f"{registry.host}/private/app:1")


def test_insecure_means_no_look_at_the_certificate(
    images: Images, secure_registry: tuple[DockerRegistry, Path], own_settings: Path
) -> None:
    registry, _ = secure_registry
    (own_settings / "registries.conf").write_text(f'[[registry]]\nlocation = "{registry.host}"\ninsecure = true\n')
    with pytest.raises(RegistryDenied):  # so it was reached
        images.pull(f"{registry.host}/private/app:1")


def test_client_certificate(images: Images, own_settings: Path, tmp_path: Path) -> None:
    server = make_certificate(tmp_path, "server")
    client_cert, client_key = make_certificate(tmp_path, "client", client=True)
    with Faulty(tls=server, client_ca=client_cert, name="localhost") as registry:
        layout = simple_layout()
        registry.add(layout, layout.manifests[0], "app:1")
        directory = trust(own_settings, registry.host, server[0])
        with pytest.raises(RegistryUnreachable):
            pull(images._store, Reference.parse(f"{registry.host}/app:1"), patience=QUICK)
        (directory / "client.cert").write_bytes(client_cert.read_bytes())
        (directory / "client.key").write_bytes(client_key.read_bytes())
        assert images.pull(f"{registry.host}/app:1").bytes_fetched


def test_certificates_for_loopback_mean_tls(images: Images, faulty: Faulty, own_settings: Path, tmp_path: Path) -> None:
    """Plain HTTP will do on loopback, but not where somebody has put certificates."""
    trust(own_settings, faulty.host, make_certificate(tmp_path)[0])
    with pytest.raises(RegistryUnreachable, match="no TLS connection"):
        pull(images._store, Reference.parse(f"{faulty.host}/app:1"), patience=QUICK)
    assert faulty.requests == []


# ---- tokens ---------------------------------------------------------------------------------------------------------


def test_tokens(
    images: Images, token_registry: tuple[DockerRegistry, TokenServer], own_settings: Path, tmp_path: Path
) -> None:
    registry, tokens = token_registry
    images.load(f"oci:{simple_layout().write(tmp_path / 'app')}")
    public, private = f"{registry.host}/public/app:1", f"{registry.host}/private/app:1"
    for name in (public, private):
        images.tag(images.list()[0].id, name)
    with pytest.raises(RegistryDenied):
        images.push(public)
    write_auth(own_settings, registry.host)
    before = len(tokens.granted)
    pushed = images.push(public)
    assert tokens.granted[before:][0] == ["repository:public/app:pull,push"]
    # A token for both repositories is asked for, so that the registry may take the layers over.
    before = len(tokens.granted)
    result = images.push(private)
    assert [part.origin for part in result.layers] == ["mounted", "mounted"]
    asked = {scope for scopes in tokens.granted[before:] for scope in scopes}
    assert asked == {"repository:private/app:pull,push", "repository:public/app:pull"}

    (own_settings / ".docker/config.json").unlink()
    images.remove(public)
    images.remove(private)
    assert images.pull(public).digest == pushed.digest  # anonymous, with a token
    assert tokens.granted[-1] == ["repository:public/app:pull"]
    with pytest.raises(RegistryDenied):
        images.pull(private)


def test_one_token_for_many_layers(
    images: Images, token_registry: tuple[DockerRegistry, TokenServer], own_settings: Path, tmp_path: Path
) -> None:
    registry, tokens = token_registry
    from image_builder import layer
    from tar_builder import file

    layers = [layer(file(f"f{number}", b"x")) for number in range(6)]
    images.load(f"oci:{simple_layout('app', *layers).write(tmp_path / 'app')}")
    write_auth(own_settings, registry.host)
    name = f"{registry.host}/public/many:1"
    images.tag(images.list()[0].id, name)
    before = len(tokens.granted)
    images.push(name)
    assert len(tokens.granted) == before + 1


def test_a_token_that_ran_out_is_renewed(images: Images, faulty: Faulty) -> None:
    layout = simple_layout()
    faulty.add(layout, layout.manifests[0], "app:1")
    good = [f"t{number}" for number in range(100)]
    asked = []

    def token(exchange) -> None:
        asked.append(exchange.request.path)
        exchange.reply(200, json.dumps({"access_token": good[len(asked)], "expires_in": 300}).encode())

    def guarded(exchange) -> None:
        # The first token is good for the manifest only.
        manifest = "/manifests/" in exchange.request.path
        wanted = {f"Bearer {good[1]}"} if manifest else {f"Bearer {good[2]}"}
        if exchange.request.authorization in wanted:
            exchange.default()
        else:
            challenge(f'Bearer realm="{faulty.url}/token",service="s",scope="repository:app:pull"')(exchange)

    faulty.on("^/token", token)
    faulty.on("^/v2/app/", guarded)
    assert images.pull(f"{faulty.host}/app:1").bytes_fetched
    assert len(asked) == 2
    assert "scope=repository%3Aapp%3Apull" in asked[0] and "service=s" in asked[0]


def test_an_identity_token_is_traded(images: Images, faulty: Faulty, own_settings: Path) -> None:
    layout = simple_layout()
    faulty.add(layout, layout.manifests[0], "app:1")
    (own_settings / ".docker").mkdir()
    entry = {"auth": base64.b64encode(b"x:").decode(), "identitytoken": "refresh-me"}
    (own_settings / ".docker/config.json").write_text(json.dumps({"auths": {faulty.host: entry}}))

    def guarded(exchange) -> None:
        if exchange.request.authorization == "Bearer new":
            exchange.default()
        else:
            challenge(f'Bearer realm="{faulty.url}/token",service="s"')(exchange)

    faulty.on("^/token", reply(200, b'{"access_token": "new"}'))
    faulty.on("^/v2/app/", guarded)
    images.pull(f"{faulty.host}/app:1")
    (request,) = faulty.seen("^/token")
    assert request.method == "POST"
    assert b"grant_type=refresh_token" in request.body and b"refresh_token=refresh-me" in request.body


# ---- theft ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "realm",
    [
        "https://collector.example.com/token",
        "http://collector.example.com/token",
        "http://169.254.169.254/latest/meta-data/",
        "http://user:pass@127.0.0.1/token",
        "ftp://127.0.0.1/token",
        "nonsense",
        "",
    ],
)
def test_a_realm_elsewhere_gets_no_password(images: Images, faulty: Faulty, own_settings: Path, realm: str) -> None:
    """A registry without TLS may be anybody: it names only itself as a token server."""
    write_auth(own_settings, faulty.host)
    faulty.on("^/v2/", challenge(f'Bearer realm="{realm}",service="s"'))
    begin = time.monotonic()
    with pytest.raises(RegistryError):
        pull(images._store, Reference.parse(f"{faulty.host}/app:1"), patience=QUICK)
    assert time.monotonic() - begin < 5
    assert not any(request.authorization for request in faulty.requests)


def test_a_realm_elsewhere_is_another_registrys(images: Images, own_settings: Path, tmp_path: Path) -> None:
    """Even with TLS a registry gets its own credentials only, and never another's sent to the other's token server."""
    cert, key = make_certificate(tmp_path)
    with Faulty(tls=(cert, key), name="localhost") as evil, Faulty(tls=(cert, key), name="localhost") as victim:
        trust(own_settings, evil.host, cert)
        trust(own_settings, victim.host, cert)
        write_auth(own_settings, victim.host)
        evil.on(
            "^/v2/", challenge(f'Bearer realm="{victim.url}/token",service="victim",scope="repository:secret:pull"')
        )
        victim.on("^/token", reply(200, b'{"token": "for-nobody"}'))
        with pytest.raises(RegistryError):
            images.pull(f"{evil.host}/app:1")
        assert victim.requests
        assert not any(request.authorization for request in victim.requests)


def test_an_unverified_registry_names_no_other_token_server(images: Images, own_settings: Path, tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path)
    with Faulty(tls=(cert, key), name="localhost") as registry:
        (own_settings / "registries.conf").write_text(f'[[registry]]\nlocation="{registry.host}"\ninsecure=true\n')
        write_auth(own_settings, registry.host)
        registry.on("^/v2/", challenge('Bearer realm="https://tokens.example.com/t"'))
        with pytest.raises(RegistryError, match="it gets no password"):
            images.pull(f"{registry.host}/app:1")


def test_redirects_carry_no_credentials(images: Images, faulty: Faulty, own_settings: Path) -> None:
    layout = simple_layout()
    faulty.add(layout, layout.manifests[0], "app:1")
    write_auth(own_settings, faulty.host)
    with Faulty() as storage:
        storage.blobs = faulty.blobs

        def guarded(exchange) -> None:
            if exchange.request.authorization != BASIC:
                challenge('Basic realm="x"')(exchange)
            elif "/blobs/" in exchange.request.path:
                redirect(f"{storage.url}{exchange.request.path}")(exchange)
            else:
                exchange.default()

        faulty.on("^/v2/app/", guarded)
        assert images.pull(f"{faulty.host}/app:1").bytes_fetched
        assert storage.seen("/blobs/")
        assert not any(request.authorization for request in storage.requests)


def test_where_a_redirect_leads_may_not_ask_for_credentials(images: Images, faulty: Faulty, own_settings: Path) -> None:
    layout = simple_layout()
    faulty.add(layout, layout.manifests[0], "app:1")
    write_auth(own_settings, faulty.host)
    with Faulty() as thief:
        thief.on("", challenge('Basic realm="x"'))
        faulty.on("/blobs/", redirect(f"{thief.url}/v2/app/blobs/x"))
        with pytest.raises(RegistryDenied, match="get none"):
            images.pull(f"{faulty.host}/app:1")
        assert not any(request.authorization for request in thief.requests)


def test_uploads_elsewhere_carry_no_credentials(
    images: Images, faulty: Faulty, own_settings: Path, tmp_path: Path
) -> None:
    images.load(f"oci:{simple_layout().write(tmp_path / 'app')}")
    name = f"{faulty.host}/app:1"
    images.tag(images.list()[0].id, name)
    write_auth(own_settings, faulty.host)
    with Faulty() as storage:

        def guarded(exchange) -> None:
            if exchange.request.authorization != BASIC:
                challenge('Basic realm="x"')(exchange)
            elif exchange.request.method == "POST":
                exchange.reply(202, headers={"Location": f"{storage.url}{exchange.request.path}1"})
            else:
                exchange.default()

        faulty.on("^/v2/app/", guarded)
        images.push(name)
        assert storage.seen("/blobs/uploads/", "PUT")
        assert not any(request.authorization for request in storage.requests)


def test_basic_over_plain_http_stays_on_this_machine() -> None:
    """Nothing secret goes over plain HTTP to another host, whatever the settings say."""
    from pyrtc.image.registry.addresses import Origin
    from pyrtc.image.registry.settings import Endpoint
    from pyrtc.image.registry.transport import Transport

    endpoint = Endpoint("registry.example.com", "app", insecure=True)
    keeper = auth.Authorizer(
        Transport(), endpoint, Origin("http", "registry.example.com", 80), lambda: credentials.Credentials("a", "b")
    )

    class Answer:
        crossed = False

        def headers(self, name: str) -> list[str]:
            return ['Basic realm="x"']

    with pytest.raises(RegistryDenied, match="plain HTTP"):
        keeper.answer(Answer(), frozenset(), None)  # type: ignore[arg-type]


# ---- helpers --------------------------------------------------------------------------------------------------------


def helper(directory: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    program = directory / "docker-credential-test"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")


def test_a_credential_helper(
    secure_registry: tuple[DockerRegistry, Path], own_settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, cert = secure_registry
    trust(own_settings, registry.host, cert)
    kept = tmp_path / "kept"
    helper(
        tmp_path,
        monkeypatch,
        f'case "$1" in store) cat >{kept} ;; get) read name; test -e {kept} && cat {kept} || '
        f"{{ echo credentials not found in native keychain; exit 1; }} ;; erase) rm {kept} ;; esac",
    )
    (own_settings / ".docker").mkdir()
    (own_settings / ".docker/config.json").write_text('{"credsStore": "test", "psFormat": "x"}')
    done = pyrtc("login", "-u", "alice", "-p", "s3cret", registry.host)
    assert done.returncode == 0, done.stderr
    written = json.loads((own_settings / ".docker/config.json").read_text())
    assert written == {"credsStore": "test", "psFormat": "x", "auths": {registry.host: {}}}
    assert json.loads(kept.read_text()) == {"ServerURL": registry.host, "Username": "alice", "Secret": "s3cret"}
    assert credentials.find(registry.host) == credentials.Credentials("alice", "s3cret")
    assert pyrtc("login", registry.host).stdout.startswith(b"Authenticating with existing credentials")
    assert pyrtc("logout", registry.host).returncode == 0
    assert not kept.exists()
    assert credentials.find(registry.host) is None
