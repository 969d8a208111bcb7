"""The process that is in the stand-in (`pyrtc.network.stand_in`): holds it, and works there when it is asked.

It is nobody's child, root in its user namespace and an ordinary user outside, and is asked over a socket in a directory
of the store that nobody else may enter. It ends when no container has devices there, and nobody is about to start one.
"""

import contextlib
import fcntl
import json
import os
import resource
import select
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

from pyrtc import core
from pyrtc.errors import NetworkError, PyrtcError
from pyrtc.network.stand_in import MAX_MESSAGE, SOCKET
from pyrtc.store.locks import locked_if_free

__all__ = ["main"]

_NAME = b"pyrtc-network"
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_IDLE = 2.0  # seconds that it stays for nobody: the next container often comes soon
_MAX_FDS = 8  # of one message
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1


def main() -> None:
    """Run `python -c ... LISTENER STORE DIRECTORY [USERNS NETNS]`; standard input is a socket to whoever starts it."""
    listener, store, directory, *namespaces = sys.argv[1:]
    if os.fork():
        os._exit(0)
    with contextlib.suppress(OSError), open("/proc/self/comm", "wb") as comm:
        comm.write(_NAME)
    with socket.socket(fileno=0) as starter:
        if namespaces:
            for fd in map(int, namespaces):
                core.join_namespace(fd)
                os.close(fd)
        else:
            core.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
        starter.send(str(os.getpid()).encode())
        if not starter.recv(16):
            os._exit(1)
        with contextlib.suppress(PermissionError):  # with a single id there are no groups to drop
            os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        _bring_up("lo")
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a descriptor for each container
        process = _Process(socket.socket(fileno=int(listener)), store, directory)
        starter.send(b"ready")
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    process.serve()


def _bring_up(device: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("=16sh14x", device.encode(), _IFF_UP))


class _Process:
    """Who is there, and what is done for whom: one request after the other."""

    def __init__(self, listener: socket.socket, store: str, directory: str) -> None:
        from pyrtc.network.host_lock import keep_locks_in

        keep_locks_in(directory)
        self._listener = listener
        self._store = store
        self._directory = directory
        self._clients: dict[int, socket.socket] = {}
        self._containers = set[int]()  # pidfds
        self._outside: dict[str, str] | None = None
        self._namespaces = [os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("user", "net")]
        self._namespaces.append(os.pidfd_open(os.getpid()))
        self._poller = select.poll()
        self._poller.register(listener, select.POLLIN)

    def serve(self) -> None:
        """Serve until nobody is there any more."""
        while True:
            busy = self._clients or self._containers
            events = self._poller.poll(None if busy else _IDLE * 1000)
            if not events and self._ends():
                return
            for fd, _event in events:
                self._look_at(fd)

    def _look_at(self, fd: int) -> None:
        if fd == self._listener.fileno():
            client, _address = self._listener.accept()
            self._clients[client.fileno()] = client
            self._poller.register(client, select.POLLIN)
        elif fd in self._containers:
            self._containers.remove(fd)
            self._poller.unregister(fd)
            os.close(fd)
        elif not self._serve_one(self._clients[fd]):
            self._poller.unregister(fd)
            self._clients.pop(fd).close()

    def _ends(self) -> bool:
        """Remove what says that it is there, unless somebody has just come, or is about to."""
        parent, name = os.path.split(self._directory)
        with contextlib.ExitStack() as owned:
            fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            owned.callback(os.close, fd)
            if not owned.enter_context(locked_if_free(fd, f"{name}.lock")) or self._poller.poll(0):
                return False
            for path in (SOCKET, *os.listdir(self._directory)):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{self._directory}/{path}")
            os.rmdir(self._directory)
        return True

    def _serve_one(self, client: socket.socket) -> bool:
        try:
            message, fds, _flags, _address = socket.recv_fds(client, MAX_MESSAGE, _MAX_FDS, socket.MSG_CMSG_CLOEXEC)
        except ConnectionError:
            return False
        if not message:
            return False
        sent = []
        try:
            words = json.loads(message)
            action = words.pop("action")
            if action == "hello":
                sent = self._namespaces
            if action in _WORKS:
                answer = _apart(lambda: _answer(lambda: _WORKS[action](self._store, **words)))
            else:
                answer = _answer(lambda: _ACTIONS[action](self, fds, **words))
        finally:
            for fd in fds:
                os.close(fd)
        try:
            socket.send_fds(client, [answer], sent, socket.MSG_NOSIGNAL)
        except OSError:
            return False
        return True

    def hello(self, _fds: list[int]) -> dict[str, Any]:
        return {"pid": os.getpid(), "outside": self._outside}

    def led(self, _fds: list[int], **outside: str) -> None:
        """Remember what leads outside."""
        self._outside = outside

    def hold(self, fds: list[int]) -> None:
        """Stay for a container, whose pidfd this is."""
        pidfd = os.dup(fds[0])
        self._containers.add(pidfd)
        self._poller.register(pidfd, select.POLLIN)


def _answer(act: Callable[[], Any]) -> bytes:
    answer: dict[str, Any]
    try:
        answer = {"result": act()}
    except PyrtcError as error:
        answer = {"kind": type(error).__name__, "error": str(error)}
    except OSError as error:
        answer = {"kind": "NetworkError", "error": f"{error.strerror}: {error.filename or ''}"}
    return json.dumps(answer).encode()


def _apart(act: Callable[[], bytes]) -> bytes:
    """Call act in a child, with all that it imports: what is seldom done is not to be in memory all the time."""
    read_fd, write_fd = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(write_fd, act())
        finally:
            os._exit(0)
    os.close(write_fd)
    with open(read_fd, "rb") as file:
        answer = file.read()
    os.waitpid(child, 0)
    return answer or _answer(lambda: _fail("who works on this user's networks was killed"))


def _fail(text: str) -> None:
    raise NetworkError(text)


# ---- work on bridges and the firewall ------------------------------------------------------------------------------


def _ensure(store: str, network: dict[str, Any]) -> int:
    """Make sure of a network's bridge and of its place in the firewall; return the index of the bridge."""
    from pyrtc.network import devices, firewall
    from pyrtc.network.host_lock import host_lock
    from pyrtc.store.network_records import Network

    wanted = Network(**network)
    with host_lock():
        index = devices.make(wanted, store)
    firewall.add_network(wanted)
    return index


def _take_down(_store: str, network: dict[str, Any]) -> None:
    """Remove what there is of a network that is gone."""
    from pyrtc.network.host_lock import host_lock
    from pyrtc.network.removal import take_down
    from pyrtc.store.network_records import Network

    with host_lock():
        take_down(Network(**network))


def _sweep(store: str, known: list[str]) -> None:
    """Remove the bridges of networks that the store does not have any more."""
    from pyrtc.network import devices
    from pyrtc.network.host_lock import host_lock
    from pyrtc.network.removal import take_down
    from pyrtc.store.network_records import Network

    with host_lock():
        for network_id, device in devices.orphans(store, frozenset(known)):
            take_down(Network(network_id, device, "bridge", 0.0, device))


_ACTIONS: dict[str, Callable[..., Any]] = {
    "hello": _Process.hello,
    "led": _Process.led,
    "hold": _Process.hold,
}
_WORKS: dict[str, Callable[..., Any]] = {"ensure": _ensure, "take_down": _take_down, "sweep": _sweep}
