"""The seccomp filter of a container: Docker's default rules or a profile of the user, compiled once and kept.

The rules of profiles/default.json are those of Docker (github.com/moby/profiles, Apache-2.0).

Compiling and packing take a tenth of a second, so filters are kept in a directory, named by everything that goes into
them, and in this process. A kept filter is a wall that was built earlier: it is used only when nobody else could have
touched it.
"""

import binascii
import contextlib
import os
import stat
from collections.abc import Mapping
from functools import cache

__all__ = ["cached_filter", "compile_profile"]

_FORMAT = b"pyrtc-seccomp 3\n"  # in the key and the file: raise the number when the compiler or bpf_pack changes
_MAX_PROGRAM = 8 * 4096
_MAX_REMEMBERED = 64
_LIBRARY_DIRECTORIES = (
    f"/usr/lib/{os.uname().machine}-linux-gnu",
    f"/lib/{os.uname().machine}-linux-gnu",
    "/usr/lib64",
    "/lib64",
    "/usr/lib",
    "/lib",
    "/usr/local/lib",
)

_remembered: dict[tuple[bytes | None, int], bytes] = {}


def compile_profile(
    profile: Mapping[str, object] | str | os.PathLike[str] | None,
    *,
    capabilities: int,
    kernel: tuple[int, int] | None = None,
    machine: str | None = None,
) -> bytes:
    """Compile a profile for one container.

    Parameters
    ----------
    profile: in Docker's format, as a file of at most 1 MiB or a document; None is Docker's default.
    capabilities: the container's bounding set, as a bit mask.
    kernel, machine: default to those of this machine.

    Returns
    -------
    An array of struct sock_filter for PR_SET_SECCOMP.

    Raises
    ------
    UsageError: the profile is wrong; says what and where.
    UnsupportedError: there is no libseccomp; names the package.
    """
    from pyrtc.runtime.seccomp_profile import parse

    document = profile if isinstance(profile, Mapping) else parse(_content(profile))
    return _compile(document, capabilities, kernel or _kernel(), machine or os.uname().machine)


def cached_filter(
    cache_dir: str | os.PathLike[str], profile: str | os.PathLike[str] | None = None, *, capabilities: int
) -> bytes:
    """Return the compiled filter of a profile, from this process's memory, the cache directory or libseccomp.

    Parameters
    ----------
    cache_dir: made with mode 0700 when it is missing. Used only while it belongs to this user and nobody else can write
        there; what is in it is checked before use. Without it everything works, more slowly.
    profile: a file in Docker's format; None is Docker's default.
    capabilities: the container's bounding set, as a bit mask.

    Raises
    ------
    UsageError, UnsupportedError: as compile_profile().
    """
    content = None if profile is None else _content(profile)
    remembered = _remembered.get((content, capabilities))
    if remembered is not None:
        return remembered
    whole = _content(None) if content is None else content
    directory = _open_directory(cache_dir)
    try:
        origin = _origin(whole, capabilities)
        program = None if directory is None else _load(directory, origin)
        if program is None:
            program = _compile_content(whole, capabilities)
            if directory is not None:
                _keep(directory, origin, program)
    finally:
        if directory is not None:
            os.close(directory)
    if len(_remembered) >= _MAX_REMEMBERED:
        _remembered.clear()
    _remembered[content, capabilities] = program
    return program


@cache
def _default_content() -> bytes:
    with open(f"{os.path.dirname(__file__)}/profiles/default.json", "rb") as file:
        return file.read()


def _content(profile: str | os.PathLike[str] | None) -> bytes:
    if profile is None:
        return _default_content()
    from pyrtc.runtime.seccomp_profile import read

    return read(profile)


def _compile_content(content: bytes, capabilities: int) -> bytes:
    from pyrtc.runtime.seccomp_profile import parse

    return _compile(parse(content), capabilities, _kernel(), os.uname().machine)


def _compile(document: Mapping[str, object], capabilities: int, kernel: tuple[int, int], machine: str) -> bytes:
    from pyrtc.runtime.bpf_pack import pack
    from pyrtc.runtime.libseccomp import compile_to_bpf
    from pyrtc.runtime.seccomp_profile import decide

    return pack(compile_to_bpf(decide(document, capabilities=capabilities, kernel=kernel, machine=machine)))


def _kernel() -> tuple[int, int]:
    major, minor, *_ = os.uname().release.split(".")
    digits = minor[: len(minor) - len(minor.lstrip("0123456789"))]
    return int(major), int(digits or 0)


def _origin(content: bytes, capabilities: int) -> bytes:
    """Return everything that goes into a filter, which is kept beside it and compared whole.

    A digest would need hashlib, which takes longer to import than all of this takes to do.
    """
    parts = (b"%x" % capabilities, os.uname().release.encode(), os.uname().machine.encode(), _library(), content)
    return _FORMAT + b"".join(b"%d:%b\n" % (len(part), part) for part in parts)


def _name(origin: bytes) -> str:
    return f"{binascii.crc32(origin):08x}"


def _checked(program: bytes) -> bytes:
    return binascii.crc32(program).to_bytes(4, "big") + program


@cache
def _library() -> bytes:
    """Say which libseccomp would compile without loading it: its file's real name, size and time, else its version."""
    for directory in _LIBRARY_DIRECTORIES:
        try:
            path = os.path.realpath(f"{directory}/libseccomp.so.2", strict=True)
            status = os.stat(path)
        except OSError:
            continue
        return os.fsencode(f"{path} {status.st_size} {status.st_mtime_ns}")
    from pyrtc.runtime.libseccomp import version

    return version().encode()


def _is_ours(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _open_directory(path: str | os.PathLike[str]) -> int | None:
    """Return a descriptor of the cache directory, None where there can be none or where others could write."""
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    if _is_ours(os.fstat(directory)):
        return directory
    os.close(directory)
    return None


def _load(directory: int, origin: bytes) -> bytes | None:
    """Return a kept filter, None unless it is whole, has this origin, and is nobody else's."""
    try:
        fd = os.open(_name(origin), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return None
    limit = len(origin) + 4 + _MAX_PROGRAM
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or not _is_ours(status) or status.st_size > limit:
        os.close(fd)
        return None
    with os.fdopen(fd, "rb") as file:
        content = file.read(limit)
    program = content[len(origin) + 4 :]
    if not program or len(program) % 8 or content != origin + _checked(program):
        return None
    return program


def _keep(directory: int, origin: bytes, program: bytes) -> None:
    """Write a filter so that its name appears with its whole content or not at all.

    That it could not be kept costs only time, so failing is not an error.
    """
    name = _name(origin)
    temporary = f".{name}.{os.getpid()}.{os.urandom(4).hex()}"
    content = origin + _checked(program)
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
    except OSError:
        return
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=directory)
