"""HTTP to the members of one etcd cluster, over urllib3: whichever answers, within a time, and never more than fits.

etcd's JSON gateway (``/v3/...``, etcd 3.4 and later) is what is spoken to. A member that does not answer, or says that
it cannot reach its peers, is passed over for the next. What was sent may have been carried out although no answer came,
so everything that is sent must be fit to be sent twice.
"""

import os
import re
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from socket import (
    IPPROTO_TCP,
    SHUT_RDWR,
    SO_KEEPALIVE,
    SOL_SOCKET,
    TCP_KEEPCNT,
    TCP_KEEPIDLE,
    TCP_KEEPINTVL,
    socket,
)
from typing import cast

import msgspec
import urllib3
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from pyrtc.errors import ClusterError, ClusterUnreachable, UsageError
from pyrtc.values import dataclass

__all__ = ["Gateway", "Stream", "Tls", "read_endpoints"]

_ENDPOINT = re.compile(r"(https?)://(\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9]([a-zA-Z0-9.-]{0,253}[a-zA-Z0-9])?)(:[0-9]{1,5})?/?")
_MOST_ENDPOINTS = 16
_DEFAULT_PORT = 2379
_MOST_BYTES = 16 << 20  # of one answer; etcd's own limit for a message is 2 MiB, listings are asked for in pages
_MOST_LINE = 8 << 20  # of one message of a stream
_SLOWEST = 5  # an answer may come in pieces, but not for longer than this many time-outs
# A stream may be silent for long; the kernel notices within ten seconds when nobody is at its other end any more.
_SOCKET_OPTIONS = [
    *HTTPConnection.default_socket_options,
    (SOL_SOCKET, SO_KEEPALIVE, 1),
    (IPPROTO_TCP, TCP_KEEPIDLE, 5),
    (IPPROTO_TCP, TCP_KEEPINTVL, 2),
    (IPPROTO_TCP, TCP_KEEPCNT, 2),
]
# gRPC's codes for a member that cannot serve: deadline exceeded, aborted, internal, unavailable.
_PASSED_OVER = frozenset({4, 10, 13, 14})


@dataclass(frozen=True, slots=True)
class Tls:
    """Paths of PEM files: the CA that etcd's certificates are from, and who we are. "" is the system's CAs, nobody."""

    ca: str = ""
    certificate: str = ""
    key: str = ""


class _Failure(msgspec.Struct):
    code: int = 0
    grpc_code: int = 0
    message: str = ""


class _Refusal(msgspec.Struct):
    code: int = 0
    error: str | _Failure = ""
    message: str = ""


def read_endpoints(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the URLs of etcd's members in one form, each with its port.

    Raises
    ------
    UsageError: one is no ``http://HOST:PORT`` or ``https://HOST:PORT``, or there are none.
    """
    found = []
    for text in texts:
        match = _ENDPOINT.fullmatch(text)
        if match is None:
            raise UsageError(f"{text!r} is no address of etcd: say http://HOST:2379 or https://HOST:2379")
        scheme, host, _, port = match.groups()
        number = int(port[1:]) if port else _DEFAULT_PORT
        if not 0 < number < 65536:
            raise UsageError(f"{text!r}: there is no port {number}")
        found.append(f"{scheme}://{host}:{number}")
    if not found:
        raise UsageError("no address of etcd: say --etcd http://HOST:2379")
    if len(found) > _MOST_ENDPOINTS:
        raise UsageError(f"{len(found)} addresses of etcd; {_MOST_ENDPOINTS} are the most")
    return tuple(dict.fromkeys(found))


class Gateway:
    """The members of one cluster. Used by many threads.

    Parameters
    ----------
    endpoints: URLs as `read_endpoints` returns them. timeout: seconds to connect to one, and to wait for its answer.

    Raises
    ------
    UsageError: a file of tls is no certificate or key.
    """

    def __init__(self, endpoints: Sequence[str], tls: Tls | None = None, *, timeout: float = 2.0) -> None:
        self.endpoints = tuple(endpoints)
        self.timeout = timeout
        self._tls = tls or Tls()
        self._secure = any(endpoint.startswith("https:") for endpoint in endpoints)
        self._stamps = self._read_stamps()
        self._context = _tls_context(self._tls) if self._secure else None
        self._pools = [self._pool(endpoint) for endpoint in self.endpoints]
        self._good = 0  # the member that answered last

    def _read_stamps(self) -> list[tuple[int, int]]:
        """Return what changes when a certificate or key is renewed."""
        found = []
        for path in (self._tls.ca, self._tls.certificate, self._tls.key):
            with suppress(OSError):
                status = os.stat(path)
                found.append((status.st_ino, status.st_mtime_ns))
        return found

    def renew(self) -> None:
        """Read certificates and key again if they are other ones than before.

        Raises
        ------
        UsageError: one cannot be used; the old ones are kept.
        """
        stamps = self._read_stamps()
        if self._secure and stamps != self._stamps:
            self._context = _tls_context(self._tls)
            old, self._pools = self._pools, [self._pool(endpoint) for endpoint in self.endpoints]
            self._stamps = stamps
            for pool in old:
                pool.close()

    def _pool(self, endpoint: str) -> HTTPConnectionPool:
        url = urllib3.util.parse_url(endpoint)
        host = (url.host or "").strip("[]")
        if url.scheme == "https":
            return HTTPSConnectionPool(
                host, url.port, maxsize=4, socket_options=_SOCKET_OPTIONS, ssl_context=self._context
            )
        return HTTPConnectionPool(host, url.port, maxsize=4, socket_options=_SOCKET_OPTIONS)

    def call(self, path: str, body: bytes) -> bytes:
        """Ask the members one after the other, from the one that answered last.

        Raises
        ------
        ClusterUnreachable: none answered, or none that has a majority. ClusterError: one says no.
        """
        failures = []
        first = self._good
        for step in range(len(self._pools)):
            number = (first + step) % len(self._pools)
            try:
                answer = self._ask(number, path, body)
            except _Passed as error:
                failures.append(f"{self.endpoints[number]}: {error}")
                continue
            self._good = number
            return answer
        raise ClusterUnreachable("etcd cannot be reached: " + "; ".join(failures))

    def _ask(self, number: int, path: str, body: bytes) -> bytes:
        response = self._send(number, path, body)
        answer = self._read(number, response)
        if response.status != 200:
            self._refused(number, response.status, answer)
        return answer

    def _read(self, number: int, response: urllib3.HTTPResponse) -> bytes:
        """Return all of an answer."""
        try:
            deadline = time.monotonic() + _SLOWEST * self.timeout
            answer = bytearray()
            while chunk := response.read1(65536):
                answer += chunk
                if len(answer) > _MOST_BYTES:
                    raise ClusterError(f"etcd at {self.endpoints[number]} sends more than {_MOST_BYTES} bytes")
                if time.monotonic() > deadline:
                    raise _Passed("did not send its answer in time")
            response.release_conn()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _Passed(_account_of(error)) from error
        finally:
            response.close()
        return bytes(answer)

    def _send(self, number: int, path: str, body: bytes) -> urllib3.HTTPResponse:
        try:
            return cast(
                "urllib3.HTTPResponse",
                self._pools[number].urlopen(
                    "POST",
                    path,
                    body=body,
                    headers={"Content-Type": "application/json", "Accept-Encoding": "identity"},
                    redirect=False,
                    retries=False,
                    preload_content=False,
                    decode_content=False,
                    timeout=urllib3.Timeout(connect=self.timeout, read=self.timeout),
                ),
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _Passed(_account_of(error)) from error

    def _refused(self, number: int, status: int, answer: bytes) -> None:
        place = self.endpoints[number]
        try:
            said = msgspec.json.decode(answer, type=_Refusal)
        except (msgspec.DecodeError, ValueError):
            if status == 404:
                raise ClusterError(f"{place} is no etcd of version 3.4 or later: it has no /v3") from None
            raise _Passed(f"answers with HTTP status {status}") from None
        inner = said.error
        text = (inner.message if isinstance(inner, _Failure) else inner) or said.message or f"HTTP status {status}"
        code = inner.grpc_code if isinstance(inner, _Failure) else said.code
        if code in _PASSED_OVER or (status >= 500 and not code):
            raise _Passed(text[:200])
        raise ClusterError(f"etcd at {place} refuses: {text[:200]}")

    def stream(self, path: str, body: bytes) -> "Stream":
        """Ask for an answer of many messages, which has to begin in time; its messages may be far apart.

        Raises
        ------
        ClusterUnreachable: no member answered. ClusterError: one says no.
        """
        failures = []
        first = self._good
        for step in range(len(self._pools)):
            number = (first + step) % len(self._pools)
            try:
                # A member that hangs takes the question and never begins to answer: no patience with that.
                response = self._send(number, path, body)
                if response.status != 200:
                    self._refused(number, response.status, self._read(number, response))
            except _Passed as error:
                failures.append(f"{self.endpoints[number]}: {error}")
                continue
            self._good = number
            connection = response.connection
            if connection is not None and connection.sock is not None:
                connection.sock.settimeout(None)
            return Stream(response, self.endpoints[number])
        raise ClusterUnreachable("etcd cannot be reached: " + "; ".join(failures))

    @property
    def member(self) -> str:
        """The URL of the member that answered last."""
        return self.endpoints[self._good]

    def close(self) -> None:
        """Close connections that nobody uses."""
        for pool in self._pools:
            pool.close()


class Stream:
    """The messages of one answer, one JSON text a line."""

    def __init__(self, response: urllib3.HTTPResponse, place: str) -> None:
        self.place = place
        self._response = response
        connection = response.connection
        self._socket: socket | None = connection.sock if connection is not None else None
        self._lock = threading.Lock()
        self._broken = False

    def __iter__(self) -> Iterator[bytes]:
        """Yield each line as it comes.

        Raises
        ------
        ClusterUnreachable: the connection ended. ClusterError: a line is too long.
        """
        waiting = bytearray()
        try:
            while chunk := self._response.read1(65536):
                waiting += chunk
                *lines, rest = waiting.split(b"\n")
                yield from (bytes(line) for line in lines if line)
                waiting = bytearray(rest)
                if len(waiting) > _MOST_LINE:
                    raise ClusterError(f"etcd at {self.place} sends a message of more than {_MOST_LINE} bytes")
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise ClusterUnreachable(f"etcd at {self.place}: {_account_of(error)}") from error
        raise ClusterUnreachable(f"etcd at {self.place} ended the connection")

    def interrupt(self) -> None:
        """Wake up who waits for a line, from any thread; it hears that the connection ended."""
        with self._lock:
            if not self._broken and self._socket is not None:
                with suppress(OSError):
                    # Not SSLSocket's own shutdown, which takes the object apart under the thread that reads.
                    socket.shutdown(self._socket, SHUT_RDWR)

    def close(self) -> None:
        """Close the connection, by the thread that reads."""
        with self._lock:
            self._broken = True
        self._response.close()
        connection = self._response.connection
        if connection is not None:
            connection.close()


class _Passed(Exception):
    """This member cannot do it; another may."""


def _tls_context(tls: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context()
    step = tls.ca
    try:
        if tls.ca:
            context = ssl.create_default_context(cafile=tls.ca)
        if tls.certificate:
            step = f"{tls.certificate} with the key {tls.key or tls.certificate}"
            context.load_cert_chain(tls.certificate, tls.key or None)
    except (ssl.SSLError, OSError) as error:
        raise UsageError(f"cannot use the certificate {step}: {_account_of(error)}") from error
    return context


def _account_of(error: BaseException) -> str:
    """Return the shortest true account of a failure: urllib3 wraps the cause several times."""
    inner = error
    while deeper := _inside(inner):
        inner = deeper
    if isinstance(inner, ssl.SSLCertVerificationError):
        return f"cannot prove who it is: {inner.verify_message or 'its certificate is not valid'}; see --tls-ca"
    if isinstance(inner, ssl.SSLError):
        return f"no TLS connection: {str(inner.reason or inner).lower().replace('_', ' ')}"
    if isinstance(inner, (TimeoutError, urllib3.exceptions.TimeoutError)):
        return "does not answer in time"
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror
    return str(inner).rpartition(": ")[2] or type(inner).__name__


def _inside(error: BaseException) -> BaseException | None:
    candidates = (error.__cause__, getattr(error, "reason", None), *error.args[:1])
    return next((candidate for candidate in candidates if isinstance(candidate, BaseException)), None)
