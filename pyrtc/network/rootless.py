"""The network of an ordinary user's container: pasta, or slirp4netns where that is missing.

An ordinary user can make network namespaces but no device that leads out of one. These programs open a tap device in
the container's and speak for it with sockets of their own. Each runs under a keeper (csrc/init/keeper.c), so that it
ends with the container, whoever is killed, and nobody has to remember it.
"""

import fcntl
import os
import re
import select
import time
from collections.abc import Collection, Sequence
from contextlib import ExitStack

from pyrtc import core
from pyrtc.core.keeper import Kept, keep
from pyrtc.errors import StartError, UnsupportedError
from pyrtc.network import pasta, slirp4netns
from pyrtc.network.resolvers import host_resolvers
from pyrtc.options import NetworkAttachment, Port
from pyrtc.values import dataclass

__all__ = ["LOCK", "NAMES", "Link", "RootlessNetwork", "decide", "gone", "nameservers", "sysctls"]

NAMES = ("bridge", "pasta", "slirp4netns")
LOCK = "network"  # in the container's directory; held by the keeper
_PACKAGES = {"pasta": "passt", "slirp4netns": "slirp4netns"}
_ENVIRONMENT = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C")
_PATIENCE = 30.0  # seconds for the program to be ready, or to be gone
_MOST_ERRORS, _MOST_LINES = 8192, 3  # bytes and lines of what it says
_NOISE = re.compile(r"^Failed to send \d+ bytes to syslog$")
_TUN = "/dev/net/tun"
_ANYWHERE = ("192.0.2.1", "2001:db8::1")  # nobody's addresses (RFC 5737, RFC 3849), which the default route is for


@dataclass(frozen=True, slots=True)
class RootlessNetwork:
    """How a container is going to reach the outside: kind pasta or slirp4netns, and the path of that program.

    mac: of its device, "" for a random one. addresses: the container's. nameservers: for its resolv.conf, where the
    caller names none. gateway: what leads to the host, "" for nothing. warnings: what the caller is to know.
    """

    kind: str
    program: str
    mac: str
    addresses: tuple[str, ...]
    nameservers: tuple[str, ...]
    gateway: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def sysctls(self) -> tuple[tuple[str, str], ...]:
        """Settings of the container's network namespace that suit the program."""
        return sysctls(self.kind)

    def connect(
        self,
        helper_fd: int,
        pid: int,
        pidfd: int,
        ports: Sequence[Port] = (),
        *,
        directory_fd: int,
    ) -> "Link":
        """Give process 1, which exists and waits to be let go, its network; one that has ended has said why itself.

        Parameters
        ----------
        helper_fd: the sealed pyrtc-init. ports: to be published. directory_fd: the container's, where `gone` finds out
            whether the program is gone.

        Raises
        ------
        StartError: the program fails; says what it said. NetworkError: a port is taken. UnsupportedError: this
        program cannot do that.
        """
        with ExitStack() as undo:
            lock_fd = _lock(directory_fd)
            undo.callback(os.close, lock_fd)
            chosen = tuple(ports) if self.kind == "pasta" else slirp4netns.heard(ports)
            if chosen:
                from pyrtc.network.ports import reserve

                with reserve(chosen) as reserved:
                    chosen = reserved.ports
            link = Link(self.kind, chosen)
            undo.push(link.unless_steady)
            try:
                self._serve(link, helper_fd, pid, pidfd, (lock_fd,))
            except StartError:
                if not _has_ended(pidfd):  # with it the program ends, without a word
                    raise
            else:
                link.steady()
        return link

    def _serve(self, link: "Link", helper_fd: int, pid: int, pidfd: int, held: Sequence[int]) -> None:
        ports = link.ports
        if self.kind == "pasta":
            forward_dns = pasta.FORWARDED_DNS in self.nameservers
            words = pasta.arguments(
                self.program, pid, ports, forward_dns=forward_dns, map_host=bool(self.gateway), mac=self.mac
            )
            link.start(helper_fd, pidfd, words, pasta.READY, held)
            return
        if not ports:
            words = slirp4netns.arguments(self.program, pid, "", self.mac)
            link.start(helper_fd, pidfd, words, slirp4netns.READY, held)
            return
        from pyrtc.network.slirp_orders import place_for_orders

        with place_for_orders() as orders:
            words = slirp4netns.arguments(self.program, pid, orders, self.mac)
            link.start(helper_fd, pidfd, words, slirp4netns.READY, held)
            slirp4netns.publish(orders, ports)


class Link:
    """The program that serves a container, as long as this process cares.

    ports: what is published, with the host's numbers.
    """

    def __init__(self, kind: str, ports: tuple[Port, ...]) -> None:
        self.kind = kind
        self.ports = ports
        self._kept: Kept | None = None
        self._is_steady = False

    def start(self, helper_fd: int, pidfd: int, words: Sequence[str], ready_number: int, held: Sequence[int]) -> None:
        """Start the program; returns when it is ready.

        Raises
        ------
        StartError: it ended, or does not get ready.
        """
        self._kept = kept = keep(helper_fd, pidfd, words, _ENVIRONMENT, ready_number=ready_number, held=held)
        deadline = time.monotonic() + _PATIENCE
        said = b""
        waiting = {kept.ready_fd, kept.error_fd}
        while waiting:
            readable = _readable(waiting, deadline - time.monotonic())
            if not readable:
                raise StartError(f"{self.kind} did not get ready in {_PATIENCE:.0f} seconds", step="network")
            for fd in readable:
                data = os.read(fd, _MOST_ERRORS)
                if not data:
                    waiting.discard(fd)
                elif fd == kept.ready_fd:
                    return
                else:
                    said = (said + data)[:_MOST_ERRORS]
        raise self._failure(said.decode(errors="replace"))

    def _failure(self, said: str) -> StartError:
        lines = [line.strip() for line in said.splitlines()]
        lines = [line for line in lines if line and not _NOISE.search(line)]
        hint = pasta.hint(said) if self.kind == "pasta" else ""
        words = "; ".join(lines[-_MOST_LINES:] if not hint else lines[:_MOST_LINES]) or "it ended without a word"
        return StartError(f"cannot connect the container: {self.kind}: {words}{hint}", step="network")

    def steady(self) -> None:
        """The container is going to run: what the program says from now on is not read any more."""
        assert self._kept is not None
        core.go_on(self._kept.control_fd)
        os.close(self._kept.ready_fd)
        os.close(self._kept.error_fd)
        self._is_steady = True

    def unless_steady(self, *_error: object) -> None:
        """Let go of a program that did not get so far; it ends with the container."""
        if self._kept is not None and not self._is_steady:
            for fd in (self._kept.control_fd, self._kept.ready_fd, self._kept.error_fd):
                os.close(fd)
            self._kept = None

    def leave(self) -> None:
        """Let go of the program; it goes on with the container."""
        if self._kept is not None:
            os.close(self._kept.control_fd)
            self._kept = None


def decide(asked: Sequence[NetworkAttachment], *, publishes: bool = False, names_host: bool = False) -> RootlessNetwork:
    """Return what serves the network of a container of this user.

    Parameters
    ----------
    asked: the networks that were named. publishes: there are ports to publish. names_host: the container is to have a
        name for this host.

    Raises
    ------
    UnsupportedError: there is no such network for an ordinary user, or what it takes is missing; says what to install.
    """
    if len(asked) != 1 or asked[0].network not in NAMES:
        raise UnsupportedError(
            f"an ordinary user's container has the network {' or '.join(NAMES)}, or networks that the user has made; "
            "who is root of a user namespace only has none of the latter: run pyrtc as that user"
        )
    name = asked[0].network
    if asked[0].ip or asked[0].ip6:
        raise UnsupportedError(
            "an ordinary user's container has the addresses that its network gives it: leave --ip out"
        )
    if asked[0].aliases:
        raise UnsupportedError("an ordinary user's container is alone on its network: leave --network-alias out")
    if os.geteuid() == 0:
        raise UnsupportedError(f"the network {name} is for ordinary users: root has --network bridge")
    _check_tun()
    kind, program = _find(name)
    silent = kind == "pasta" and publishes and pasta.is_silent(program)
    if silent and name == "bridge" and (other := _which("slirp4netns")):
        kind, program, silent = "slirp4netns", other, False
    if names_host and not (kind == "pasta" and pasta.can_map_host(program)):
        raise UnsupportedError(
            "host-gateway in an ordinary user's network needs a pasta of 2024_08_21 or newer (package passt): the "
            "host is not reached from it otherwise"
        )
    if kind == "slirp4netns":
        return RootlessNetwork(kind, program, asked[0].mac, (slirp4netns.ADDRESS,), nameservers(kind))
    addresses = tuple(filter(None, map(_source_for, _ANYWHERE)))
    warnings = (pasta.SILENT,) if silent else ()
    gateway = pasta.HOST if names_host else ""
    return RootlessNetwork(kind, program, asked[0].mac, addresses, nameservers(kind), gateway, warnings)


def sysctls(kind: str) -> tuple[tuple[str, str], ...]:
    """Return settings of a container's network namespace that suit what leads outside."""
    return pasta.SYSCTLS if kind == "pasta" else slirp4netns.SYSCTLS


def nameservers(kind: str) -> tuple[str, ...]:
    """Return whom to ask for names behind pasta or slirp4netns."""
    return (slirp4netns.DNS,) if kind == "slirp4netns" else _elsewhere(host_resolvers().elsewhere)


def gone(directory: str) -> None:
    """Wait until the program of a container that has ended is gone, and with it its ports."""
    try:
        fd = os.open(f"{directory}/{LOCK}", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        _wait_for_lock(fd)
    finally:
        os.close(fd)


def _find(name: str) -> tuple[str, str]:
    wanted = ("pasta", "slirp4netns") if name == "bridge" else (name,)
    for kind in wanted:
        found = _which(kind)
        if found:
            return kind, found
    if name == "bridge":
        raise UnsupportedError(
            "an ordinary user's network needs pasta or slirp4netns, and neither is installed: apt-get install passt"
        )
    raise UnsupportedError(f"{name} is not installed: apt-get install {_PACKAGES[name]}")


def _which(program: str) -> str | None:
    """As shutil.which, which would cost an import; a path is absolute or it is none, for the program starts in /."""
    for directory in os.environ.get("PATH", os.defpath).split(os.pathsep):
        path = f"{directory}/{program}"
        if directory.startswith("/") and os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def _check_tun() -> None:
    if os.access(_TUN, os.R_OK | os.W_OK):
        return
    if not os.path.exists(_TUN):
        raise UnsupportedError(f"{_TUN} is missing, through which a network is made: as root, modprobe tun")
    raise UnsupportedError(f"this user cannot open {_TUN}, through which a network is made: as root, chmod 0666 {_TUN}")


def _elsewhere(servers: Sequence[str]) -> tuple[str, ...]:
    """Return the resolvers that are not on this host; pasta forwards to the first one where none is.

    The container has the host's address: what the host itself listens on is not there.
    """
    return tuple(server for server in servers if _source_for(server) not in ("", server)) or (pasta.FORWARDED_DNS,)


def _source_for(address: str) -> str:
    """Return the address that packets for another one leave this host with, "" where none do; nothing is sent."""
    import _socket as sockets  # `socket` imports selectors and enum, and makes 200 constants classes

    family = sockets.AF_INET6 if ":" in address else sockets.AF_INET
    try:
        asked = sockets.socket(family, sockets.SOCK_DGRAM | sockets.SOCK_CLOEXEC)
    except OSError:
        return ""  # this host has no IPv6
    try:
        asked.connect((address, 53))
        return str(asked.getsockname()[0])
    except OSError:
        return ""  # there is no route
    finally:
        asked.close()


def _lock(directory_fd: int) -> int:
    """Return the lock of a container's program; that of an earlier run may be about to end."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(LOCK, flags, 0o600, dir_fd=directory_fd)
    try:
        if not _wait_for_lock(fd):
            raise StartError(
                "the network of the container's run before is still being served: end its program (pgrep -u $USER "
                "'pasta|slirp4netns|pyrtc-keeper') and start it again",
                step="network",
            )
    except BaseException:
        os.close(fd)
        raise
    return fd


def _wait_for_lock(fd: int) -> bool:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        else:
            return True


def _has_ended(pidfd: int) -> bool:
    return bool(_readable({pidfd}, 0))


def _readable(fds: Collection[int], patience: float) -> list[int]:
    poller = select.poll()
    for fd in fds:
        poller.register(fd, select.POLLIN)
    return [fd for fd, _events in poller.poll(max(0.0, patience) * 1000)]
