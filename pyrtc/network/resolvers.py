"""The resolvers of this host, as its resolv.conf names them: what containers ask, or their own resolvers do."""

from pyrtc.values import dataclass

__all__ = ["Resolvers", "host_resolvers"]

_FILE = "/etc/resolv.conf"
# What a stub on loopback asks in turn; systemd-resolved writes it for those who cannot reach the stub.
_BEHIND_STUB = "/run/systemd/resolve/resolv.conf"
_STUB = "127.0.0.53"
_LARGEST = 1 << 16
_MOST = 3  # resolv.conf(5): MAXNS


@dataclass(frozen=True, slots=True)
class Resolvers:
    """What a resolv.conf says. nameservers: addresses as they stand there; search: domains; options: words."""

    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    @property
    def elsewhere(self) -> tuple[str, ...]:
        """The servers that are not on this host's loopback device, which a container's own does not lead to."""
        return tuple(server for server in self.nameservers if not _is_loopback(server))


def host_resolvers(*, stub: bool = False) -> Resolvers:
    """Read what this host resolves names with; nothing where it says nothing.

    Parameters
    ----------
    stub: systemd's server at 127.0.0.53 can be asked, from the host's network; else it is replaced by those behind it.
    """
    found = _read(_FILE)
    if not stub and found.nameservers and all(server == _STUB for server in found.nameservers):
        behind = _read(_BEHIND_STUB)
        if behind.nameservers:
            return Resolvers(behind.nameservers, found.search or behind.search, found.options)
    return found


def _read(path: str) -> Resolvers:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read(_LARGEST).splitlines()
    except OSError:
        return Resolvers()
    servers: list[str] = []
    search: tuple[str, ...] = ()
    options: list[str] = []
    for line in lines:
        key, *words = line.split("#")[0].split(";")[0].split() or [""]
        if key == "nameserver" and words and _is_address(words[0]):
            servers.append(words[0])
        elif key in ("search", "domain"):
            search = tuple(words)  # the last such line counts
        elif key == "options":
            options += words
    return Resolvers(tuple(dict.fromkeys(servers))[:_MOST], search, tuple(dict.fromkeys(options)))


def _is_address(word: str) -> bool:
    from pyrtc.errors import UsageError
    from pyrtc.ip import number

    try:
        number(word.partition("%")[0])
    except UsageError:
        return False
    return True


def _is_loopback(server: str) -> bool:
    return server.startswith("127.") or server in ("::1", "0.0.0.0", "::")  # noqa: S104  (the last two mean it as well)
