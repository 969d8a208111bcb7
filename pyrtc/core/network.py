"""Network devices, sockets in other namespaces, nftables and tracked connections.

Nothing here changes the namespace of a thread of the caller: processes that borrow this one's memory for a moment, and
for nftables a thread of its own, go where something is to be done.
"""

import os
from _thread import allocate_lock
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from pyrtc._core import ffi, lib
from pyrtc.core.error import check
from pyrtc.errors import NetworkError, UnsupportedError
from pyrtc.values import dataclass

__all__ = [
    "MACVLAN_MODES",
    "Link",
    "attach",
    "detach",
    "device_index",
    "forget_flows",
    "nft",
    "open_in",
]

MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
_CLONE_FILES = 0x400
_AF_NETLINK, _SOCK_RAW, _NETFILTER = 16, 3, 12
_SELECTABLE = 960  # of FD_SETSIZE, 1024: the library opens one or two, and other threads meanwhile some
_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}


@dataclass(frozen=True, slots=True)
class Link:
    """A network device of a container and how it is configured.

    Attributes
    ----------
    host_device: name of the other end of the veth pair on the host; not for macvlan.
    master_index: index of the bridge that the host's end belongs to, 0: none. For macvlan the device that it is on.
    mtu: 0: the kernel's choice. device: its name in the container. mac: "02:42:...", "": random.
    addresses4, addresses6: "172.18.0.2/16". Without any of addresses6 the device has no IPv6.
    gateway4, gateway6: of the default routes; "": none.
    hairpin: the bridge sends frames back to where they came from. isolated: no traffic with other isolated ports.
    announce: the neighbours are told whose addresses these are. macvlan: a key of MACVLAN_MODES, "": a veth pair.
    """

    host_device: str = ""
    master_index: int = 0
    mtu: int = 0
    device: str = "eth0"
    mac: str = ""
    addresses4: tuple[str, ...] = ()
    addresses6: tuple[str, ...] = ()
    gateway4: str = ""
    gateway6: str = ""
    hairpin: bool = True
    isolated: bool = False
    announce: bool = True
    macvlan: str = ""


def _strings(keep: list[Any], words: tuple[str, ...]) -> Any:  # noqa: ANN401  (cffi)
    """Return a C array of these words, which live as long as keep."""
    texts = [ffi.new("char[]", word.encode()) for word in words]
    keep += texts
    return ffi.new("char *[]", texts)


def attach(netns_fd: int, link: Link, *, host_netns_fd: int = -1, userns_fd: int = -1) -> None:
    """Make a device in the namespace at netns_fd and configure it; when this returns, it forwards.

    Parameters
    ----------
    host_netns_fd, userns_fd: where the host's end is to be, -1: where this thread is.

    Raises
    ------
    NetworkError: the kernel refuses; names the step and carries `errno`. Nothing of the device is left.
    """
    error, keep = ffi.new("struct pyrtc_error *"), list[Any]()
    wanted = ffi.new("struct pyrtc_link *")
    addresses = (*link.addresses4, *link.addresses6)
    gateways = tuple(gateway for gateway in (link.gateway4, link.gateway6) if gateway)
    for field in ("device", "host_device", "mac"):
        keep.append(ffi.new("char[]", getattr(link, field).encode()))
        setattr(wanted, field, keep[-1])
    wanted.parent_index, wanted.mtu = link.master_index, link.mtu
    wanted.macvlan_mode = MACVLAN_MODES[link.macvlan] if link.macvlan else 0
    wanted.hairpin, wanted.isolated, wanted.announce = link.hairpin, link.isolated, link.announce
    keep += (_strings(keep, addresses), _strings(keep, gateways))
    wanted.addresses, wanted.address_count = keep[-2], len(addresses)
    wanted.gateways, wanted.gateway_count = keep[-1], len(gateways)
    result = lib.pyrtc_attach_link(netns_fd, userns_fd, host_netns_fd, wanted, error)
    check(result, error, NetworkError)


def detach(netns_fd: int, device: str, *, userns_fd: int = -1) -> None:
    """Remove a device from the namespace at netns_fd. Takes tens of milliseconds; a namespace that ends needs none.

    Raises
    ------
    NetworkError: there is no such device, or the kernel refuses; carries `errno`.
    """
    error = ffi.new("struct pyrtc_error *")
    check(lib.pyrtc_detach_link(netns_fd, userns_fd, device.encode(), error), error, NetworkError)


def device_index(name: str, *, netns_fd: int = -1, userns_fd: int = -1) -> int:
    """Return the index of a device of the namespace at netns_fd (-1: where this thread is), 0 if there is none.

    Raises
    ------
    NetworkError: no device can have this name.
    """
    error = ffi.new("struct pyrtc_error *")
    return check(lib.pyrtc_device_index(netns_fd, userns_fd, name.encode(), error), error, NetworkError)


def open_in(
    netns_fd: int,
    family: int,
    kind: int,
    address: str = "",
    port: int = 0,
    *,
    protocol: int = 0,
    listen: int | None = None,
    freebind: bool = False,
    nonblocking: bool = False,
    mark: int = 0,
    userns_fd: int = -1,
) -> int:
    """Return a socket of this process that belongs to the namespace at netns_fd; close-on-exec, IPv6 only if IPv6.

    Parameters
    ----------
    netns_fd: -1: where this thread is. family, kind, protocol: as of socket(2).
    address: what it is bound to, with port; "": not bound. listen: the backlog; None: it does not listen.
    freebind: an address that does not exist yet will do. mark: SO_MARK, of what it sends.

    Raises
    ------
    NetworkError: it cannot be opened or bound; carries `errno`, such as EADDRINUSE.
    """
    error, wanted = ffi.new("struct pyrtc_error *"), ffi.new("struct pyrtc_socket *")
    wanted.family, wanted.type, wanted.protocol = family, kind, protocol
    text = ffi.new("char[]", address.encode())
    wanted.address, wanted.port = text if address else ffi.NULL, port
    wanted.backlog, wanted.mark = listen or 0, mark
    wanted.flags = (
        (lib.PYRTC_SOCKET_FREE if freebind else 0)
        | (lib.PYRTC_SOCKET_LISTEN if listen is not None else 0)
        | (lib.PYRTC_SOCKET_NONBLOCK if nonblocking else 0)
    )
    return check(lib.pyrtc_open_socket(netns_fd, userns_fd, wanted, error), error, NetworkError)


def forget_flows(protocol: str, ports: Iterable[int], *, netns_fd: int = -1, userns_fd: int = -1) -> int:
    """Forget the tracked connections to ports that something else will answer now; return how many there were.

    One walk through what the kernel tracks, which takes milliseconds. Connections that merely go out through
    masquerading are left alone. protocol: "tcp", "udp" or "sctp".

    Raises
    ------
    NetworkError: the kernel refuses; carries `errno`.
    """
    error, forgotten = ffi.new("struct pyrtc_error *"), ffi.new("uint64_t *")
    numbers = ffi.new("uint16_t[]", list(ports))
    result = lib.pyrtc_forget_flows(netns_fd, userns_fd, _PROTOCOLS[protocol], numbers, len(numbers), forgotten, error)
    check(result, error, NetworkError)
    count: int = forgotten[0]
    return count


class _Nftables:
    """libnftables, opened once a process and namespace, and used by one thread at a time."""

    __slots__ = ("_lock", "_namespace", "_opened")

    def __init__(self) -> None:
        self.forget()
        os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        """Begin anew: a forked child must not read answers from its parent's socket, nor wait for its threads."""
        self._lock = allocate_lock()
        self._opened: Any = None
        self._namespace = 0

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other threads of this process from the library."""
        with self._lock:
            yield

    def run(self, commands: str, *, keep: bool) -> str:
        """Run commands where this thread is. keep: the same will be asked for again from here."""
        with self._lock:
            if not keep:
                return _run_once(commands)
            namespace = os.stat("/proc/thread-self/ns/net").st_ino  # noqa: PTH116  (in the start path)
            if self._opened is None or self._namespace != namespace:
                if _descriptors_are_many():
                    return _run_once(commands)
                if self._opened is not None:
                    lib.pyrtc_nft_close(self._opened)
                    self._opened = None
                self._opened, self._namespace = _open_nft(), namespace
            return _run_nft(self._opened, commands)


_nftables = _Nftables()


def _open_nft(socket_fd: int = -1) -> Any:  # noqa: ANN401  (cffi)
    error = ffi.new("struct pyrtc_error *")
    opened = lib.pyrtc_nft_open(socket_fd, error)
    if opened == ffi.NULL:
        check(-1, error, UnsupportedError)
    return opened


def _run_once(commands: str) -> str:
    if _descriptors_are_many():
        return _in_thread(lambda: _run_apart(commands))
    opened = _open_nft()
    try:
        return _run_nft(opened, commands)
    finally:
        lib.pyrtc_nft_close(opened)


def _descriptors_are_many() -> bool:
    """Say whether a new descriptor is too high for libnftables: it calls select(2), and the C library aborts."""
    probe = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    os.close(probe)
    return probe >= _SELECTABLE


def _run_apart(commands: str) -> str:
    """Run commands in a thread with a table of descriptors of its own, in which low ones are free."""
    error = ffi.new("struct pyrtc_error *")
    check(lib.pyrtc_unshare(_CLONE_FILES, error), error, NetworkError)
    os.closerange(3, _SELECTABLE)
    return _run_once(commands)


def _run_nft(opened: Any, commands: str) -> str:  # noqa: ANN401  (cffi)
    output, complaint = ffi.new("char **"), ffi.new("char **")
    json = commands.lstrip().startswith("{")
    result = lib.pyrtc_nft_run(opened, commands.encode(), json, output, complaint)
    texts = [ffi.string(text[0]).decode(errors="replace") if text[0] else "" for text in (output, complaint)]
    if result < 0:
        raise NetworkError(f"cannot set nftables rules: {texts[1].strip() or 'libnftables does not say why'}")
    return texts[0]


def _run_program(commands: str, missing: UnsupportedError) -> str:
    """Let the nft program do it, where the library is missing."""
    import subprocess

    words = ["nft", *(["-j", "-a"] if commands.lstrip().startswith("{") else []), "-f", "-"]
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
    try:
        done = subprocess.run(
            words, input=commands, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path}
        )
    except FileNotFoundError:
        raise UnsupportedError(
            f"{missing}; there is no nft program either: install one of them (apt-get install libnftables1)"
        ) from None
    if done.returncode:
        raise NetworkError(f"cannot set nftables rules: {done.stderr.strip()}")
    return done.stdout


def _run_here(commands: str, *, keep: bool) -> str:
    try:
        return _nftables.run(commands, keep=keep)
    except UnsupportedError as missing:
        return _run_program(commands, missing)


def _in_thread(work: Callable[[], str]) -> str:
    """Call work in a thread that ends then."""
    from threading import Thread

    answers = list[str]()
    failures = list[BaseException]()

    def run() -> None:
        try:
            answers.append(work())
        except BaseException as failure:  # handed on to the caller
            failures.append(failure)

    thread = Thread(target=run, name="pyrtc-nft")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return answers[0]


def _run_there(netns_fd: int, commands: str) -> str:
    error = ffi.new("struct pyrtc_error *")
    check(lib.pyrtc_join_namespace(netns_fd, error), error, NetworkError)
    return _run_here(commands, keep=False)


def _run_beyond(socket_fd: int, commands: str) -> str:
    """Run commands where a socket is, in a table of descriptors in which no other thread opens any."""
    error = ffi.new("struct pyrtc_error *")
    check(lib.pyrtc_unshare(_CLONE_FILES, error), error, NetworkError)
    os.dup2(socket_fd, 3, inheritable=False)
    os.closerange(4, _SELECTABLE)
    with _nftables.alone():
        try:
            opened = _open_nft(3)
        except UnsupportedError as missing:
            raise UnsupportedError(f"{missing}; install it: apt-get install libnftables1") from None
        try:
            return _run_nft(opened, commands)
        finally:
            lib.pyrtc_nft_close(opened)


def nft(commands: str, netns_fd: int = -1, userns_fd: int = -1) -> str:
    """Run nftables commands, all or none of them, and return what they print.

    Parameters
    ----------
    commands: as `nft -f` reads them; if they begin with "{": as `nft -j -f`, and so is the answer, with handles.
    netns_fd: where; -1: where this thread is. userns_fd: whose it is, if not this process's user namespace's.

    Raises
    ------
    NetworkError: they are refused; says what nftables says.
    UnsupportedError: neither libnftables nor nft is installed; with userns_fd the library has to be.
    """
    if netns_fd < 0:
        return _run_here(commands, keep=True)
    if userns_fd >= 0:
        socket_fd = open_in(
            netns_fd, _AF_NETLINK, _SOCK_RAW, protocol=_NETFILTER, nonblocking=True, userns_fd=userns_fd
        )
        try:
            return _in_thread(lambda: _run_beyond(socket_fd, commands))
        finally:
            os.close(socket_fd)
    return _in_thread(lambda: _run_there(netns_fd, commands))
