"""Proving to a registry who one is: Basic (RFC 7617) and the registries' Bearer tokens (distribution's auth spec).

To whom credentials are given is decided here, because a registry says where its token server is, and a registry may lie
(CVE-2020-15157):

1. Only an answer that came from the registry's own host counts, not one that a redirect led to.
2. Credentials are those stored for this registry, never another's.
3. Nothing secret goes over plain HTTP to a host that is not this machine.
4. A registry whose word cannot be trusted, because it is reached without TLS or without a look at its certificate, may
   name only its own host as the token server that gets credentials.
5. The token server is no link-local address and no cloud's metadata service, and this machine only for a registry on
   this machine.
6. A token goes to the registry that asked for it, and nowhere along with a redirect.
"""

import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from pyrtc.errors import RegistryDenied, RegistryError
from pyrtc.image.registry.addresses import Origin
from pyrtc.image.registry.response import Response
from pyrtc.image.registry.settings import Endpoint
from pyrtc.image.registry.transport import Transport
from pyrtc.values import dataclass

if TYPE_CHECKING:
    from pyrtc.image.registry.credentials import Credentials
    from pyrtc.image.registry.documents import TokenDocument

__all__ = ["Authorizer", "Challenge", "parse_challenges"]

_MAX_TOKEN = 1 << 20  # bytes of the token server's answer
_MAX_CHALLENGE = 16 << 10
_SHORTEST_LIFE = 60.0  # seconds; what a token lives that does not say, and what no token lives less than
_MARGIN = 10.0  # seconds before its end that a token is no longer used
_TOKEN_CHARACTERS = re.compile(r"[\x21-\x7e]+")
_CLIENT = "pyrtc"

_WORD = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_SCHEME = re.compile(rf"[\s,]*({_WORD})(?=\s|,|$)")
_PARAMETER = re.compile(rf'[\s,]*({_WORD})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))')


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to prove oneself. scheme, and the names of parameters, are in small letters."""

    scheme: str
    parameters: dict[str, str]


def parse_challenges(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """Read WWW-Authenticate headers; each may hold several challenges (RFC 9110, 11.6.1)."""
    found = []
    for text in headers:
        position = 0
        text = text[:_MAX_CHALLENGE]
        while (match := _SCHEME.match(text, position)) is not None:
            position = match.end()
            parameters: dict[str, str] = {}
            while (parameter := _PARAMETER.match(text, position)) is not None:
                name, quoted, plain = parameter.groups()
                parameters[name.lower()] = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
                position = parameter.end()
            found.append(Challenge(match[1].lower(), parameters))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Held:
    header: str
    until: float  # time.monotonic()


def _joined(scopes: Iterable[str]) -> list[str]:
    """Return the scopes with all actions for one thing in one: ``repository:app:pull,push``."""
    joined: dict[str, dict[str, None]] = {}
    for scope in scopes:
        thing, _, actions = scope.rpartition(":")
        joined.setdefault(thing, {}).update(dict.fromkeys(actions.split(",")))
    return [f"{thing}:{','.join(actions)}" for thing, actions in joined.items()]


class Authorizer:
    """What is known about oneself at one registry, for one repository's credentials. Used by many threads.

    Parameters
    ----------
    origin: of the registry. credentials: finds them, asked at most once and only when the registry wants some.
    """

    def __init__(
        self, transport: Transport, endpoint: Endpoint, origin: Origin, credentials: "Callable[[], Credentials | None]"
    ) -> None:
        self._transport = transport
        self._endpoint = endpoint
        self._origin = origin
        self._find = credentials
        self._found: tuple[Credentials | None] | None = None
        self._lock = threading.Lock()
        self._held: dict[frozenset[str], _Held] = {}
        self._for_all: str | None = None

    @property
    def credentials(self) -> "Credentials | None":
        """The credentials, looked for at the first use."""
        if self._found is None:
            self._found = (self._find(),)
        return self._found[0]

    def header(self, scopes: frozenset[str]) -> str | None:
        """Return the Authorization that is known to be good for these scopes, None before the registry asked."""
        with self._lock:
            return self._known(scopes)

    def _known(self, scopes: frozenset[str]) -> str | None:
        if self._for_all is not None:
            return self._for_all
        held = self._held.get(scopes)
        return held.header if held is not None and held.until > time.monotonic() else None

    def answer(self, response: Response, scopes: frozenset[str], used: str | None) -> str:
        """Return another Authorization after a 401.

        Parameters
        ----------
        scopes: ``repository:PATH:pull`` and the like. used: what the refused request had.

        Raises
        ------
        RegistryDenied: there are no credentials, or not the right ones. RegistryError: the registry asks for what must
        not be given.
        """
        if response.crossed:
            raise RegistryDenied(
                f"{self._endpoint.domain} redirects to a server that wants credentials, which get none"
            )
        challenges = parse_challenges(response.headers("WWW-Authenticate"))
        with self._lock:
            known = self._known(scopes)
            if known is not None and known != used:
                return known  # another thread was faster
            by_scheme = {challenge.scheme: challenge for challenge in reversed(challenges)}
            if "bearer" in by_scheme:
                return self._bearer(by_scheme["bearer"], scopes)
            if "basic" in by_scheme:
                return self._basic(used)
            offered = ", ".join(sorted(by_scheme)) or "nothing"
            raise RegistryDenied(f"{self._endpoint.domain} wants a proof of a kind that is not spoken: {offered}")

    def _basic(self, used: str | None) -> str:
        if not self._origin.private:
            raise RegistryDenied(
                f"{self._endpoint.domain} wants a password over plain HTTP, where everybody between could read it: it "
                "needs TLS"
            )
        credentials = self.credentials
        if credentials is None or not credentials.username:
            raise RegistryDenied(self._no_credentials())
        if used == credentials.basic:
            raise RegistryDenied(self._wrong_credentials())
        self._for_all = credentials.basic
        return credentials.basic

    def _bearer(self, challenge: Challenge, scopes: frozenset[str]) -> str:
        credentials = self.credentials
        if credentials is not None and credentials.registry_token:
            header = f"Bearer {credentials.registry_token}"
            if self._for_all == header or not self._origin.private:
                raise RegistryDenied(self._wrong_credentials())
            self._for_all = header
            return header
        realm = challenge.parameters.get("realm", "")
        target = self._check_realm(realm, secret=credentials is not None)
        service = challenge.parameters.get("service", "")
        asked = _joined([*sorted(scopes), *challenge.parameters.get("scope", "").split()])
        document = self._fetch(realm, target, service, asked, credentials)
        token = document.token or document.access_token or ""
        if not _TOKEN_CHARACTERS.fullmatch(token):
            raise RegistryError(f"the token server {target.base} gave no token, or one that cannot be one")
        life = max(_SHORTEST_LIFE, min(document.expires_in or _SHORTEST_LIFE, 86400.0))
        held = _Held(f"Bearer {token}", time.monotonic() + life - _MARGIN)
        self._held[scopes] = held
        return held.header

    def _check_realm(self, realm: str, *, secret: bool) -> Origin:
        """Hold a token server's address against the rules above; secret: it would get credentials."""
        try:
            target = Origin.of(realm)
        except RegistryError as error:
            raise RegistryError(f"{self._endpoint.domain} names a token server that is none: {error}") from None
        if not secret:
            return target
        if not target.private:
            raise RegistryError(
                f"{self._endpoint.domain} names a token server without TLS, {target.base}: it gets no password"
            )
        verified = self._origin.scheme == "https" and not self._endpoint.insecure
        same = target.host == self._origin.host or (target.loopback and self._origin.loopback)
        if not verified and not same:
            raise RegistryError(
                f"{self._endpoint.domain} is not reached by verified TLS and names {target.base} as its token server; "
                "anybody could have written that: it gets no password"
            )
        return target

    def _fetch(
        self, realm: str, target: Origin, service: str, scopes: Sequence[str], credentials: "Credentials | None"
    ) -> "TokenDocument":
        what = f"a token for {self._endpoint.domain}"
        form: list[tuple[str, str]] = [("service", service)] if service else []
        if credentials is not None and credentials.identity_token:
            form += [
                ("grant_type", "refresh_token"),
                ("client_id", _CLIENT),
                ("refresh_token", credentials.identity_token),
                ("scope", " ".join(scopes)),
            ]
            response = self._ask("POST", realm, what, body=urlencode(form).encode())
        else:
            form += [("scope", scope) for scope in scopes]
            if credentials is not None:
                form.append(("account", credentials.username))
            url = realm + ("&" if "?" in realm else "?") + urlencode(form)
            response = self._ask("GET", url, what, authorization=credentials.basic if credentials else None)
        with response:
            if response.status in (400, 401, 403):
                raise RegistryDenied(self._wrong_credentials() if credentials else self._no_credentials())
            if response.status != 200:
                raise RegistryError(f"the token server {target.base} answers with {response.status}")
            content = response.document(_MAX_TOKEN)
        from pyrtc.image.registry.documents import decode_token

        return decode_token(content, f"the answer of the token server {target.base}")

    def _ask(
        self, method: str, url: str, what: str, *, authorization: str | None = None, body: bytes | None = None
    ) -> Response:
        """Ask the token server, again when it is out of order or overrun."""
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if body is not None else {}
        return self._transport.persist(
            lambda: self._transport.send(
                method,
                url,
                what=what,
                endpoint=self._endpoint,
                headers=headers,
                authorization=authorization,
                body=body,
                led=True,
            ),
            what,
        )

    def _no_credentials(self) -> str:
        name = self._endpoint.repository if self._endpoint.path else self._endpoint.domain
        return f"{name} does not exist, or is not for everybody: 'pyrtc login {self._login_name}' says who you are"

    def _wrong_credentials(self) -> str:
        name = self._endpoint.repository if self._endpoint.path else self._endpoint.domain
        user = self.credentials.username if self.credentials else ""
        who = f"as {user} " if user else ""
        return f"access to {name} is denied {who}with the password or token that is stored for {self._endpoint.domain}"

    @property
    def _login_name(self) -> str:
        return "" if self._endpoint.domain == "docker.io" else self._endpoint.domain
