"""Connections of urllib3 that look at whom they reach, whose headers have a time limit, and what proves their peer."""

import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from pyrtc.errors import UsageError
from pyrtc.image.registry.failures import account_of
from pyrtc.image.registry.settings import Endpoint

__all__ = ["Alarm", "Watch", "break_connection", "pool_classes", "tls_context"]


def pool_classes(answer: float, met: Callable[[socket.socket, bool], None]) -> dict[str, type[HTTPConnectionPool]]:
    """Return urllib3's classes of pools with connections that look at their peer, and whose headers have a time limit.

    A time-out of a socket is about each receiving alone: a server that sends a byte now and then would never meet it.
    """

    def limited(sock: socket.socket) -> Alarm:
        # Not SSLSocket's own shutdown, which takes the object apart under the thread that reads.
        return Alarm(answer, lambda: break_connection(sock))

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


def break_connection(sock: socket.socket) -> None:
    """Wake up who waits at a socket, from any thread; it is of no use afterwards."""
    with suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def tls_context(endpoint: Endpoint, *, home: bool) -> ssl.SSLContext:
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
            raise UsageError(f"cannot use the certificate {path}: {account_of(error)}") from error
    return context


class Alarm:
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

    def __enter__(self) -> "Alarm":
        """Begin to count."""
        self._timer.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        """Count no more."""
        self._timer.cancel()


class Watch:
    """Does something when one step of many takes longer than it may; one thread looks after all of them."""

    def __init__(self, seconds: float, action: Callable[[], object]) -> None:
        self.rang = False
        self._seconds = seconds
        self._action = action
        self._began: float | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, name="pyrtc-watch", daemon=True)

    def _look(self) -> None:
        while not self._done.wait(self._seconds / 4):
            began = self._began
            if began is not None and time.monotonic() - began > self._seconds:
                self.rang = True
                self._action()
                return

    def begin(self) -> None:
        """Begin a step."""
        self._began = time.monotonic()

    def end(self) -> None:
        """End it."""
        self._began = None

    def __enter__(self) -> "Watch":
        """Begin to look."""
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        """Look no more."""
        self._done.set()
