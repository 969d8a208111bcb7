"""The exceptions of pyrtc, one tree.

::

    PyrtcError
    ├── UsageError (ValueError)         an option or argument that cannot mean anything
    ├── ImageError                      an image, archive, manifest or reference that is wrong
    │   ├── ImageNotFound (LookupError)
    │   └── DigestMismatch              content is not what its digest, size or diffID says
    ├── RegistryError                   a registry that breaks its protocol or refuses what was asked
    │   ├── RegistryUnreachable         no connection, no answer in time, or a server that is out of order
    │   ├── RegistryDenied              no credentials, or not the right ones
    │   └── RegistryBusy                too many requests; carries .retry_after
    ├── StoreError                      the store on disk: rights, space, damage, a name that is taken
    ├── ContainerError                  a container that is missing, in the wrong state or taken
    │   ├── ContainerNotFound (LookupError)
    │   ├── ContainerFileError (OSError)    a file in a container that cannot be used as asked
    │   │   ├── ContainerFileNotFound (FileNotFoundError)
    │   │   ├── ContainerFileExists (FileExistsError)
    │   │   ├── ContainerFileIsADirectory (IsADirectoryError)
    │   │   ├── ContainerFileNotADirectory (NotADirectoryError)
    │   │   └── ContainerFileDenied (PermissionError)
    │   └── ContainerFailed             check=True and the command did not exit with 0; carries .completed
    ├── NetworkError                    a network that is in use, full, or cannot be set up on this host
    │   ├── NetworkNotFound (LookupError)
    │   └── ClusterError                what hosts share: etcd refuses, holds what cannot be, or lacks something
    │       └── ClusterUnreachable      no member of etcd answers that has a majority; what runs goes on
    ├── StartError                      the container could not be made; carries .step and .errno
    │   ├── CommandNotFound             exit code 127: no such program in the image
    │   └── CommandNotExecutable        exit code 126: it is there but cannot be executed
    ├── LimitError                      a resource limit that this machine or user cannot set
    └── UnsupportedError                a feature that the kernel or the user's rights refuse; the text names a remedy

Each message says what was asked, what went wrong and, where there is something, what to do.
"""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyrtc.container import Completed

__all__ = [
    "ClusterError",
    "ClusterUnreachable",
    "CommandNotExecutable",
    "CommandNotFound",
    "ContainerError",
    "ContainerFailed",
    "ContainerFileDenied",
    "ContainerFileError",
    "ContainerFileExists",
    "ContainerFileIsADirectory",
    "ContainerFileNotADirectory",
    "ContainerFileNotFound",
    "ContainerNotFound",
    "DigestMismatch",
    "ImageError",
    "ImageNotFound",
    "LimitError",
    "NetworkError",
    "NetworkNotFound",
    "PyrtcError",
    "RegistryBusy",
    "RegistryDenied",
    "RegistryError",
    "RegistryUnreachable",
    "StartError",
    "StoreError",
    "UnsupportedError",
    "UsageError",
]


class PyrtcError(Exception):
    """Anything that pyrtc reports. `exit_code` is what the command line exits with."""

    exit_code = 125


class UsageError(PyrtcError, ValueError):
    """An option or argument that cannot mean anything. `command`: the one to ask for help, where it has two words."""

    command = ""


class ImageError(PyrtcError):
    """An image, archive, manifest or reference that is wrong."""


class ImageNotFound(ImageError, LookupError):
    """No image has this name or id."""


class DigestMismatch(ImageError):
    """Content is not what its digest, size or diffID says."""


class RegistryError(PyrtcError):
    """A registry breaks its protocol, or refuses what was asked."""


class RegistryUnreachable(RegistryError):
    """A registry cannot be connected to, does not answer in time, or is out of order."""


class RegistryDenied(RegistryError):
    """A registry wants credentials, or other ones."""


class RegistryBusy(RegistryError):
    """A registry got too many requests.

    Attributes
    ----------
    retry_after: seconds after which it wants to be asked again; None if it did not say.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StoreError(PyrtcError):
    """The store on disk cannot do what was asked: rights, space, damage."""


class ContainerError(PyrtcError):
    """A container that is missing, in the wrong state, or whose name is taken."""


class ContainerNotFound(ContainerError, LookupError):
    """No container has this name or id."""


class ContainerFailed(ContainerError):
    """The command of a container did not end with 0 and check=True was asked for."""

    def __init__(self, message: str, completed: "Completed") -> None:
        super().__init__(message)
        self.completed = completed

    def __reduce__(self) -> tuple[type["ContainerFailed"], tuple[str, "Completed"]]:
        """Let it pass from a worker process to its pool."""
        return type(self), (str(self), self.completed)


class ContainerFileError(ContainerError, OSError):
    """A file in a container, or beside one where it is copied to, cannot be used as asked.

    Attributes
    ----------
    errno, filename: as any OSError has them.
    """

    def __init__(self, message: str, code: int = 0, path: str = "") -> None:
        OSError.__init__(self, code, message, path)

    def __str__(self) -> str:
        """Return the message alone."""
        return str(self.strerror)

    def __reduce__(self) -> tuple[type["ContainerFileError"], tuple[str, int, str]]:
        """Let it pass from a worker process to its pool."""
        return type(self), (str(self.strerror), self.errno or 0, str(self.filename))


class ContainerFileNotFound(ContainerFileError, FileNotFoundError):
    """There is no such file."""


class ContainerFileExists(ContainerFileError, FileExistsError):
    """There is something already."""


class ContainerFileIsADirectory(ContainerFileError, IsADirectoryError):
    """A directory is where a file was expected."""


class ContainerFileNotADirectory(ContainerFileError, NotADirectoryError):
    """Something else is where a directory was expected."""


class ContainerFileDenied(ContainerFileError, PermissionError):
    """The file's permissions, or what it is, forbid it."""


class NetworkError(PyrtcError):
    """A network is in use, has no address left, or cannot be set up on this host."""


class NetworkNotFound(NetworkError, LookupError):
    """No network has this name or id."""


class ClusterError(NetworkError):
    """What hosts share: etcd refuses, holds what cannot be, or lacks what was asked for."""


class ClusterUnreachable(ClusterError):
    """No member of etcd answers that has a majority. What runs goes on; what the hosts must agree on has to wait."""


class StartError(PyrtcError):
    """The container could not be made.

    Attributes
    ----------
    step: what was being done, for example ``mount /proc``.
    errno: the system call's error number, 0 where none is to blame.
    """

    def __init__(self, message: str, *, step: str = "", errno: int = 0) -> None:
        super().__init__(message)
        self.step = step
        self.errno = errno


class CommandNotFound(StartError):
    """The image has no such program."""

    exit_code = 127


class CommandNotExecutable(StartError):
    """The program exists but cannot be executed: no x bit, a directory, a wrong architecture."""

    exit_code = 126


class LimitError(PyrtcError):
    """A resource limit that this machine or user cannot set."""


class UnsupportedError(PyrtcError):
    """A feature that this kernel or the user's rights refuse."""


def reason(code: int) -> str:
    """Return the words for an errno with its name: ``No such file or directory (ENOENT)``."""
    import errno as names

    name = names.errorcode.get(code)
    return f"{os.strerror(code)} ({name})" if name else f"error {code}"
