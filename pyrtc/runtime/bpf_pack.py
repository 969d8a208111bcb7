"""Making a compiled seccomp filter small: the kernel checks, translates and compiles each instruction at every load.

libseccomp compares nearly every call number by itself, and once more for each architecture. What a filter answers is
mostly constant over long ranges of numbers, so it is taken apart and written anew:

1. For one architecture and one call number nothing is left of a filter but its answer, or the tests of the call's
   arguments with their answers: the residual. It is the same for all numbers between two that the filter compares with.
2. Neighbouring ranges with the same residual are joined, and a tree of comparisons is built over what remains.
3. The result is taken apart in the same way, and for every range of architectures and numbers that either program tells
   apart both must leave the same residual. Otherwise the original stays in use.

Only what libseccomp writes is understood, which is also all that the kernel can run ahead of time to find the calls
that are always allowed (seccomp_is_const_allow in kernel/seccomp.c). It does that for every number of every
architecture at each load, so the depth of the tree is a cost as well. Anything else is returned as it is.
"""

import warnings

from pyrtc.runtime.bpf_program import ARCH, INSTRUCTION, NUMBER, Graph, NotUnderstoodError, Program
from pyrtc.runtime.bpf_tree import build_tree
from pyrtc.runtime.bpf_writer import write_program

__all__ = ["pack"]

_MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS
_MAX_STEPS = 2_000_000  # instructions looked at, about a second; Docker's rules take a hundred thousand


def pack(program: bytes) -> bytes:
    """Return a filter that answers every call as this one does, with fewer instructions if that can be had.

    Parameters
    ----------
    program: an array of struct sock_filter that the kernel would accept.
    """
    graph = Graph()
    try:
        packed = write_program(graph, build_tree(graph, Program(program, _MAX_STEPS)))
    except NotUnderstoodError:
        return program
    if not len(packed) < len(program) or len(packed) // INSTRUCTION.size > _MAX_INSTRUCTIONS:
        return program
    if not _same(graph, program, packed):
        warnings.warn(
            "a packed seccomp filter does not answer as the one that libseccomp compiled, which is used instead; "
            "please report this with the seccomp profile",
            RuntimeWarning,
            stacklevel=2,
        )
        return program
    return packed


def _same(graph: Graph, original: bytes, packed: bytes) -> bool:
    """Say whether both programs leave the same of every call."""
    try:
        one, other = Program(original), Program(packed)
        for arch in (0, *(one.cuts(ARCH, {}) | other.cuts(ARCH, {}))):
            numbers = one.cuts(NUMBER, {ARCH: arch}) | other.cuts(NUMBER, {ARCH: arch})
            for number in (0, *numbers):
                known = {ARCH: arch, NUMBER: number}
                if one.residual(graph, known) != other.residual(graph, known):
                    return False
    except NotUnderstoodError:
        return False
    return True
