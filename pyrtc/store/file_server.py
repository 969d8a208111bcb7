"""A process that works on the files of one container for this one, where this one lacks the rights or the ids.

ordinary user           in the container's user namespace, as its root: files of subordinate ids are within reach
root, userns auto       as root of the host, but files are made as the container's root: a mount with mapped owners, or
                        the container's own tmpfs, takes no file of an id that it does not know
stopped container       with mounts of its own, in which the container's root is put together

It is on the host's side in everything else: its root, its programs, its /proc. It does what `pyrtc.store.confined`
names, one thing at a time, and ends with its socket.
"""

import errno
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from pyrtc import core, errors
from pyrtc.errors import PyrtcError, StoreError
from pyrtc.ids import IdMaps, write_maps
from pyrtc.store.confined import ACTIONS, Answer
from pyrtc.store.interpreter import program_of

__all__ = ["FileServer", "Here", "serve"]

_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_MAX_FDS = 253  # of one message (SCM_MAX_FD)
_MAX_MESSAGE = 1 << 16


class Here:
    """Does the same in this process."""

    def ask(self, action: str, fds: Sequence[int], **words: Any) -> Answer:  # noqa: ANN401
        """Do one of `pyrtc.store.confined.ACTIONS`.

        Raises
        ------
        OSError, PyrtcError: as it does.
        """
        return ACTIONS[action](list(fds), **words)

    def close(self) -> None:
        """Nothing is held."""


class FileServer:
    """One such process.

    Parameters
    ----------
    maps: have it in a new user namespace with these maps (and with mounts of its own).
    """

    def __init__(self, maps: IdMaps | None = None) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        self._socket = ours
        with theirs:
            program = program_of(__name__, "serve(0)")
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-c", program],
                    stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                ours.close()
                raise StoreError(f"cannot start {sys.executable} to work on a container's files: {error}") from error
        try:
            if maps is not None:
                self.ask("new_namespace", ())
                write_maps(self._process.pid, maps)
                self.ask("take_root", ())
        except BaseException:
            self.close()
            raise

    def ask(self, action: str, fds: Sequence[int], **words: Any) -> Answer:  # noqa: ANN401
        """Have one of `pyrtc.store.confined.ACTIONS`, or of those below, done there.

        Raises
        ------
        OSError, PyrtcError: what it raised. StoreError: the process has died.
        """
        import json

        if len(fds) > _MAX_FDS:
            raise StoreError(f"{len(fds)} directories are more than can be handed over at once ({_MAX_FDS})")
        with self._lock:
            try:
                message = json.dumps({"action": action, **words}).encode()
                socket.send_fds(self._socket, [message], list(fds), socket.MSG_NOSIGNAL)
                answer, returned, _flags, _address = socket.recv_fds(self._socket, _MAX_MESSAGE, _MAX_FDS)
            except OSError as error:
                raise StoreError(f"cannot work on a container's files: {error.strerror}") from error
        for fd in returned:
            os.set_inheritable(fd, False)
        if not answer:
            raise StoreError(f"the process that works on a container's files has ended: {self._last_words()}")
        said: dict[str, Any] = json.loads(answer)
        if said.get("long"):
            with open(returned.pop(0), "rb") as text:
                text.seek(0)
                said = json.load(text)
        if "errno" in said:
            raise OSError(said["errno"], said["text"], said["path"])
        if "kind" in said:
            failure: PyrtcError = getattr(errors, said["kind"], StoreError)(said["text"])
            failure.errno = said["code"]  # type: ignore[attr-defined]
            raise failure
        return said["result"], returned

    def _last_words(self) -> str:
        assert self._process.stderr is not None
        said = self._process.stderr.read()[-500:].decode(errors="replace").strip()
        return said.rpartition("\n")[2]

    def close(self) -> None:
        """End the process, and with it its mounts. May be called again."""
        self._socket.close()
        self._process.kill()
        self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()


# ---- inside ----------------------------------------------------------------------------------------------------------


def serve(fd: int) -> None:
    """Be the process: the socket is descriptor fd."""
    os.umask(0)
    with socket.socket(fileno=fd) as channel:
        while _serve_one(channel):
            pass


def _serve_one(channel: socket.socket) -> bool:
    import json

    message, fds, _flags, _address = socket.recv_fds(channel, 1 << 18, _MAX_FDS)
    if not message:
        return False
    for fd in fds:
        os.set_inheritable(fd, False)
    words = json.loads(message)
    action = words.pop("action")
    returned: list[int] = []
    try:
        result, returned = _ACTIONS[action](fds, **words)
        answer: dict[str, Any] = {"result": result}
    except PyrtcError as error:
        answer = {"kind": type(error).__name__, "text": str(error), "code": getattr(error, "errno", 0)}
    except OSError as error:
        code = error.errno or errno.EIO
        answer = {"errno": code, "text": error.strerror or str(error), "path": error.filename or ""}
    finally:
        for fd in fds:
            os.close(fd)
    text = json.dumps(answer).encode()
    if len(text) > _MAX_MESSAGE:
        memory = os.memfd_create("pyrtc-answer", os.MFD_CLOEXEC)
        with open(memory, "wb", closefd=False) as file:
            file.write(text)
        text, returned = b'{"long": true}', [memory, *returned]
    try:
        socket.send_fds(channel, [text], returned)
    finally:
        for fd in returned:
            os.close(fd)
    return True


def _new_namespace(_fds: list[int]) -> Answer:
    core.unshare(_CLONE_NEWUSER | _CLONE_NEWNS)
    return None, []


def _take_root(_fds: list[int]) -> Answer:
    """Be the namespace's root where it has one. Supplementary groups stay: they may be what opens the user's files."""
    for change in (os.setresgid, os.setresuid):
        try:
            change(0, 0, 0)
        except OSError as error:
            if error.errno != errno.EINVAL:  # the namespace maps one id, which is not 0
                raise
    return None, []


def _join(fds: list[int]) -> Answer:
    core.join_namespace(fds[0])
    return _take_root(fds)


def _make_as(_fds: list[int], *, uid: int, gid: int) -> Answer:
    core.file_ids(uid, gid)
    return None, []


def _mount_root(fds: list[int], *, own_mounts: bool, **words: Any) -> Answer:  # noqa: ANN401
    """Put together the root of a container that is stopped; see `pyrtc.store.mounted`."""
    from pyrtc.store.mounted import put_together

    if own_mounts:
        core.own_mounts()
    return None, [put_together(fds, **words)]


_ACTIONS: dict[str, Callable[..., Answer]] = {
    **ACTIONS,
    "new_namespace": _new_namespace,
    "take_root": _take_root,
    "join": _join,
    "make_as": _make_as,
    "mount_root": _mount_root,
}
