"""The stand-in: the network namespace that has the host's part in the networks of an ordinary user.

An ordinary user cannot make a bridge on the host, but in a network namespace that belongs to a user namespace of the
user's. There is one of both for a store, held by a process (`pyrtc.network.stand_in_process`): bridges and firewall are
in it as root's are on the host, and pasta or slirp4netns lead from it to the outside. Containers on these networks are
born in user namespaces that are children of its one, so that who is in that may put devices into theirs.

    with open_stand_in(store) as stand_in:
        stand_in.lead_outside()
        stand_in.ask("ensure", network=fields(network))
        attach(netns_fd, link, host_netns_fd=stand_in.netns_fd, userns_fd=stand_in.userns_fd)
"""

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from pyrtc import errors
from pyrtc.core.network import detach, device_index
from pyrtc.errors import NetworkError, StartError, UnsupportedError, reason
from pyrtc.ids import IdMaps, ordinary_user, write_maps
from pyrtc.network import rootless
from pyrtc.options import NetworkAttachment
from pyrtc.runtime.ids import read_maps
from pyrtc.store.interpreter import program_of
from pyrtc.store.locks import locked
from pyrtc.values import dataclass, replace

if TYPE_CHECKING:
    from types import TracebackType

    from pyrtc.store import Store
    from pyrtc.store.networks import Network

__all__ = ["MAX_MESSAGE", "SOCKET", "Outside", "StandIn", "fields", "find_stand_in", "is_wanted", "open_stand_in"]

SOCKET = "socket"  # in its directory; there is also the lock of the program that leads outside
MAX_MESSAGE = 1 << 16
_DIRECTORY = "stand-in"  # of the store
_PATIENCE = 60.0  # seconds for an answer; a bridge takes a fraction of one
_NS_GET_PARENT = 0xB702  # <linux/nsfs.h>
_FRESH = (NetworkAttachment("bridge"),)  # what leads outside is found as for a container of its own


@dataclass(frozen=True, slots=True)
class Outside:
    """What leads from a stand-in to the outside.

    kind: pasta or slirp4netns. gateway: what leads to the host from there, "" for nothing.
    """

    kind: str
    gateway: str

    @property
    def nameservers(self) -> tuple[str, ...]:
        """Whom to ask for names from there."""
        return rootless.nameservers(self.kind)

    @property
    def sysctls(self) -> tuple[tuple[str, str], ...]:
        """Settings of a container's network namespace that suit the program."""
        return rootless.sysctls(self.kind)


class StandIn:
    """A stand-in that this process uses; it stays at least until this is closed.

    Attributes
    ----------
    userns_fd, netns_fd: its namespaces. id_maps: of the user namespace. outside: what leads there, None for nothing.
    """

    def __init__(self, channel: socket.socket, directory: str, said: dict[str, Any], fds: Sequence[int]) -> None:
        self._channel = channel
        self._directory = directory
        self._pid: int = said["pid"]
        self.userns_fd, self.netns_fd, self._pidfd = fds
        self.outside = Outside(**said["outside"]) if said["outside"] else None
        try:
            self.id_maps: IdMaps = read_maps(self._pid)
        except BaseException:
            self.close()
            raise

    def ask(self, action: str, fds: Sequence[int] = (), **words: Any) -> Any:  # noqa: ANN401
        """Have something done there, see `pyrtc.network.stand_in_process`, and return what it returns.

        Raises
        ------
        PyrtcError: what it raised. NetworkError: the process has been killed.
        """
        try:
            request = json.dumps({"action": action, **words}).encode()
            socket.send_fds(self._channel, [request], list(fds), socket.MSG_NOSIGNAL)
            answer = self._channel.recv(MAX_MESSAGE)
        except OSError as error:
            raise _ended(error) from error
        if not answer:
            raise _ended(None)
        said = json.loads(answer)
        if "error" in said:
            raise getattr(errors, said["kind"], NetworkError)(said["error"])
        return said["result"]

    def hold(self, pidfd: int) -> None:
        """Have it stay for a container, whose pidfd this is."""
        self.ask("hold", [pidfd])

    def bridge(self, network: "Network") -> int:
        """Return the index of a network's bridge there; made where it is missing.

        Raises
        ------
        NetworkError, UnsupportedError: as `pyrtc.network.devices.ensure` does, and the firewall.
        """
        index = device_index(network.device, netns_fd=self.netns_fd, userns_fd=self.userns_fd)
        return index or int(self.ask("ensure", network=fields(network)))

    def has_born(self, pid: int) -> bool:
        """Whether a process is in a user namespace that is a child of this one."""
        try:
            own_fd = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False  # it has ended
        try:
            parent_fd = fcntl.ioctl(own_fd, _NS_GET_PARENT)
        except OSError:
            return False
        finally:
            os.close(own_fd)
        try:
            return os.path.sameopenfile(parent_fd, self.userns_fd)
        finally:
            os.close(parent_fd)

    def remove_device(self, name: str) -> None:
        """Remove a device there, the other end of a container's; none of this name is fine."""
        if device_index(name, netns_fd=self.netns_fd, userns_fd=self.userns_fd):
            try:
                detach(self.netns_fd, name, userns_fd=self.userns_fd)
            except NetworkError as error:
                if getattr(error, "errno", 0) != errno.ENODEV:  # it went with the other end meanwhile
                    raise

    def lead_outside(self) -> Outside:
        """Make sure that something leads outside, and return what.

        Raises
        ------
        UnsupportedError: neither pasta nor slirp4netns is installed; says what to install. StartError: it fails.
        """
        if self.outside is not None and self._is_served():
            return self.outside
        with _locked(self._directory):
            if not self._is_served():
                self.outside = self._start_program()
                self.ask("led", kind=self.outside.kind, gateway=self.outside.gateway)
            else:  # another process has just done it
                self.outside = Outside(**self.ask("hello")["outside"])
        return self.outside

    def _is_served(self) -> bool:
        """Whether the program's keeper is there, which holds a lock."""
        try:
            fd = os.open(f"{self._directory}/{rootless.LOCK}", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def _start_program(self) -> Outside:
        from pyrtc.network import pasta
        from pyrtc.runtime.helper import helper_fd

        network = rootless.decide(_FRESH)
        if network.kind == "pasta":
            gateway = pasta.HOST if pasta.can_map_host(network.program) else ""
            network = replace(network, gateway=gateway)
        directory_fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            network.connect(helper_fd(), self._pid, self._pidfd, directory_fd=directory_fd).leave()
        finally:
            os.close(directory_fd)
        return Outside(network.kind, network.gateway)

    def close(self) -> None:
        """Let go of it; it goes on for the containers that it holds devices for."""
        self._channel.close()
        for fd in (self.userns_fd, self.netns_fd, self._pidfd):
            if fd >= 0:
                os.close(fd)
        self.userns_fd = self.netns_fd = self._pidfd = -1

    def __enter__(self) -> "StandIn":
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: "TracebackType | None"
    ) -> None:
        """Let go of it."""
        self.close()


def is_wanted(store: "Store", networks: Sequence[NetworkAttachment]) -> bool:
    """Whether containers on these networks are for the stand-in: an ordinary user's, on networks that were made.

    Raises
    ------
    UnsupportedError: some are, and others are a program's for each container. NetworkNotFound: there is none of a name.
    """
    if not store.rootless or os.geteuid() == 0:
        return False
    made = [one.network for one in networks if one.network not in rootless.NAMES]
    if made and len(made) != len(networks):
        other = next(one.network for one in networks if one.network in rootless.NAMES)
        raise UnsupportedError(
            f"an ordinary user's network {other} is a program for one container, which is on no other network then: "
            f"leave it out, {', '.join(made)} leads outside unless it is internal"
        )
    for name in made:
        store.networks.get(name)  # says that it is not there, before anything is made for it
    return bool(made)


def fields(network: "Network") -> dict[str, Any]:
    """Return a network as it is told to the stand-in."""
    return {name: getattr(network, name) for name in _TOLD}


_TOLD = (
    "id", "name", "driver", "created", "device", "subnet4", "gateway4", "subnet6", "gateway6", "mtu", "internal",
)  # fmt: skip


def find_stand_in(store: "Store") -> StandIn | None:
    """Return the stand-in of a store, None where there is none now."""
    return _connect(_directory(store))


def open_stand_in(store: "Store") -> StandIn:
    """Return the stand-in of a store; made where there is none.

    Raises
    ------
    UnsupportedError: this system does not let its users make user namespaces. StartError: its process cannot be made.
    """
    directory = _directory(store)
    found = _connect(directory)
    if found is not None:
        return found
    try:
        os.makedirs(directory, 0o700, exist_ok=True)
    except OSError as error:
        raise NetworkError(f"cannot make {directory}: {reason(error.errno or 0)}") from error
    with _locked(directory):
        found = _connect(directory)
        if found is None:
            with _survivors(store) as (namespaces, pidfds):
                _start(store, directory, namespaces)
                found = _connect(directory)
                if found is not None:
                    for pidfd in pidfds:
                        found.hold(pidfd)
    if found is None:
        raise StartError("the process that holds the networks of this user was killed while it began", step="network")
    return found


@contextmanager
def _survivors(store: "Store") -> "Iterator[tuple[tuple[int, int] | None, list[int]]]":
    """Open the stand-in's namespaces where its process has been killed, and the containers' pidfds.

    Attendants are in it, and keep it while their containers run.
    """
    from pyrtc.network.attending import open_attendant_namespaces
    from pyrtc.store.owner import open_process

    with ExitStack() as opened:
        namespaces: tuple[int, int] | None = None
        pidfds = []
        for record in store.containers.list():
            if record.state != "running" or record.directory is None or not store.networks.endpoints_of(record.id):
                continue
            pidfd = open_process(record.pid, record.start_time)
            if pidfd is None:
                continue
            opened.callback(os.close, pidfd)
            found = open_attendant_namespaces(record.directory)
            if found is None:
                continue
            for fd in found:
                opened.callback(os.close, fd)
            if namespaces is None:
                namespaces = found
            if os.path.sameopenfile(namespaces[1], found[1]):
                pidfds.append(pidfd)
        yield namespaces, pidfds


def _directory(store: "Store") -> str:
    """Return the directory of the stand-in for the host that this process is on: a host is a network namespace, too."""
    host = os.stat("/proc/thread-self/ns/net").st_ino
    return f"{store.path}/{_DIRECTORY}/{host}"


@contextmanager
def _locked(directory: str) -> Iterator[None]:
    """Be the only one who makes a stand-in, or a way outside."""
    parent, name = os.path.split(directory)
    fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with locked(fd, [f"{name}.lock"]):
            yield
    finally:
        os.close(fd)


def _connect(directory: str) -> StandIn | None:
    with ExitStack() as undo:
        try:
            directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        undo.callback(os.close, directory_fd)
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        undo.callback(channel.close)
        channel.settimeout(_PATIENCE)
        try:
            # Through the descriptor: the path of the store may be longer than that of a socket.
            channel.connect(f"/proc/self/fd/{directory_fd}/{SOCKET}")
            channel.send(b'{"action": "hello"}', socket.MSG_NOSIGNAL)
            answer, fds, _flags, _address = socket.recv_fds(channel, MAX_MESSAGE, 3, socket.MSG_CMSG_CLOEXEC)
        except (FileNotFoundError, ConnectionError):
            return None
        except OSError as error:
            raise _ended(error) from error
        if not answer:
            return None  # it is just about to end
        if len(fds) != 3:
            for fd in fds:
                os.close(fd)
            raise NetworkError("cannot use this user's networks: this process has too many open files")
        found = StandIn(channel, directory, json.loads(answer)["result"], fds)
        undo.pop_all()
        os.close(directory_fd)
        return found


def _ended(error: OSError | None) -> NetworkError:
    why = f": {reason(error.errno)}" if error is not None and error.errno else ""
    return NetworkError(f"the process that holds the networks of this user has ended or does not answer{why}")


def _start(store: "Store", directory: str, namespaces: tuple[int, int] | None) -> None:
    """Start the process, and return when it serves; with the lock held. namespaces: that are there; None: new ones."""
    import subprocess
    import sys

    with ExitStack() as owned:
        listener = owned.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        owned.callback(os.close, directory_fd)
        path = f"/proc/self/fd/{directory_fd}/{SOCKET}"
        with suppress(FileNotFoundError):
            os.unlink(path)
        listener.bind(path)
        listener.listen(128)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        owned.enter_context(ours)
        ours.settimeout(_PATIENCE)
        with theirs:
            program = program_of("pyrtc.network.stand_in_process", "main()")
            words = [sys.executable, "-I", "-c", program, str(listener.fileno()), store.path, directory]
            words += [str(fd) for fd in namespaces or ()]
            process = subprocess.Popen(
                words, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd="/", env={},
                pass_fds=[listener.fileno(), *(namespaces or ())], start_new_session=True,
            )  # fmt: skip
        owned.enter_context(process)
        try:
            said = ours.recv(64)
            if said:
                if namespaces is None:
                    write_maps(int(said), ordinary_user())
                ours.send(b"go", socket.MSG_NOSIGNAL)
                said = ours.recv(64)
        except OSError as error:
            raise _ended(error) from error
        if not said:
            raise _failure(process.stderr)


def _failure(stderr: Any) -> Exception:  # noqa: ANN401
    last = stderr.read()[-1000:].decode(errors="replace").strip().rpartition("\n")[2]
    kind, _, text = last.partition(": ")
    kind = kind.rpartition(".")[2]
    if "unshare" in text:
        return UnsupportedError(
            f"{text}: this system does not let ordinary users make user namespaces "
            "(kernel.unprivileged_userns_clone, AppArmor), which their networks take"
        )
    return StartError(f"cannot make the network namespace of this user's networks: {text or kind}", step="network")
