"""Which servers stand for a registry, and how far each is trusted: registries.conf and certs.d.

Read are, in the format of containers-registries.conf(5), version 2:

``$PYRTC_REGISTRIES_CONF``, else ``$CONTAINERS_REGISTRIES_CONF``: only that file;
else ``~/.config/containers/registries.conf`` (``$XDG_CONFIG_HOME``), else ``/etc/containers/registries.conf``;
and without one of the variables every ``registries.conf.d/*.conf`` beside both, in order of names, later ones winning.

Of a ``[[registry]]`` table: ``prefix``, ``location``, ``insecure``, ``blocked``, ``mirror-by-digest-only`` and
``[[registry.mirror]]`` with ``location``, ``insecure`` and ``pull-from-mirror``. Names without a registry mean Docker
Hub, as Docker reads them; ``unqualified-search-registries`` is not looked at.

CA certificates (``*.crt``) and client certificates (``NAME.cert`` with ``NAME.key``) are taken from the first of
``~/.config/containers/certs.d``, ``/etc/containers/certs.d`` and ``/etc/docker/certs.d`` that has a directory named
after the registry, its port included where the image's name has one (containers-certs.d(5)); ``$PYRTC_CERTS_D`` names
another directory in their place.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pyrtc.errors import RegistryError, UsageError
from pyrtc.image.reference import Reference
from pyrtc.image.registry.addresses import is_loopback
from pyrtc.values import dataclass

__all__ = ["Endpoint", "Settings"]

_HUB_DOMAIN, _HUB_HOST = "docker.io", "registry-1.docker.io"
_MAX_FILE = 1 << 20


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One server that is asked for a repository.

    domain: host[:port] as names have it. path: of the repository there. insecure: a certificate is not checked, and
    plain HTTP will do. certificates: directory with certificates, None for the system's.
    """

    domain: str
    path: str
    insecure: bool = False
    certificates: Path | None = None

    @property
    def host(self) -> str:
        """The host that is connected to."""
        if self.domain == _HUB_DOMAIN:
            return _HUB_HOST
        name, _, port = self.domain.rpartition(":")
        return (name if name and port.isdigit() else self.domain).strip("[]").lower()

    @property
    def port(self) -> int | None:
        """The port, None for the scheme's own."""
        name, _, port = self.domain.rpartition(":")
        return int(port) if name and port.isdigit() else None

    @property
    def plain_allowed(self) -> bool:
        """Whether plain HTTP will do when the server does not speak TLS: on this machine, or where settings say so.

        Not on this machine when there are certificates for it: who made them wants TLS.
        """
        return self.insecure or (is_loopback(self.host) and self.certificates is None)

    @property
    def repository(self) -> str:
        """``host[:port]/path``."""
        return f"{self.domain}/{self.path}"


@dataclass(frozen=True, slots=True)
class _Mirror:
    location: str
    insecure: bool
    use: str  # all, digest-only, tag-only


@dataclass(frozen=True, slots=True)
class _Rule:
    prefix: str
    location: str
    insecure: bool
    blocked: bool
    mirrors: tuple[_Mirror, ...]


@dataclass(frozen=True, slots=True)
class Settings:
    """What the files say."""

    rules: tuple[_Rule, ...] = ()
    certificate_directories: tuple[Path, ...] = ()

    @classmethod
    def load(cls) -> "Settings":
        """Read the files.

        Raises
        ------
        UsageError: one is damaged; names it.
        """
        rules: dict[str, _Rule] = {}
        for path in _files():
            for rule in _read(path):
                rules[rule.prefix] = rule
        return cls(tuple(rules.values()), _certificate_directories())

    def to_pull(self, reference: Reference) -> tuple[Endpoint, ...]:
        """Return the servers to ask for an image, best first: mirrors, then the registry itself.

        Raises
        ------
        RegistryError: the settings block it.
        """
        rule = self._rule(reference)
        if rule is None:
            return (self._endpoint(reference.domain, reference.path, insecure=False),)
        found = []
        kind = "digest-only" if reference.digest else "tag-only"
        for mirror in rule.mirrors:
            if mirror.use in ("all", kind):
                found.append(self._at(mirror.location, rule.prefix, reference, insecure=mirror.insecure))
        return (*found, self._at(rule.location, rule.prefix, reference, insecure=rule.insecure))

    def to_push(self, reference: Reference) -> Endpoint:
        """Return the server that takes an image: never a mirror.

        Raises
        ------
        RegistryError: the settings block it.
        """
        rule = self._rule(reference)
        if rule is None:
            return self._endpoint(reference.domain, reference.path, insecure=False)
        return self._at(rule.location, rule.prefix, reference, insecure=rule.insecure)

    def registry(self, domain: str) -> Endpoint:
        """Return the server of a registry, for what is about no repository: login."""
        rule = self._longest(domain)
        if rule is None:
            return self._endpoint(domain, "", insecure=False)
        return self._endpoint(rule.location.partition("/")[0], "", insecure=rule.insecure)

    def _rule(self, reference: Reference) -> _Rule | None:
        rule = self._longest(reference.repository)
        if rule is not None and rule.blocked:
            raise RegistryError(f"{reference.familiar_repository}: registries.conf blocks {rule.prefix}")
        return rule

    def _longest(self, repository: str) -> _Rule | None:
        fitting = [rule for rule in self.rules if _covers(rule.prefix, repository)]
        return max(fitting, key=lambda rule: len(rule.prefix), default=None)

    def _at(self, location: str, prefix: str, reference: Reference, *, insecure: bool) -> Endpoint:
        """Put location in the place of prefix; a wildcard without a location of its own changes nothing."""
        if not location or prefix.startswith("*."):
            domain, _, path = (location or reference.domain).partition("/")
            return self._endpoint(domain, "/".join(filter(None, (path, reference.path))), insecure=insecure)
        whole = location + reference.repository[len(prefix) :]
        domain, _, path = whole.partition("/")
        return self._endpoint(domain, path, insecure=insecure)

    def _endpoint(self, domain: str, path: str, *, insecure: bool) -> Endpoint:
        directory = None
        if "/" not in domain and domain not in (".", ".."):
            known = (parent / domain for parent in self.certificate_directories)
            directory = next((path for path in known if path.is_dir()), None)
        return Endpoint(domain, path, insecure, directory)


def _covers(prefix: str, repository: str) -> bool:
    if prefix.startswith("*."):
        return repository.partition("/")[0].partition(":")[0].endswith(prefix[1:])
    return repository == prefix or repository.startswith(f"{prefix}/")


def _home_config() -> Path:
    chosen = os.environ.get("XDG_CONFIG_HOME")
    return Path(chosen) if chosen and chosen.startswith("/") else Path.home() / ".config"


def _certificate_directories() -> tuple[Path, ...]:
    chosen = os.environ.get("PYRTC_CERTS_D")
    if chosen:
        return (Path(chosen),)
    system = (Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d"))
    return (_home_config() / "containers/certs.d", *system)


def _files() -> Iterable[Path]:
    for variable in ("PYRTC_REGISTRIES_CONF", "CONTAINERS_REGISTRIES_CONF"):
        chosen = os.environ.get(variable)
        if chosen:
            return [Path(chosen)]
    system, home = Path("/etc/containers"), _home_config() / "containers"
    own = home / "registries.conf"
    first = own if own.is_file() else system / "registries.conf"
    files = [first] if first.is_file() else []
    for directory in (system, home):
        files += sorted((directory / "registries.conf.d").glob("*.conf"))
    return files


def _read(path: Path) -> Sequence[_Rule]:
    import tomllib

    try:
        content = path.read_bytes()
        if len(content) > _MAX_FILE:
            raise UsageError(f"{path} is larger than {_MAX_FILE} bytes")
        document = tomllib.loads(content.decode())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot read the registry settings {path}: {reason}") from error
    if isinstance(document.get("registries"), dict):
        return _read_first_version(path, document["registries"])
    tables = document.get("registry", [])
    if not isinstance(tables, list):
        raise UsageError(f"{path}: write [[registry]], with two brackets")
    return [_rule(path, table) for table in tables]


def _read_first_version(path: Path, tables: dict[str, Any]) -> Sequence[_Rule]:
    """Read the format of before 2019: lists of hosts."""

    def names(key: str) -> list[str]:
        found = tables.get(key, {}).get("registries", [])
        if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
            raise UsageError(f"{path}: registries of [registries.{key}] is a list of host names")
        return found

    insecure, blocked = set(names("insecure")), set(names("block"))
    return [
        _Rule(name, name, insecure=name in insecure, blocked=name in blocked, mirrors=())
        for name in sorted(insecure | blocked)
    ]


def _rule(path: Path, table: dict[str, Any]) -> _Rule:
    prefix, location = _text(path, table, "prefix"), _text(path, table, "location")
    if not prefix and not location:
        raise UsageError(f"{path}: a [[registry]] has neither prefix nor location")
    by_digest = _truth(path, table, "mirror-by-digest-only")
    mirrors = []
    for mirror in table.get("mirror", []):
        use = _text(path, mirror, "pull-from-mirror") or ("digest-only" if by_digest else "all")
        if use not in ("all", "digest-only", "tag-only"):
            raise UsageError(f"{path}: pull-from-mirror is all, digest-only or tag-only, not {use!r}")
        where = _text(path, mirror, "location")
        if not where:
            raise UsageError(f"{path}: a [[registry.mirror]] of {prefix or location} has no location")
        mirrors.append(_Mirror(where, _truth(path, mirror, "insecure"), use))
    return _Rule(
        prefix=prefix or location,
        # A wildcard stands for many hosts: each is its own location.
        location=location or ("" if prefix.startswith("*.") else prefix),
        insecure=_truth(path, table, "insecure"),
        blocked=_truth(path, table, "blocked"),
        mirrors=tuple(mirrors),
    )


def _text(path: Path, table: dict[str, Any], key: str) -> str:
    value = table.get(key, "")
    if not isinstance(value, str) or "://" in value or value != value.strip() or value.endswith("/"):
        raise UsageError(f"{path}: {key} is host[:port][/path] in quotes, without a scheme, not {value!r}")
    return value


def _truth(path: Path, table: dict[str, Any], key: str) -> bool:
    value = table.get(key, False)
    if not isinstance(value, bool):
        raise UsageError(f"{path}: {key} is true or false, not {value!r}")
    return value
