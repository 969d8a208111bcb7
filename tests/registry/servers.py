"""Registries for tests, all on loopback: Debian's docker-registry, and one in memory that misbehaves as it is told."""

import base64
import contextlib
import hashlib
import http.client
import json
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


def need(*programs: str) -> None:
    """Skip the test when a program is missing, and say where it is from."""
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}; scripts/packages test installs them")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def make_certificate(directory: Path, name: str = "cert", *, client: bool = False) -> tuple[Path, Path]:
    """Make a certificate for localhost that signs itself; returns its file and its key's."""
    need("openssl")
    cert, key = directory / f"{name}.pem", directory / f"{name}-key.pem"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    words += [
        "-days",
        "30",
        "-keyout",
        str(key),
        "-out",
        str(cert),
        "-subj",
        f"/CN={'user' if client else 'localhost'}",
    ]
    if not client:
        words += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(words, check=True, capture_output=True)
    return cert, key


# ---- docker-registry ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LogLine:
    """One request as the registry's access log has it."""

    method: str
    path: str
    status: int
    size: int


class DockerRegistry:
    """A docker-registry of its own, with its access log."""

    def __init__(self, directory: Path, *, http: str = "", auth: str = "", tls: bool = False) -> None:
        need("docker-registry")
        directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.host = f"{'localhost' if tls else '127.0.0.1'}:{self.port}"
        self._log = directory / "log"
        config = directory / "config.yml"
        config.write_text(
            f"version: 0.1\nlog: {{level: error}}\n"
            f"storage: {{filesystem: {{rootdirectory: {directory}/data}}, delete: {{enabled: true}}}}\n"
            f'http: {{addr: "127.0.0.1:{self.port}", secret: x{http}}}\n{auth}'
        )
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["docker-registry", "serve", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise RuntimeError(self._log.read_text()) from None
                time.sleep(0.02)

    def lines(self, since: int = 0) -> list[LogLine]:
        """Return the requests from a mark on."""
        time.sleep(0.05)  # the line is written after the answer
        found = []
        for line in self._log.read_bytes()[since:].decode().splitlines():
            match = re.match(r'\S+ - \S* ?\[[^]]*\] "(\w+) (\S+) HTTP/1\.\d" (\d+) (\d+)', line)
            if match:
                found.append(LogLine(match[1], match[2], int(match[3]), int(match[4])))
        return found

    def mark(self) -> int:
        """Return where the log ends now."""
        time.sleep(0.05)
        return self._log.stat().st_size

    def blob_bytes(self, since: int = 0) -> dict[str, int]:
        """Return how many bytes of each blob went out."""
        sent: dict[str, int] = {}
        for line in self.lines(since):
            if line.method == "GET" and "/blobs/" in line.path:
                digest = line.path.rpartition("/")[2]
                sent[digest] = sent.get(digest, 0) + line.size
        return sent

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)


# ---- a registry in memory that does what it is told -----------------------------------------------------------------


@dataclass
class Request:
    """One request that came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""

    @property
    def authorization(self) -> str | None:
        return self.headers.get("authorization")


Action = Callable[["Exchange"], None]


@dataclass
class Rule:
    """What to do with requests that fit, a number of times (None: always)."""

    pattern: str
    action: Action
    method: str | None = None
    times: int | None = None


class Exchange:
    """One request on its way to an answer."""

    def __init__(self, handler: "_Handler", request: Request) -> None:
        self.handler = handler
        self.request = request
        self.server: Faulty = handler.server.owner  # type: ignore[attr-defined]

    def reply(self, status: int = 200, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        """Answer."""
        self.begin(status, headers, length=len(body))
        if self.request.method != "HEAD":
            self.send(body)

    def begin(self, status: int, headers: dict[str, str] | None = None, *, length: int | None = None) -> None:
        """Send the headers of an answer. length: what Content-Length claims, None for none."""
        fields = dict(headers or {})
        if length is not None and not any(name.lower() == "content-length" for name in fields):
            fields["Content-Length"] = str(length)
        self.handler.send_response(status)
        for name, value in fields.items():
            self.handler.send_header(name, value)
        if not any(name.lower() == "content-length" for name in fields):
            self.handler.send_header("Connection", "close")
            self.handler.close_connection = True
        self.handler.end_headers()

    def send(self, data: bytes) -> None:
        """Send bytes of the body."""
        self.handler.wfile.write(data)
        self.handler.wfile.flush()
        self.server.count(len(data))

    def cut(self) -> None:
        """Break the connection."""
        self.handler.close_connection = True
        with contextlib.suppress(OSError):
            self.handler.connection.shutdown(socket.SHUT_RDWR)

    def default(self) -> None:
        """Answer as if there were no rule."""
        self.server.serve(self)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def log_message(self, *_words: object) -> None:
        pass

    def handle(self) -> None:
        # Whoever says hello in TLS would have to wait for the end of a line.
        if not isinstance(self.connection, ssl.SSLSocket):
            with contextlib.suppress(OSError):
                if self.connection.recv(1, socket.MSG_PEEK) == b"\x16":
                    return
        with contextlib.suppress(OSError, ssl.SSLError):
            super().handle()

    def _any(self) -> None:
        request = Request(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
        server: Faulty = self.server.owner  # type: ignore[attr-defined]
        rule = server.take(request)
        exchange = Exchange(self, request)
        if rule is None or not getattr(rule.action, "before_body", False):
            request.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if rule is not None:
            rule.action(exchange)
        else:
            server.serve(exchange)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _any  # noqa: N815


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_words: object) -> None:
        pass


@dataclass
class Faulty:
    """A registry in memory. Rules come before its own answers.

    blobs: by digest. manifests: (media type, content) by digest. tags: digests by "repository:tag".
    """

    tls: tuple[Path, Path] | None = None
    client_ca: Path | None = None
    name: str = "127.0.0.1"
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    rules: list[Rule] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    uploads: dict[str, bytes] = field(default_factory=dict)
    sent: int = 0
    ranges: bool = True

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.owner = self  # type: ignore[attr-defined]
        if self.tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.tls)
            if self.client_ca is not None:
                context.load_verify_locations(self.client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port = self._server.server_address[1]
        self.host = f"{self.name}:{self.port}"
        self.url = f"{'https' if self.tls else 'http'}://{self.host}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> "Faulty":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    # -- what it has

    def add(self, layout, descriptor, name: str) -> str:
        """Take an image of an `image_builder.Layout`; name: repository:tag. Returns the digest of its manifest."""
        types = {MANIFEST, INDEX, "application/vnd.docker.distribution.manifest.v2+json"}
        for digest, content in layout.blobs.items():
            self.blobs[digest] = content
            with contextlib.suppress(ValueError):
                document = json.loads(content)
                if isinstance(document, dict) and ("layers" in document or "manifests" in document):
                    kind = document.get("mediaType") or (INDEX if "manifests" in document else MANIFEST)
                    self.manifests[digest] = (kind if kind in types else MANIFEST, content)
        self.tags[name] = descriptor["digest"]
        return descriptor["digest"]

    def add_manifest(self, content: bytes, name: str, media_type: str = MANIFEST) -> str:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.manifests[digest] = (media_type, content)
        self.tags[name] = digest
        return digest

    def on(self, pattern: str, action: Action, *, method: str | None = None, times: int | None = None) -> None:
        """Add a rule; pattern: of the path, searched."""
        self.rules.append(Rule(pattern, action, method, times))

    # -- what it sees and does

    def take(self, request: Request) -> Rule | None:
        with self._lock:
            self.requests.append(request)
            for rule in self.rules:
                if rule.times == 0 or rule.method not in (None, request.method):
                    continue
                if re.search(rule.pattern, request.path):
                    if rule.times is not None:
                        rule.times -= 1
                    return rule
        return None

    def count(self, size: int) -> None:
        with self._lock:
            self.sent += size

    def seen(self, pattern: str, method: str | None = None) -> list[Request]:
        """Return the requests that fit."""
        return [
            request
            for request in list(self.requests)
            if method in (None, request.method) and re.search(pattern, request.path)
        ]

    def serve(self, exchange: Exchange) -> None:
        path = urlsplit(exchange.request.path).path
        method = exchange.request.method
        if path == "/v2/":
            exchange.reply(200, b"{}")
        elif method in ("GET", "HEAD") and (match := re.fullmatch(r"/v2/(.+)/manifests/([^/]+)", path)):
            digest = match[2] if ":" in match[2] else self.tags.get(f"{match[1]}:{match[2]}", "")
            if digest not in self.manifests:
                error = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
                exchange.reply(404, json.dumps(error).encode())
                return
            kind, content = self.manifests[digest]
            exchange.reply(200, content, {"Content-Type": kind, "Docker-Content-Digest": digest})
        elif method in ("GET", "HEAD") and (match := re.fullmatch(r"/v2/(.+)/blobs/(\w+:\w+)", path)):
            self._blob(exchange, match[2])
        elif method != "GET" and "/blobs/uploads/" in path:
            self._upload(exchange, path)
        elif method == "GET" and path in self.uploads:
            size = len(self.uploads[path])
            exchange.reply(204, headers={"Location": path, "Range": f"0-{max(0, size - 1)}"})
        elif method == "PUT" and (match := re.fullmatch(r"/v2/(.+)/manifests/([^/]+)", path)):
            kind = exchange.request.headers.get("content-type", MANIFEST)
            digest = self.add_manifest(exchange.request.body, f"{match[1]}:{match[2]}", kind)
            exchange.reply(201, headers={"Docker-Content-Digest": digest, "Location": path})
        else:
            exchange.reply(404, b"{}")

    def _blob(self, exchange: Exchange, digest: str) -> None:
        content = self.blobs.get(digest)
        if content is None:
            exchange.reply(404, b"{}")
            return
        wanted = re.fullmatch(r"bytes=(\d+)-", exchange.request.headers.get("range", ""))
        if wanted and self.ranges:
            start = int(wanted[1])
            part = f"bytes {start}-{len(content) - 1}/{len(content)}"
            exchange.reply(206, content[start:], {"Content-Range": part})
        else:
            exchange.reply(200, content)

    def _upload(self, exchange: Exchange, path: str) -> None:
        request = exchange.request
        if request.method == "POST":
            location = f"{path}{len(self.uploads)}"
            self.uploads[location] = b""
            exchange.reply(202, headers={"Location": location, "Range": "0-0"})
            return
        self.uploads[path] = self.uploads.get(path, b"") + request.body
        if request.method == "PATCH":
            size = len(self.uploads[path])
            exchange.reply(202, headers={"Location": path, "Range": f"0-{max(0, size - 1)}"})
            return
        digest = parse_qs(urlsplit(request.path).query)["digest"][0]
        content = self.uploads.pop(path)
        if digest != f"sha256:{hashlib.sha256(content).hexdigest()}":
            exchange.reply(400, b'{"errors": [{"code": "DIGEST_INVALID", "message": "wrong bytes"}]}')
            return
        self.blobs[digest] = content
        exchange.reply(201, headers={"Location": path, "Docker-Content-Digest": digest})


# ---- actions --------------------------------------------------------------------------------------------------------


def reply(status: int = 200, body: bytes = b"", **headers: str) -> Action:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda exchange: exchange.reply(status, body, fields)


def redirect(url: str, status: int = 307) -> Action:
    return lambda exchange: exchange.reply(status, headers={"Location": url})


def cut_after(size: int) -> Action:
    """Send the first bytes of a blob, then break the connection."""

    def action(exchange: Exchange) -> None:
        digest = exchange.request.path.rpartition("/")[2]
        content = exchange.server.blobs[digest]
        wanted = re.fullmatch(r"bytes=(\d+)-", exchange.request.headers.get("range", ""))
        start = int(wanted[1]) if wanted else 0
        headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        exchange.begin(206 if start else 200, headers, length=len(content) - start)
        exchange.send(content[start : start + size])
        exchange.cut()

    return action


def challenge(text: str) -> Action:
    return reply(401, b'{"errors": [{"code": "UNAUTHORIZED", "message": "who are you"}]}', **{"WWW-Authenticate": text})


# ---- tokens ---------------------------------------------------------------------------------------------------------


class TokenServer:
    """Gives out tokens that docker-registry believes: anonymous ones to pull public/..., others to alice."""

    def __init__(self, directory: Path, *, life: int = 300) -> None:
        need("openssl")
        directory.mkdir(parents=True, exist_ok=True)
        self._key = directory / "token-key.pem"
        self.bundle = directory / "token-cert.pem"
        words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=tokens"]
        subprocess.run([*words, "-keyout", self._key, "-out", self.bundle], check=True, capture_output=True)
        pem = self.bundle.read_text().splitlines()
        self._chain = "".join(pem[1:-1])
        self.life = life
        self.server = Faulty()
        self.server.on("^/token", self._answer)
        self.realm = f"{self.server.url}/token"
        self.granted: list[list[str]] = []

    def auth(self) -> str:
        """The lines of a registry's configuration that point here."""
        fields = f"realm: '{self.realm}', service: tests, issuer: tests, rootcertbundle: {self.bundle}"
        return f"auth: {{token: {{{fields}}}}}\n"

    def _answer(self, exchange: Exchange) -> None:
        query = parse_qs(urlsplit(exchange.request.path).query)
        user = self._user(exchange.request.authorization)
        if user is None and exchange.request.authorization:
            exchange.reply(401, b"{}")
            return
        access = []
        scopes = query.get("scope", [])
        for scope in scopes:
            kind, name, actions = scope.split(":")
            allowed = actions.split(",") if user else [a for a in actions.split(",") if a == "pull"]
            if not user and not name.startswith("public/"):
                allowed = []
            if allowed:
                access.append({"type": kind, "name": name, "actions": allowed})
        self.granted.append(scopes)
        now = int(time.time())
        claims = {
            "iss": "tests", "aud": "tests", "sub": user or "", "exp": now + self.life, "nbf": now - 5, "iat": now,
            "jti": str(time.monotonic_ns()), "access": access,
        }  # fmt: skip
        body = {"token": self._sign(claims), "expires_in": self.life, "issued_at": time.strftime("%Y-%m-%dT%H:%M:%SZ")}
        exchange.reply(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _user(self, authorization: str | None) -> str | None:
        good = "Basic " + base64.b64encode(b"alice:s3cret").decode()
        return "alice" if authorization == good else None

    def _sign(self, claims: dict) -> str:
        def part(document: object) -> bytes:
            return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=")

        text = part({"typ": "JWT", "alg": "RS256", "x5c": [self._chain]}) + b"." + part(claims)
        signed = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", self._key], input=text, check=True, capture_output=True
        )
        return (text + b"." + base64.urlsafe_b64encode(signed.stdout).rstrip(b"=")).decode()

    def close(self) -> None:
        self.server.close()


def get(host: str, path: str) -> http.client.HTTPResponse:
    """Make one plain request."""
    connection = http.client.HTTPConnection(host, timeout=5)
    connection.request("GET", path)
    return connection.getresponse()
