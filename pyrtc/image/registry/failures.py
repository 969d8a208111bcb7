"""What went wrong on the way to a registry, in words."""

import socket
import ssl

import urllib3

from pyrtc.errors import RegistryBusy, RegistryError, RegistryUnreachable
from pyrtc.image.registry.addresses import Origin
from pyrtc.image.registry.settings import Endpoint

__all__ = ["TOO_MANY", "Refused", "account_of", "out_of_order", "tls_error"]

TOO_MANY = 429


class Refused(RegistryUnreachable):
    """No connection, and no reason to hope for one soon. attempts: how often it is worth trying."""

    def __init__(self, message: str, attempts: int) -> None:
        super().__init__(message)
        self.attempts = attempts


def out_of_order(status: int, what: str, asked: float | None) -> RegistryError:
    """Return what a status means that may pass; asked: seconds for which the registry wants to be left alone."""
    if status != TOO_MANY:
        return RegistryUnreachable(f"{what}: the registry is out of order: it answers with {status}")
    when = f"; it wants to be asked again in {asked:.0f} s" if asked is not None else ""
    return RegistryBusy(f"{what}: the registry has too many requests from here{when}", retry_after=asked)


def tls_error(error: Exception, origin: Origin, endpoint: Endpoint) -> RegistryUnreachable:
    """Return why there is no TLS connection, and what to do."""
    reason = account_of(error)
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        remedy = (
            f"put its CA's certificate into /etc/containers/certs.d/{endpoint.domain}/ca.crt"
            if origin.host == endpoint.host
            else "its certificate is not from a CA that this system trusts"
        )
        return Refused(f"{origin.host}:{origin.port} cannot prove who it is: {reason}; {remedy}", 1)
    if "WRONG_VERSION_NUMBER" in str(error) or "RECORD_LAYER" in str(error):
        return Refused(
            f"{origin.host}:{origin.port} does not speak TLS; if plain HTTP is meant, say insecure = true for it in "
            "registries.conf",
            1,
        )
    return RegistryUnreachable(f"{origin.host}:{origin.port}: no TLS connection: {reason}")


def account_of(error: BaseException) -> str:
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
