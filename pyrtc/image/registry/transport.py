"""HTTP as registries need it, over urllib3: one request, its redirects, and a body that cannot go on for ever.

What strangers decide is limited here: where a redirect may lead and that no credentials go along, how long headers and
documents may take and how large they may be, how slowly a body may come.
"""

import socket
import ssl
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import BinaryIO
from urllib.parse import unquote, urljoin, urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from pyrtc.errors import RegistryBusy, RegistryError, RegistryUnreachable, UsageError
from pyrtc.image.cancelled import Cancelled
from pyrtc.image.compression import CHUNK
from pyrtc.image.registry.addresses import Origin, check_reach, reach
from pyrtc.image.registry.patience import Pace, Patience, retry_after
from pyrtc.image.registry.proxies import proxy_for
from pyrtc.image.registry.settings import Endpoint

__all__ = ["Body", "Response", "Transport"]

# What is sent: bytes, or what opens a new reader of the content, since a request may have to be made again.
Body = bytes | Callable[[], BinaryIO]

_TOO_MANY = 429
_TRANSIENT = frozenset({408, 425, _TOO_MANY, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 5
_DRAIN = 64 << 10  # bytes of an answer that nobody wants, read to keep the connection


class Response:
    """An answer whose body has not been read. Close it, or read it to its end.

    Attributes
    ----------
    status: HTTP's. url: where it came from in the end. crossed: a redirect led to another origin, so what it says about
    credentials is not the registry's word.
    """

    def __init__(
        self, raw: urllib3.BaseHTTPResponse, url: str, what: str, patience: Patience, *, crossed: bool
    ) -> None:
        self._raw = raw
        self._what = what
        self._patience = patience
        self.status = raw.status
        self.url = url
        self.crossed = crossed

    def header(self, name: str) -> str | None:
        """Return a header's value; of several, the first."""
        values = self._raw.headers.getlist(name)
        return values[0] if values else None

    def headers(self, name: str) -> list[str]:
        """Return every value of a header."""
        return list(self._raw.headers.getlist(name))

    def pieces(self) -> Iterator[bytes]:
        """Yield the body as it comes, at most a mebibyte at once.

        Raises
        ------
        RegistryUnreachable: the connection breaks, is silent, or too slow.
        """
        pace = Pace(self._patience, self._what)
        while True:
            try:
                piece = self._raw.read1(CHUNK, decode_content=False)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise RegistryUnreachable(f"{self._what}: the connection broke: {_reason(error)}") from error
            if not piece:
                return
            pace.count(len(piece))
            yield piece

    def document(self, limit: int) -> bytes:
        """Return the whole body, which must come within `Patience.answer`.

        Raises
        ------
        RegistryError: it has more than limit bytes. RegistryUnreachable: it breaks off or takes too long.
        """
        announced = self.header("Content-Length")
        if announced is not None and announced.isdigit() and int(announced) > limit:
            self.close()
            raise RegistryError(f"{self._what} has {announced} bytes; {limit} are allowed")
        parts, size = [], 0
        with _Alarm(self._patience.answer, self.interrupt) as alarm:
            for piece in self.pieces():
                size += len(piece)
                if size > limit:
                    self.close()
                    raise RegistryError(f"{self._what} has more than the {limit} bytes that are allowed")
                parts.append(piece)
        if alarm.rang:
            raise RegistryUnreachable(f"{self._what} did not come within {self._patience.answer:g} s")
        if announced is not None and announced.isdigit() and size != int(announced):
            raise RegistryUnreachable(f"{self._what} broke off after {size} of {announced} bytes")
        return b"".join(parts)

    def interrupt(self) -> None:
        """Wake up who reads the body, from another thread; the connection is of no use afterwards."""
        with suppress(ValueError, RuntimeError, OSError):
            self._raw.shutdown()

    def finish(self) -> None:
        """Give the connection back when little is left to read, else close it."""
        announced = self.header("Content-Length") or ""
        if announced.isdigit() and int(announced) <= _DRAIN:
            with suppress(urllib3.exceptions.HTTPError, OSError):
                self._raw.drain_conn()
        self.close()

    def close(self) -> None:
        """Close; a connection whose body was read to the end has gone back already."""
        self._raw.close()

    def __enter__(self) -> "Response":
        """Return the response."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Close it."""
        self.finish()


class Transport:
    """The connections of one pull or push. Used by many threads.

    Attributes
    ----------
    aborted: set by `abort`; everything that waits for the network ends with `Cancelled` then.
    """

    def __init__(self, patience: Patience | None = None) -> None:
        self.patience = patience or Patience()
        self.aborted = threading.Event()
        self._lock = threading.Lock()
        self._pools: dict[tuple[Origin, str | None, Endpoint], urllib3.PoolManager] = {}
        self._origins: dict[Endpoint, Origin] = {}
        self._peers: dict[tuple[str, int], str] = {}
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def abort(self) -> None:
        """Break every connection, from any thread, and refuse new ones: who waits for an answer wakes up."""
        with self._lock:
            self.aborted.set()
            sockets = list(self._sockets)
        for sock in sockets:
            _break(sock)

    def close(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            pool.clear()

    def origin(self, endpoint: Endpoint) -> Origin:
        """Return the scheme, host and port of a server, found out at the first call.

        Raises
        ------
        RegistryUnreachable: nobody answers there.
        """
        with self._lock:
            known = self._origins.get(endpoint)
        if known is None:
            known = self._find_origin(endpoint)
            with self._lock:
                self._origins[endpoint] = known
        return known

    def _find_origin(self, endpoint: Endpoint) -> Origin:
        secure = Origin("https", endpoint.host, endpoint.port or 443)
        if not endpoint.plain_allowed:
            return secure
        plain = Origin("http", endpoint.host, endpoint.port or 80)
        if proxy_for(secure) is None:
            return secure if self._speaks_tls(secure) else plain
        try:
            self.send("GET", f"{secure.base}/v2/", what=f"the registry {endpoint.domain}", endpoint=endpoint).finish()
        except RegistryUnreachable:
            return plain
        return secure

    def _speaks_tls(self, origin: Origin) -> bool:
        """Try a handshake and nothing else; whose certificate it is will be looked at by who sends something."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        try:
            with socket.create_connection((origin.host, origin.port), timeout=min(3.0, self.patience.connect)) as plain:
                context.wrap_socket(plain, server_hostname=origin.host).close()
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            return False
        except ssl.SSLError as error:
            # What is no TLS record at all; anything else was said by someone who speaks TLS.
            return error.reason not in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")
        except OSError:
            return False
        return True

    def persist(self, attempt: Callable[[], Response], what: str) -> Response:
        """Make a request again while the server is overrun, out of order or out of reach, with growing pauses.

        Raises
        ------
        RegistryBusy: it wants to be left alone for longer than `Patience.longest_wait`, or to the last.
        RegistryUnreachable: it never answered. Cancelled: `abort` was called.
        """
        number = 0
        while True:
            asked = None
            most = self.patience.attempts
            failure: RegistryError
            try:
                response = attempt()
            except RegistryUnreachable as error:
                if self.aborted.is_set():
                    raise Cancelled("cancelled") from error
                failure = error
                most = min(most, getattr(error, "attempts", most))
            else:
                if response.status not in _TRANSIENT:
                    return response
                asked = retry_after(response.header("Retry-After"))
                failure = _out_of_order(response.status, what, asked)
                response.finish()
            number += 1
            if number >= most or (asked is not None and asked > self.patience.longest_wait):
                raise failure
            self.patience.wait(self.patience.delay(number - 1, asked), self.aborted)

    def send(
        self,
        method: str,
        url: str,
        *,
        what: str,
        endpoint: Endpoint,
        headers: Mapping[str, str] | None = None,
        authorization: str | None = None,
        body: Body | None = None,
        size: int | None = None,
        led: bool = False,
    ) -> Response:
        """Make one request and follow its redirects.

        Parameters
        ----------
        what: the thing that is asked for, for errors. endpoint: the registry that is asked, whose certificates hold for
        its own host. authorization: goes to the origin of url and to no other. size: bytes that body has. led: url came
        out of the registry's answer, so it is held to where redirects may lead.

        Raises
        ------
        RegistryUnreachable: no connection, or no answer in time. RegistryError: a redirect leads where none may.
        """
        first = Origin.of(url)
        crossed = False
        for _ in range(_MOST_REDIRECTS + 1):
            origin = Origin.of(url)
            home = origin.host == endpoint.host
            if led and not home:
                check_reach(origin.host, self._reach_of(endpoint), f"{what}: an answer of {endpoint.domain}")
            raw = self._exchange(
                method,
                url,
                origin,
                what,
                endpoint,
                guard=self._reach_of(endpoint) if led and not home else None,
                headers={
                    **(headers or {}),
                    **({"Authorization": authorization} if authorization and not crossed else {}),
                },
                body=body,
                size=size,
            )
            response = Response(raw, url, what, self.patience, crossed=crossed)
            location = response.header("Location")
            if raw.status not in _REDIRECTS or location is None or (body is not None and raw.status not in (307, 308)):
                return response
            response.finish()
            url = urljoin(url, location)
            target = Origin.of(url)
            if origin.scheme == "https" and target.scheme == "http":
                raise RegistryError(f"{what}: {origin.host} leads from https to {target.base}, which is refused")
            # Once somewhere else, always somewhere else: coming back does not bring the credentials back.
            crossed = crossed or target != first
            led = True
        raise RegistryError(f"{what}: {endpoint.domain} redirects more than {_MOST_REDIRECTS} times")

    def _reach_of(self, endpoint: Endpoint) -> str:
        literal = reach(endpoint.host)
        if literal:
            return literal
        with self._lock:
            known = self._origins.get(endpoint)
            return reach(self._peers.get((known.host, known.port), "")) if known is not None else ""

    def _exchange(
        self,
        method: str,
        url: str,
        origin: Origin,
        what: str,
        endpoint: Endpoint,
        *,
        guard: str | None,
        headers: dict[str, str],
        body: Body | None,
        size: int | None,
    ) -> urllib3.BaseHTTPResponse:
        from pyrtc import __version__

        headers = {"User-Agent": f"pyrtc/{__version__}", "Accept-Encoding": "identity", **headers}
        if size is not None:
            headers["Content-Length"] = str(size)
        pool = self._pool(origin, guard, endpoint)
        opened = body() if callable(body) else None
        try:
            return pool.urlopen(
                method,
                url,
                headers=headers,
                body=opened if opened is not None else body,
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
                timeout=urllib3.Timeout(connect=self.patience.connect, read=self.patience.silence),
            )
        except urllib3.exceptions.SSLError as error:
            raise _tls_error(error, origin, endpoint) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            cause = getattr(error, "__cause__", None)
            if isinstance(cause, ssl.SSLError):
                raise _tls_error(cause, origin, endpoint) from error
            text = f"{what}: {origin.host}:{origin.port}: {_reason(error)}"
            if isinstance(error, urllib3.exceptions.NewConnectionError):
                raise _Refused(text, 2) from error
            raise RegistryUnreachable(text) from error
        finally:
            if opened is not None:
                opened.close()

    def _pool(self, origin: Origin, guard: str | None, endpoint: Endpoint) -> urllib3.PoolManager:
        key = (origin, guard, endpoint)
        with self._lock:
            pool = self._pools.get(key)
            if pool is None:
                pool = self._pools[key] = self._make_pool(origin, guard, endpoint)
            return pool

    def _make_pool(self, origin: Origin, guard: str | None, endpoint: Endpoint) -> urllib3.PoolManager:
        context = None
        if origin.scheme == "https":
            context = _tls_context(endpoint, home=origin.host == endpoint.host)
        proxy = proxy_for(origin)
        pool: urllib3.PoolManager
        if proxy is None:
            pool = urllib3.PoolManager(num_pools=1, maxsize=16, ssl_context=context, blocksize=CHUNK)
        else:
            parts = urlsplit(proxy)
            secret = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}" if parts.username else None
            pool = urllib3.ProxyManager(
                proxy,
                num_pools=1,
                maxsize=16,
                ssl_context=context,
                blocksize=CHUNK,
                proxy_headers=urllib3.make_headers(proxy_basic_auth=secret) if secret else None,
            )
        pool.pool_classes_by_scheme = _pool_classes(
            self.patience.answer, lambda sock, proxied: self._met(origin, sock, proxied, guard, endpoint.domain)
        )
        return pool

    def _met(self, origin: Origin, sock: socket.socket, proxied: bool, guard: str | None, domain: str) -> None:
        """Look at whom a name led to, before anything is sent there: names can be made to lead anywhere."""
        with self._lock:
            if self.aborted.is_set():
                raise Cancelled("cancelled")
            self._sockets.add(sock)
        if proxied:
            return  # the proxy decides where it goes
        address = sock.getpeername()[0]
        if guard is not None:
            check_reach(address, guard, f"an answer of {domain}")
        with self._lock:
            self._peers[origin.host, origin.port] = address


class _Refused(RegistryUnreachable):
    """No connection, and no reason to hope for one soon. attempts: how often it is worth trying."""

    def __init__(self, message: str, attempts: int) -> None:
        super().__init__(message)
        self.attempts = attempts


def _out_of_order(status: int, what: str, asked: float | None) -> RegistryError:
    if status != _TOO_MANY:
        return RegistryUnreachable(f"{what}: the registry is out of order: it answers with {status}")
    when = f"; it wants to be asked again in {asked:.0f} s" if asked is not None else ""
    return RegistryBusy(f"{what}: the registry has too many requests from here{when}", retry_after=asked)


class _Alarm:
    """Does something when a block takes longer than it may."""

    def __init__(self, seconds: float, action: Callable[[], object]) -> None:
        self.rang = False
        self._action = action
        self._timer = threading.Timer(seconds, self._ring)
        self._timer.daemon = True

    def _ring(self) -> None:
        self.rang = True
        self._action()

    def check(self) -> None:
        """Raise TimeoutError if it rang: what looks like the end was made by it."""
        if self.rang:
            raise TimeoutError

    def __enter__(self) -> "_Alarm":
        self._timer.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._timer.cancel()


def _pool_classes(answer: float, met: Callable[[socket.socket, bool], None]) -> dict[str, type[HTTPConnectionPool]]:
    """Return urllib3's classes of pools with connections that look at their peer, and whose headers have a time limit.

    A time-out of a socket is about each receiving alone: a server that sends a byte now and then would never meet it.
    """

    def limited(sock: socket.socket) -> _Alarm:
        # Not SSLSocket's own shutdown, which takes the object apart under the thread that reads.
        return _Alarm(answer, lambda: _break(sock))

    class Plain(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            met(self.sock, self.proxy is not None)

        def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]
            with limited(self.sock) as alarm:
                response = super().getresponse()
            alarm.check()
            return response

    class Tls(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            # What the settings say is done without a warning at every request.
            self.is_verified = True
            met(self.sock, self.proxy is not None)

        def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]
            with limited(self.sock) as alarm:
                response = super().getresponse()
            alarm.check()
            return response

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class TlsPool(HTTPSConnectionPool):
        ConnectionCls = Tls

    return {"http": PlainPool, "https": TlsPool}


def _break(sock: socket.socket) -> None:
    with suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _tls_context(endpoint: Endpoint, *, home: bool) -> ssl.SSLContext:
    """Return what a server's certificate is held against.

    The CA certificates of a registry count for the token servers and storages that it leads to, too: companies have one
    CA for all of them. Client certificates, and leave not to look, are for its own host alone (home).

    Raises
    ------
    UsageError: a file in certs.d is no certificate.
    """
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    if endpoint.insecure and home:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for path in sorted(endpoint.certificates.iterdir()) if endpoint.certificates else ():
        try:
            if path.suffix == ".crt":
                context.load_verify_locations(path)
            elif path.suffix == ".cert" and home:
                key = path.with_suffix(".key")
                if not key.is_file():
                    raise UsageError(f"the client certificate {path} has no key: {key.name} is missing beside it")
                context.load_cert_chain(path, key)
        except (ssl.SSLError, OSError) as error:
            raise UsageError(f"cannot use the certificate {path}: {_reason(error)}") from error
    return context


def _tls_error(error: Exception, origin: Origin, endpoint: Endpoint) -> RegistryUnreachable:
    reason = _reason(error)
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        remedy = (
            f"put its CA's certificate into /etc/containers/certs.d/{endpoint.domain}/ca.crt"
            if origin.host == endpoint.host
            else "its certificate is not from a CA that this system trusts"
        )
        return _Refused(f"{origin.host}:{origin.port} cannot prove who it is: {reason}; {remedy}", 1)
    if "WRONG_VERSION_NUMBER" in str(error) or "RECORD_LAYER" in str(error):
        return _Refused(
            f"{origin.host}:{origin.port} does not speak TLS; if plain HTTP is meant, say insecure = true for it in "
            "registries.conf",
            1,
        )
    return RegistryUnreachable(f"{origin.host}:{origin.port}: no TLS connection: {reason}")


def _reason(error: BaseException) -> str:
    """Return the shortest true account of a failure: urllib3 and http.client wrap the cause several times."""
    inner = error
    while True:
        deeper = getattr(inner, "original_error", None) or inner.__cause__ or getattr(inner, "reason", None)
        if not isinstance(deeper, BaseException):
            break
        inner = deeper
    if isinstance(inner, ssl.SSLCertVerificationError):
        return inner.verify_message or "its certificate is not valid"
    if isinstance(inner, ssl.SSLError):
        return str(inner.reason or inner).lower().replace("_", " ")
    if isinstance(inner, (TimeoutError, urllib3.exceptions.TimeoutError)):
        return "did not answer in time"
    if isinstance(inner, socket.gaierror):
        return "has no address: " + (inner.strerror or "unknown host")
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror
    return str(inner).rpartition(": ")[2] or type(inner).__name__
