"""Work on files of subordinate ids: a process in a user namespace that maps all ids of an ordinary user.

A process with threads cannot enter a user namespace, and the embedding program is never forked. So another Python is
started, enters a namespace of its own, has its maps written by newuidmap, and does what it is asked on descriptors that
come over a socket. It ends with the socket, and by itself after some idle seconds.
"""

import os
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pyrtc import core, errors
from pyrtc.errors import PyrtcError, StartError, StoreError
from pyrtc.ids import IdMaps, write_maps
from pyrtc.store.differences import changes, mount_points
from pyrtc.store.interpreter import program_of
from pyrtc.store.stacked import copy_from_layers, tar_of_layers

if TYPE_CHECKING:
    import subprocess

__all__ = ["Subordinate", "serve"]

_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_IDLE = 10.0  # seconds without work after which the process ends
_FRESH = 5.0  # seconds for which it is sure not to
_MAX_FDS = 253  # of one message (SCM_MAX_FD)
_MAX_MESSAGE = 1 << 18


class Subordinate:
    """Processes that work in such a namespace: one per request that is under way, one kept for the next."""

    def __init__(self, maps: IdMaps) -> None:
        self._maps = maps
        self._lock = threading.Lock()
        self._idle: _Worker | None = None

    def ask(self, action: str, fds: Sequence[int], **words: Any) -> Any:  # noqa: ANN401
        """Have one of the functions below done and return what it returns.

        Raises
        ------
        PyrtcError: what it raised. StoreError: the process cannot be started, or has died.
        """
        if len(fds) > _MAX_FDS:
            raise StoreError(f"{len(fds)} directories are more than can be handed over at once ({_MAX_FDS})")
        worker = self._exchange(None)
        if worker is not None and not worker.usable():
            worker.kill()
            worker = None
        if worker is None:
            worker = _Worker(self._maps)
        try:
            answer = worker.request({"action": action, **words}, fds)
        except BaseException:
            worker.kill()
            raise
        spare = self._exchange(worker)
        if spare is not None:
            spare.kill()
        if "error" in answer:
            raise getattr(errors, answer["kind"], StoreError)(answer["error"])
        return answer["result"]

    def _exchange(self, worker: "_Worker | None") -> "_Worker | None":
        with self._lock:
            before, self._idle = self._idle, worker
        return before

    def close(self) -> None:
        """End the process that waits."""
        worker = self._exchange(None)
        if worker is not None:
            worker.kill()


class _Worker:
    """One process in a namespace of its own."""

    def __init__(self, maps: IdMaps) -> None:
        import subprocess

        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            program = program_of(__name__, "serve(0)")
            self._socket = ours
            self._owner = os.getpid()
            self._used = time.monotonic()
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-c", program],
                    stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                ours.close()
                raise StoreError(f"cannot start {sys.executable} to work with subordinate ids: {error}") from error
        self._end = weakref.finalize(self, _end, self._owner, ours, self._process)
        try:
            self._receive()  # it is in its namespace
            write_maps(self._process.pid, maps)
            ours.send(b"{}", socket.MSG_NOSIGNAL)
            self._receive()
        except StartError as error:
            self.kill()
            raise StoreError(f"cannot work with subordinate ids: {error}") from error
        except BaseException:
            self.kill()
            raise

    def usable(self) -> bool:
        """Whether it is this process's own (not that of the process it was forked from) and waits for work."""
        rested = time.monotonic() - self._used
        return self._owner == os.getpid() and rested < _FRESH and self._process.poll() is None

    def request(self, words: dict[str, Any], fds: Sequence[int]) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        try:
            socket.send_fds(self._socket, [_encode(words)], list(fds), socket.MSG_NOSIGNAL)
        except OSError as error:
            raise StoreError(f"the process that works with subordinate ids has ended: {error.strerror}") from error
        answer = self._receive()
        self._used = time.monotonic()
        return answer

    def _receive(self) -> dict[str, Any]:
        try:
            message = self._socket.recv(_MAX_MESSAGE)
        except ConnectionResetError:
            message = b""
        if not message:
            assert self._process.stderr is not None
            said = self._process.stderr.read()[-500:].decode(errors="replace").strip()
            raise StoreError(f"the process that works with subordinate ids has ended: {said.rpartition(chr(10))[2]}")
        return _decode(message)

    def kill(self) -> None:
        """End the process at once; nothing that it works for is finished then."""
        self._end()


def _end(owner: int, channel: socket.socket, process: "subprocess.Popen[bytes]") -> None:
    """End a worker, also when it is forgotten or this program ends; a forked child lets go of it only."""
    channel.close()
    if owner != os.getpid():
        return
    process.kill()
    process.wait()
    if process.stderr is not None:
        process.stderr.close()


def _encode(words: dict[str, Any]) -> bytes:
    import json

    return json.dumps(words).encode()


def _decode(message: bytes) -> dict[str, Any]:
    import json

    words: dict[str, Any] = json.loads(message)
    return words


# ---- inside --------------------------------------------------------------------------------------------------------


def serve(fd: int) -> None:
    """Be the process in the namespace: the socket is descriptor fd."""
    with socket.socket(fileno=fd) as channel:
        core.unshare(_CLONE_NEWUSER | _CLONE_NEWNS)
        channel.send(b"{}")
        if not channel.recv(16):
            return
        with suppress(PermissionError):  # with a single id there are no groups to drop
            os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        channel.send(b"{}")
        channel.settimeout(_IDLE)
        with suppress(TimeoutError):
            while _serve_one(channel):
                pass


def _serve_one(channel: socket.socket) -> bool:
    message, fds, _flags, _address = socket.recv_fds(channel, _MAX_MESSAGE, _MAX_FDS)
    if not message:
        return False
    words = _decode(message)
    try:
        answer: dict[str, Any] = {"result": _ACTIONS[words.pop("action")](fds, **words)}
    except PyrtcError as error:
        answer = {"kind": type(error).__name__, "error": str(error)}
    except OSError as error:
        answer = {"kind": "StoreError", "error": f"{error.strerror}: {error.filename or ''}"}
    finally:
        for fd in fds:
            os.close(fd)
    channel.send(_encode(answer))
    return True


def _numbers(result: core.UntarResult | core.TardiffResult) -> dict[str, int]:
    from dataclasses import asdict

    return asdict(result)


def _untar(fds: list[int], *, plain: bool) -> dict[str, int]:
    stream, root, *lowers = fds
    return _numbers(core.untar(stream, root, lower_fds=lowers, rootless=True, keep_owners=True, plain=plain))


def _untar_alone(fds: list[int]) -> dict[str, int] | None:
    result = core.untar_alone(fds[0], fds[1], rootless=True, keep_owners=True)
    return _numbers(result) if result is not None else None


def _tardiff(
    fds: list[int], *, no_owners: bool, headers_only: bool, latest: int | None, left_out: list[str]
) -> dict[str, int]:
    result = core.tardiff(
        *fds, rootless=True, no_owners=no_owners, headers_only=headers_only, latest=latest, left_out=left_out
    )
    return _numbers(result)


def _copy_layer(fds: list[int], *, keep_owner: bool) -> None:
    core.copy_tree(*fds, keep_owner=keep_owner, layer=True)


def _mount_points(fds: list[int], *, layers: list[str], targets: list[str]) -> list[str]:
    return mount_points(layers, targets, rootless=True, own_user=False)


def _changes(fds: list[int], *, layers: list[str], left_out: list[str]) -> None:
    found = changes(layers, left_out, rootless=True, own_user=False)
    with open(os.dup(fds[0]), "wb") as file:
        file.writelines(os.fsencode(f"{kind}{path}\0") for kind, path in found)


def _write_tree(
    fds: list[int], *, layers: list[str], no_owners: bool, left_out: list[str], latest: int | None
) -> dict[str, int]:
    result = tar_of_layers(
        layers, fds[0], rootless=True, own_user=False, no_owners=no_owners, left_out=left_out, latest=latest
    )
    return _numbers(result)


def _measure(fds: list[int], *, name: str) -> int:
    return core.measure_tree(fds[0], name)


def _remove(fds: list[int], *, name: str) -> None:
    core.remove_tree(fds[0], name)


def _move(fds: list[int], *, name: str, new_name: str) -> None:
    os.rename(name, new_name, src_dir_fd=fds[0], dst_dir_fd=fds[1])


def _copy(fds: list[int], *, layers: list[str], inner: str) -> None:
    copy_from_layers(layers, inner, fds[0], rootless=True, own_user=False, keep_owner=True)


_ACTIONS: dict[str, Callable[..., Any]] = {
    "untar": _untar,
    "untar_alone": _untar_alone,
    "tardiff": _tardiff,
    "copy_layer": _copy_layer,
    "mount_points": _mount_points,
    "changes": _changes,
    "write_tree": _write_tree,
    "measure": _measure,
    "remove": _remove,
    "move": _move,
    "copy": _copy,
}
