"""Who one is at a registry: Docker's config.json, containers-auth.json(5), and credential helpers.

Looked through in this order, the first that knows the registry wins:

``$REGISTRY_AUTH_FILE``: then nothing else;
``$XDG_RUNTIME_DIR/containers/auth.json`` (``/run/containers/UID/auth.json`` without the variable),
``$XDG_CONFIG_HOME/containers/auth.json``, ``$DOCKER_CONFIG/config.json`` (``~/.docker/config.json``).

In each file ``credHelpers`` comes first, then ``auths``, then ``credsStore``. Keys of ``auths`` may be host[:port],
URLs as old Dockers wrote them, or host/namespace for a part of a registry, of which the longest fitting wins.
"""

import base64
import binascii
import json
import os
import re
import select
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pyrtc.errors import RegistryError, UsageError
from pyrtc.values import dataclass

__all__ = ["Credentials", "find", "forget", "store"]

_HUB = "docker.io"
_HUB_KEY = "https://index.docker.io/v1/"
_HUB_HOSTS = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_TOKEN_USER = "<token>"  # noqa: S105  (what helpers say in the place of a user's name)
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HELPER_TIMEOUT = 30.0  # seconds: some ask the user to unlock a keyring
_MAX_ANSWER = 1 << 20  # bytes
_MAX_FILE = 4 << 20


@dataclass(frozen=True, slots=True)
class Credentials:
    """A name with a password, or one of two kinds of token.

    identity_token: traded for access tokens (OAuth2 refresh token). registry_token: an access token itself.
    """

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""

    def __repr__(self) -> str:
        """Return the name and no secret: this may end in a log."""
        return f"Credentials({self.username!r})"

    @property
    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def find(domain: str, path: str = "") -> Credentials | None:
    """Return the credentials for a repository of a registry, None when there are none.

    Raises
    ------
    UsageError: a file is damaged. RegistryError: a helper fails.
    """
    for file in _files():
        document = _load(file)
        if document is not None:
            found = _look_up(file, document, domain, path)
            if found is not None:
                return found
    return None


def store(domain: str, credentials: Credentials) -> str:
    """Keep credentials where Docker does: with the helper that the file names, else in the file itself, mode 0600.

    Returns where they went, in words.

    Raises
    ------
    UsageError: the file is damaged or cannot be written. RegistryError: the helper fails.
    """
    file = _target()
    with _changing(file) as document:
        helper = _helper_for(document, domain)
        if helper:
            secret = credentials.identity_token or credentials.password
            user = _TOKEN_USER if credentials.identity_token else credentials.username
            words = {"ServerURL": _key(domain), "Username": user, "Secret": secret}
            _ask(helper, "store", json.dumps(words))
            # As Docker does: the entry says who knows, and no secret is left beside the helper.
            document.setdefault("auths", {})[_key(domain)] = {}
            return f"the credential helper {helper}"
        pair = f"{credentials.username}:{credentials.password}"
        entry = {"auth": base64.b64encode(pair.encode()).decode()}
        if credentials.identity_token:
            entry["identitytoken"] = credentials.identity_token
        document.setdefault("auths", {})[_key(domain)] = entry
    return str(file)


def forget(domain: str) -> bool:
    """Remove the credentials for a registry; False when there were none.

    Raises
    ------
    UsageError: the file is damaged or cannot be written. RegistryError: the helper fails.
    """
    file = _target()
    if not file.exists():
        return False
    with _changing(file) as document:
        auths = document.get("auths") or {}
        keys = [key for key in auths if _normalised(key) == domain]
        for key in keys:
            del auths[key]
        helper = _helper_for(document, domain)
        if helper:
            known = _ask(helper, "get", _key(domain), missing_is_fine=True) is not None
            if known:
                _ask(helper, "erase", _key(domain))
            return known or bool(keys)
    return bool(keys)


def _key(domain: str) -> str:
    return _HUB_KEY if domain == _HUB else domain


def _normalised(key: str) -> str:
    """Return host[:port][/namespace] for a key of ``auths``."""
    plain = key.removeprefix("https://").removeprefix("http://").rstrip("/")
    host, _, rest = plain.partition("/")
    if host in _HUB_HOSTS:
        host = _HUB
    # Old Dockers wrote the address of the API.
    rest = "" if rest in ("v1", "v2") else rest
    return f"{host}/{rest}" if rest else host


def _home(variable: str, default: str) -> Path:
    chosen = os.environ.get(variable)
    return Path(chosen) if chosen else Path.home() / default


def _docker_file() -> Path:
    return _home("DOCKER_CONFIG", ".docker") / "config.json"


def _target() -> Path:
    chosen = os.environ.get("REGISTRY_AUTH_FILE")
    return Path(chosen) if chosen else _docker_file()


def _files() -> Iterator[Path]:
    chosen = os.environ.get("REGISTRY_AUTH_FILE")
    if chosen:
        yield Path(chosen)
        return
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    yield (Path(runtime) / "containers" if runtime else Path(f"/run/containers/{os.geteuid()}")) / "auth.json"
    yield _home("XDG_CONFIG_HOME", ".config") / "containers/auth.json"
    yield _docker_file()


def _load(file: Path) -> dict[str, Any] | None:
    try:
        with file.open("rb") as opened:
            content = opened.read(_MAX_FILE + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UsageError(f"cannot read the credentials in {file}: {error.strerror}") from error
    if not content.strip():
        return {}
    try:
        document = json.loads(content) if len(content) <= _MAX_FILE else None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the credentials in {file} are damaged: {error}") from None
    if not isinstance(document, dict):
        raise UsageError(f"the credentials in {file} are damaged: no JSON object, or one that is too large")
    for key in ("auths", "credHelpers"):
        if document.get(key) is None:
            document.pop(key, None)
        elif not isinstance(document[key], dict):
            raise UsageError(f"the credentials in {file} are damaged: {key} is no JSON object")
    return document


def _look_up(file: Path, document: dict[str, Any], domain: str, path: str) -> Credentials | None:
    helpers = document.get("credHelpers") or {}
    named = helpers.get(domain) or (helpers.get(_HUB_KEY) or helpers.get("index.docker.io") if domain == _HUB else None)
    if named:
        return _from_helper(str(named), domain)
    wanted = f"{domain}/{path}" if path else domain
    best = ""
    found: Credentials | None = None
    for key, entry in (document.get("auths") or {}).items():
        name = _normalised(str(key))
        if (wanted == name or wanted.startswith(f"{name}/")) and len(name) > len(best):
            read = _entry(file, key, entry)
            if read is not None:
                best, found = name, read
    if found is None and document.get("credsStore"):
        return _from_helper(str(document["credsStore"]), domain)
    return found


def _entry(file: Path, key: str, entry: object) -> Credentials | None:
    """Read one entry of ``auths``; None for an empty one, which only says that a helper knows."""
    fields: dict[str, Any] = entry if isinstance(entry, dict) else {}
    identity, registry = str(fields.get("identitytoken") or ""), str(fields.get("registrytoken") or "")
    username, password = str(fields.get("username") or ""), str(fields.get("password") or "")
    if fields.get("auth"):
        try:
            pair = base64.b64decode(str(fields["auth"]), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise UsageError(f"the credentials for {key} in {file} are damaged: no base64") from None
        username, colon, password = pair.partition(":")
        password = password.rstrip("\0")
        if not colon:
            raise UsageError(f"the credentials for {key} in {file} are damaged: no user name and password")
    if not (username or identity or registry):
        return None
    return Credentials(username, password, identity, registry)


def _helper_for(document: dict[str, Any], domain: str) -> str:
    helpers = document.get("credHelpers") or {}
    return str(helpers.get(domain) or helpers.get(_key(domain)) or document.get("credsStore") or "")


def _from_helper(helper: str, domain: str) -> Credentials | None:
    answer = _ask(helper, "get", _key(domain), missing_is_fine=True)
    if answer is None:
        return None
    try:
        document = json.loads(answer)
        username, secret = str(document["Username"]), str(document["Secret"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise RegistryError(f"the credential helper {helper} gave an answer that is no credentials") from None
    if username == _TOKEN_USER:
        return Credentials(identity_token=secret)
    return Credentials(username, secret)


def _ask(helper: str, verb: str, words: str, *, missing_is_fine: bool = False) -> str | None:
    """Run ``docker-credential-HELPER VERB`` with the words on its standard input; returns what it prints.

    Raises
    ------
    RegistryError: it is not there, fails, takes too long or says too much.
    """
    if not _HELPER.fullmatch(helper):
        raise RegistryError(f"{helper!r} is no name of a credential helper")
    program = f"docker-credential-{helper}"
    try:
        process = subprocess.Popen(
            [program, verb],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise RegistryError(f"cannot run the credential helper {program}: {error.strerror}") from error
    with process:
        try:
            answer = _converse(process, words.encode(), program)
        finally:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
    text = answer.decode(errors="replace").strip()
    if process.returncode:
        if missing_is_fine and "credentials not found" in text:
            return None
        raise RegistryError(f"{program} {verb} failed: {text[:200] or f'exit code {process.returncode}'}")
    return text


def _converse(process: "subprocess.Popen[bytes]", words: bytes, program: str) -> bytes:
    """Say the words and return what is printed, within limits of time and size."""
    assert process.stdin is not None and process.stdout is not None
    deadline = time.monotonic() + _HELPER_TIMEOUT
    with suppress(BrokenPipeError), process.stdin:
        process.stdin.write(words)
    answer = bytearray()
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
            raise RegistryError(f"{program} did not end within {_HELPER_TIMEOUT:g} s")
        piece = os.read(process.stdout.fileno(), 65536)
        if not piece:
            break
        answer += piece
        if len(answer) > _MAX_ANSWER:
            raise RegistryError(f"{program} prints more than {_MAX_ANSWER} bytes")
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise RegistryError(f"{program} did not end within {_HELPER_TIMEOUT:g} s") from None
    return bytes(answer)


@contextmanager
def _changing(file: Path) -> Iterator[dict[str, Any]]:
    """Give the document of a file to be changed, and write it in one step; others who do the same wait.

    A file that is a symbolic link stays one: what it leads to is changed.
    """
    import fcntl

    file = file.resolve()
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"cannot write credentials to {file}: {error.strerror}") from error
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        document = _load(file) or {}
        yield document
        _write(file, document, directory)
    except OSError as error:
        raise UsageError(f"cannot write credentials to {file}: {error.strerror}") from error
    finally:
        os.close(directory)


def _write(file: Path, document: dict[str, Any], directory: int) -> None:
    content = json.dumps(document, indent="\t").encode() + b"\n"
    fd, name = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)  # mode 0600
    try:
        with open(fd, "wb") as opened:  # noqa: PTH123  (a descriptor)
            opened.write(content)
            opened.flush()
            os.fsync(fd)
            with suppress(FileNotFoundError):
                owner = file.stat()
                # Root may log in for somebody else; the file stays theirs.
                if stat.S_ISREG(owner.st_mode) and (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
                    with suppress(PermissionError):
                        os.fchown(fd, owner.st_uid, owner.st_gid)
        os.replace(name, file)  # noqa: PTH105
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)  # noqa: PTH108
        raise
    os.fsync(directory)
