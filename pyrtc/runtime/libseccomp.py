"""Compiling a decided profile to BPF with libseccomp, which is loaded only here and only when a filter is compiled."""

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from pyrtc.errors import UnsupportedError, UsageError, reason
from pyrtc.runtime.seccomp_profile import ARCHITECTURES, Profile

__all__ = ["compile_to_bpf", "version"]

_DECLARATIONS = """
struct scmp_version { unsigned int major; unsigned int minor; unsigned int micro; };
struct scmp_arg_cmp { unsigned int arg; int op; uint64_t datum_a; uint64_t datum_b; };
const struct scmp_version *seccomp_version(void);
void *seccomp_init(uint32_t def_action);
void seccomp_release(void *ctx);
int seccomp_arch_add(void *ctx, uint32_t arch_token);
int seccomp_attr_set(void *ctx, int attr, uint32_t value);
int seccomp_syscall_resolve_name_arch(uint32_t arch_token, const char *name);
int seccomp_syscall_resolve_name(const char *name);
int seccomp_rule_add_array(void *ctx, uint32_t action, int syscall, unsigned int count, const struct scmp_arg_cmp *);
int seccomp_export_bpf(void *ctx, int fd);
"""
_OTHER_ARCHITECTURE, _OPTIMIZE = 2, 8  # enum scmp_filter_attr: SCMP_FLTATR_ACT_BADARCH, SCMP_FLTATR_CTL_OPTIMIZE
_KILL_PROCESS, _BINARY_TREE = 0x80000000, 2
_UNKNOWN = -1  # __NR_SCMP_ERROR
_MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS

_X86_64, _X32 = ARCHITECTURES["SCMP_ARCH_X86_64"], ARCHITECTURES["SCMP_ARCH_X32"]
_X32_BIT = 0x40000000
_ENOSYS = 0x00050000 | 38

# struct sock_filter, and the instructions that _enosys_stub needs.
_INSTRUCTION = struct.Struct("=HBBI")
_LOAD, _RETURN, _JUMP = 0x20, 0x06, 0x05
_JUMP_EQUAL, _JUMP_GREATER, _JUMP_GREATER_EQUAL = 0x15, 0x25, 0x35
_NUMBER_OFFSET, _ARCH_OFFSET = 0, 4  # in struct seccomp_data


#: scmp_filter_ctx: cffi's types are made when the library is loaded.
_Handle = Any


@cache
def _library() -> tuple[Any, Any]:
    from cffi import FFI

    ffi = FFI()
    ffi.cdef(_DECLARATIONS)
    try:
        return ffi, ffi.dlopen("libseccomp.so.2")
    except OSError as error:
        raise UnsupportedError(
            f"cannot compile the seccomp filter: {error}; install the package libseccomp2 (libseccomp on Fedora, Arch "
            "and Alpine), or run without a filter with seccomp=unconfined"
        ) from None


def version() -> str:
    """Return libseccomp's version.

    Raises
    ------
    UnsupportedError: there is no libseccomp; names the package.
    """
    _, library = _library()
    found = library.seccomp_version()
    return f"{found.major}.{found.minor}.{found.micro}"


def compile_to_bpf(profile: Profile) -> bytes:
    """Return the filter as an array of struct sock_filter.

    A call of an architecture beyond the profile's ends the process: its meaning was never looked up, so no answer would
    be safe. libseccomp by itself, and so runc, would end the thread only; what is left of such a process can go on to
    exit with 0 as if nothing had happened.

    Raises
    ------
    UnsupportedError: there is no libseccomp, or it refuses a rule.
    UsageError: the filter is larger than the kernel takes, or denies a call that this libseccomp does not know.
    """
    ffi, library = _library()
    with _context(profile.default.value) as context:
        for architecture in profile.architectures[1:]:
            _check(library.seccomp_arch_add(context, architecture), "add an architecture")
        _check(library.seccomp_attr_set(context, _OTHER_ARCHITECTURE, _KILL_PROCESS), "refuse other architectures")
        # Comparing call numbers one by one would cost each start a millisecond: the kernel runs the filter for every
        # number when it is loaded. Versions before 2.5 have no tree and refuse the attribute.
        library.seccomp_attr_set(context, _OPTIMIZE, _BINARY_TREE)
        for rule in profile.rules:
            number = library.seccomp_syscall_resolve_name(rule.name.encode())
            if number == _UNKNOWN:
                if rule.action.permits or not profile.default.permits:
                    continue  # left out, the call is denied
                raise UsageError(
                    f"the seccomp profile denies {rule.name}, which libseccomp {version()} does not know: it would be "
                    "allowed; correct the name or install a newer libseccomp"
                )
            comparisons = ffi.new(
                "struct scmp_arg_cmp[]",
                [(item.index, item.operator, item.value, item.value_two) for item in rule.comparisons],
            )
            _check(
                library.seccomp_rule_add_array(context, rule.action.value, number, len(rule.comparisons), comparisons),
                f"add the rule for {rule.name}",
            )
        program = _enosys_stub(profile) + _export(context)
    if len(program) // _INSTRUCTION.size > _MAX_INSTRUCTIONS:
        raise UsageError(
            f"the seccomp profile makes a filter of {len(program) // _INSTRUCTION.size} instructions; the kernel takes "
            f"{_MAX_INSTRUCTIONS}"
        )
    return program


@contextmanager
def _context(default: int) -> Iterator[_Handle]:
    ffi, library = _library()
    context = library.seccomp_init(default)
    if context == ffi.NULL:
        raise UnsupportedError("cannot compile the seccomp filter: libseccomp refuses its default action")
    try:
        yield context
    finally:
        library.seccomp_release(context)


def _check(result: int, step: str) -> None:
    if result < 0:
        raise UnsupportedError(f"cannot compile the seccomp filter: cannot {step}: libseccomp: {reason(-result)}")


def _export(context: _Handle) -> bytes:
    """Return the program; version 2.5 can write it to a descriptor only."""
    _, library = _library()
    fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    try:
        _check(library.seccomp_export_bpf(context, fd), "write the program")
        size = os.fstat(fd).st_size
        return os.pread(fd, size, 0)
    finally:
        os.close(fd)


def _enosys_stub(profile: Profile) -> bytes:
    """Return instructions that answer calls newer than the profile with ENOSYS and leave the others to what follows.

    A C library tries a new call first and the old one when the kernel says that there is no such call; with EPERM it
    gives up. So what came after the youngest call that the profile knows is said not to exist, as runc does. A profile
    whose default permits needs none.
    """
    if profile.default.permits:
        return b""
    youngest = {token: number for token in profile.architectures if (number := _youngest(profile, token)) >= 0}
    program = [(_LOAD, 0, 0, _ARCH_OFFSET)]
    blocks = [_stub_block(token, youngest) for token in youngest if token != _X32]
    rest = sum(len(block) for block in blocks)
    for block in blocks:
        rest -= len(block)
        program += block[:-1]
        program.append((_JUMP, 0, 0, rest))
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in program)


def _stub_block(token: int, youngest: dict[int, int]) -> list[tuple[int, int, int, int]]:
    """Return one architecture's part: a jump over it, the comparison, and last a jump to the end, to be filled in.

    x86_64 and x32 are one architecture to the kernel; a bit of the call's number tells them apart.
    """
    tail = [(_RETURN, 0, 0, _ENOSYS), (_JUMP, 0, 0, 0)]
    if token != _X86_64:
        compare = [(_JUMP_GREATER, 0, 1, youngest[token])]
    elif _X32 in youngest:
        compare = [
            (_JUMP_GREATER_EQUAL, 1, 0, _X32_BIT),
            (_JUMP_GREATER, 1, 2, youngest[token]),
            (_JUMP_GREATER, 0, 1, youngest[_X32] | _X32_BIT),
        ]
    else:
        compare = [(_JUMP_GREATER_EQUAL, 2, 0, _X32_BIT), (_JUMP_GREATER, 0, 1, youngest[token])]
    body = [(_LOAD, 0, 0, _NUMBER_OFFSET), *compare, *tail]
    return [(_JUMP_EQUAL, 0, len(body), token), *body]


def _youngest(profile: Profile, token: int) -> int:
    """Return the highest number among the profile's calls; numbers below 0 are calls that the architecture lacks."""
    _, library = _library()
    numbers = (library.seccomp_syscall_resolve_name_arch(token, name.encode()) for name in profile.names)
    return max((number & ~_X32_BIT for number in numbers if number >= 0), default=-1)
