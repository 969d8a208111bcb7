"""Taking a compiled seccomp filter apart: what is left of it for one architecture, one call number."""

import math
import struct
from collections.abc import Mapping
from typing import NamedTuple

__all__ = [
    "ALL_BITS",
    "AND",
    "ARCH",
    "EQUAL",
    "GREATER_EQUAL",
    "INSTRUCTION",
    "JUMP",
    "LOAD",
    "NUMBER",
    "RETURN",
    "Graph",
    "NotUnderstoodError",
    "Program",
    "Return",
    "Test",
]

INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter
LOAD, AND, JUMP, RETURN = 0x20, 0x54, 0x05, 0x06
EQUAL, _GREATER, GREATER_EQUAL, _ANY_BIT = 0x15, 0x25, 0x35, 0x45
_TESTS = (EQUAL, _GREATER, GREATER_EQUAL, _ANY_BIT)
NUMBER, ARCH, _DATA_SIZE = 0, 4, 64  # in struct seccomp_data
_NOTHING = -1  # the word in the accumulator before the first load
ALL_BITS = (1 << 32) - 1
_MAX_BLOCKS = 256  # ranges that one test of bits may make


class NotUnderstoodError(Exception):
    """The program is outside of what can be taken apart."""


class Return(NamedTuple):
    """An answer: what the filter returns."""

    value: int


class Test(NamedTuple):
    """A comparison of a word of struct seccomp_data under a mask; yes and no are nodes of the same graph."""

    word: int
    mask: int
    code: int
    operand: int
    yes: int
    no: int


class _State(NamedTuple):
    """The next instruction, and what is in the accumulator."""

    at: int
    word: int
    mask: int


class _Branch(NamedTuple):
    """A test whose outcome is open, and the states after it."""

    word: int
    mask: int
    code: int
    operand: int
    yes: _State
    no: _State


class Graph:
    """Nodes, each different one once, so that equal graphs are equal numbers."""

    def __init__(self) -> None:
        self.nodes: list[Return | Test] = []
        self._numbers: dict[Return | Test, int] = {}

    def add(self, node: Return | Test) -> int:
        """Return a node's number; of a test with one outcome, that of where it leads."""
        if isinstance(node, Test) and node.yes == node.no:
            return node.yes
        number = self._numbers.setdefault(node, len(self.nodes))
        if number == len(self.nodes):
            self.nodes.append(node)
        return number


class Program:
    """A program that was checked to consist of nothing but loads, masks, comparisons, jumps and returns."""

    def __init__(self, content: bytes, steps: float = math.inf) -> None:
        if not content or len(content) % INSTRUCTION.size != 0:
            raise NotUnderstoodError
        self.instructions = list(INSTRUCTION.iter_unpack(content))
        self._steps = steps
        end = len(self.instructions)
        for at, (code, true, false, value) in enumerate(self.instructions, start=1):
            if code in _TESTS:
                last = at + max(true, false)
            elif code == JUMP:
                last = at + value
            elif code == RETURN:
                continue
            elif code == AND or (code == LOAD and value < _DATA_SIZE and value % 4 == 0):
                last = at
            else:
                raise NotUnderstoodError
            if last >= end:
                raise NotUnderstoodError

    def cuts(self, word: int, known: Mapping[int, int]) -> set[int]:
        """Return where the outcome of a comparison with the word can change, given the known words."""
        found: set[int] = set()
        start = _State(0, _NOTHING, ALL_BITS)
        seen, waiting = {start}, [start]
        while waiting:
            step = self._advance(waiting.pop(), known)
            if isinstance(step, Return):
                continue
            if step.word == word:
                found |= _cuts_of(step)
            for state in (step.yes, step.no):
                if state not in seen:
                    seen.add(state)
                    waiting.append(state)
        return found - {0, 1 << 32}

    def residual(self, graph: Graph, known: Mapping[int, int]) -> int:
        """Add what is left of the program to the graph, given the known words."""
        start = _State(0, _NOTHING, ALL_BITS)
        nodes: dict[_State, int] = {}
        steps: dict[_State, Return | _Branch] = {}
        waiting = [start]
        while waiting:
            state = waiting[-1]
            step = steps.get(state)
            if step is None:
                step = steps[state] = self._advance(state, known)
            if isinstance(step, _Branch):
                open_ones = [after for after in (step.yes, step.no) if after not in nodes]
                if open_ones:
                    waiting += open_ones
                    continue
                nodes[state] = graph.add(
                    Test(step.word, step.mask, step.code, step.operand, nodes[step.yes], nodes[step.no])
                )
            else:
                nodes[state] = graph.add(step)
            waiting.pop()
        return nodes[start]

    def _advance(self, state: _State, known: Mapping[int, int]) -> Return | _Branch:
        """Run to the next return or the next test of a word that is not known."""
        at, word, mask = state
        instructions = self.instructions
        content = known.get(word)
        begin = at
        while True:
            code, true, false, value = instructions[at]
            at += 1
            if code in _TESTS:
                if content is None:
                    if word == _NOTHING:
                        raise NotUnderstoodError
                    self._count(at - begin)
                    return _Branch(
                        word, mask, code, value, _State(at + true, word, mask), _State(at + false, word, mask)
                    )
                at += true if _outcome(code, content & mask, value) else false
            elif code == JUMP:
                at += value
            elif code == LOAD:
                word, mask, content = value, ALL_BITS, known.get(value)
            elif code == AND:
                mask &= value
            else:
                self._count(at - begin)
                return Return(value)

    def _count(self, steps: int) -> None:
        self._steps -= steps
        if self._steps < 0:
            raise NotUnderstoodError


def _outcome(code: int, value: int, operand: int) -> bool:
    if code == EQUAL:
        return value == operand
    if code == _GREATER:
        return value > operand
    if code == GREATER_EQUAL:
        return value >= operand
    return value & operand != 0


def _cuts_of(branch: _Branch) -> set[int]:
    """Return the values at which the outcome of a test can differ from that of the value before."""
    if branch.mask != ALL_BITS:
        raise NotUnderstoodError
    if branch.code == EQUAL:
        return {branch.operand, branch.operand + 1}
    if branch.code == _GREATER:
        return {branch.operand + 1}
    if branch.code == GREATER_EQUAL:
        return {branch.operand}
    if branch.operand == 0:
        return set()
    block = branch.operand & -branch.operand  # the lowest bit: nothing changes within this many numbers
    if (1 << 32) // block > _MAX_BLOCKS:
        raise NotUnderstoodError
    return set(range(block, 1 << 32, block))
