"""HTTP as registries need it, over urllib3: one request, its redirects, and a body that cannot go on for ever.

What strangers decide is limited here: where a redirect may lead and that no credentials go along, how long headers and
documents may take and how large they may be, how slowly a body may come.
"""

import socket
import ssl
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import BinaryIO
from urllib.parse import unquote, urljoin, urlsplit

import urllib3

from pyrtc.errors import RegistryError, RegistryUnreachable
from pyrtc.image.cancelled import Cancelled
from pyrtc.image.compression import CHUNK
from pyrtc.image.registry.addresses import Origin, check_reach, reach
from pyrtc.image.registry.connections import break_connection, pool_classes, tls_context
from pyrtc.image.registry.failures import TOO_MANY, Refused, account_of, out_of_order, tls_error
from pyrtc.image.registry.patience import Patience, retry_after
from pyrtc.image.registry.proxies import proxy_for
from pyrtc.image.registry.response import Response
from pyrtc.image.registry.settings import Endpoint

__all__ = ["Body", "Transport"]

# What is sent: bytes, or what opens a new reader of the content, since a request may have to be made again.
Body = bytes | Callable[[], BinaryIO]

_TRANSIENT = frozenset({408, 425, TOO_MANY, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 5


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
            break_connection(sock)

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
                failure = out_of_order(response.status, what, asked)
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
            raise tls_error(error, origin, endpoint) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            cause = getattr(error, "__cause__", None)
            if isinstance(cause, ssl.SSLError):
                raise tls_error(cause, origin, endpoint) from error
            text = f"{what}: {origin.host}:{origin.port}: {account_of(error)}"
            if isinstance(error, urllib3.exceptions.NewConnectionError):
                raise Refused(text, 2) from error
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
            context = tls_context(endpoint, home=origin.host == endpoint.host)
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
        pool.pool_classes_by_scheme = pool_classes(
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
