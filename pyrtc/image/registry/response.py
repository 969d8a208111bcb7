"""An answer of a registry, whose body cannot go on for ever."""

from collections.abc import Iterator
from contextlib import suppress

import urllib3

from pyrtc.errors import RegistryError, RegistryUnreachable
from pyrtc.image.compression import CHUNK
from pyrtc.image.registry.connections import Alarm, Watch
from pyrtc.image.registry.failures import account_of
from pyrtc.image.registry.patience import Pace, Patience

__all__ = ["Response"]

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
        # Between pieces lie lengths of chunks, and behind the last one trailers: bytes that come and bring nothing.
        with Watch(self._patience.answer, self.interrupt) as watch:
            while True:
                watch.begin()
                try:
                    piece = self._raw.read1(CHUNK, decode_content=False)
                except (urllib3.exceptions.HTTPError, OSError) as error:
                    if not watch.rang:
                        text = f"{self._what}: the connection broke: {account_of(error)}"
                        raise RegistryUnreachable(text) from error
                    piece = b""
                watch.end()
                if watch.rang:
                    raise RegistryUnreachable(f"{self._what}: nothing of it came within {self._patience.answer:g} s")
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
        with Alarm(self._patience.answer, self.interrupt) as alarm:
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
