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

import math
import struct
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

__all__ = ["pack"]

_INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter
_MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS
_MAX_OFFSET = 255  # of a conditional jump
_LOAD, _AND, _JUMP, _RETURN = 0x20, 0x54, 0x05, 0x06
_EQUAL, _GREATER, _GREATER_EQUAL, _ANY_BIT = 0x15, 0x25, 0x35, 0x45
_TESTS = (_EQUAL, _GREATER, _GREATER_EQUAL, _ANY_BIT)

_NUMBER, _ARCH, _DATA_SIZE = 0, 4, 64  # in struct seccomp_data
_NOTHING = -1  # the word in the accumulator before the first load
_ALL_BITS = (1 << 32) - 1
_MAX_BLOCKS = 256  # ranges that one test of bits may make
_MAX_STEPS = 2_000_000  # instructions looked at, about a second; Docker's rules take a hundred thousand

# Nanoseconds at load, for choosing between trees: of an instruction in the program, and of one that is run ahead for
# one call number (measured on x86_64; between half and four times the ratio the trees differ by three instructions).
_INSTRUCTION_COST, _STEP_COST = 240.0, 3.4
_NUMBERS = 512  # what the kernel runs ahead of each architecture: a little more than it has calls
_RARE = 0.1  # the weight of what it does not run ahead, so that it is balanced as well
_MAX_EXACT = 20  # leaves of a tree for which the best is searched, in a time that grows with the third power


class _NotUnderstoodError(Exception):
    """The program is outside of what can be taken apart."""


class _Return(NamedTuple):
    value: int


class _Test(NamedTuple):
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


class _Piece(NamedTuple):
    """A range of values, up to the next piece, that leads to a node."""

    low: int
    node: int


class _Graph:
    """Nodes, each different one once, so that equal graphs are equal numbers."""

    def __init__(self) -> None:
        self.nodes: list[_Return | _Test] = []
        self._numbers: dict[_Return | _Test, int] = {}

    def add(self, node: _Return | _Test) -> int:
        if isinstance(node, _Test) and node.yes == node.no:
            return node.yes
        number = self._numbers.setdefault(node, len(self.nodes))
        if number == len(self.nodes):
            self.nodes.append(node)
        return number


class _Program:
    """A program that was checked to consist of nothing but loads, masks, comparisons, jumps and returns."""

    def __init__(self, content: bytes, steps: float = math.inf) -> None:
        if not content or len(content) % _INSTRUCTION.size != 0:
            raise _NotUnderstoodError
        self.instructions = list(_INSTRUCTION.iter_unpack(content))
        self._steps = steps
        end = len(self.instructions)
        for at, (code, true, false, value) in enumerate(self.instructions, start=1):
            if code in _TESTS:
                last = at + max(true, false)
            elif code == _JUMP:
                last = at + value
            elif code == _RETURN:
                continue
            elif code == _AND or (code == _LOAD and value < _DATA_SIZE and value % 4 == 0):
                last = at
            else:
                raise _NotUnderstoodError
            if last >= end:
                raise _NotUnderstoodError

    def cuts(self, word: int, known: Mapping[int, int]) -> set[int]:
        """Return where the outcome of a comparison with the word can change, given the known words."""
        found: set[int] = set()
        start = _State(0, _NOTHING, _ALL_BITS)
        seen, waiting = {start}, [start]
        while waiting:
            step = self._advance(waiting.pop(), known)
            if isinstance(step, _Return):
                continue
            if step.word == word:
                found |= _cuts_of(step)
            for state in (step.yes, step.no):
                if state not in seen:
                    seen.add(state)
                    waiting.append(state)
        return found - {0, 1 << 32}

    def residual(self, graph: _Graph, known: Mapping[int, int]) -> int:
        """Add what is left of the program to the graph, given the known words."""
        start = _State(0, _NOTHING, _ALL_BITS)
        nodes: dict[_State, int] = {}
        steps: dict[_State, _Return | _Branch] = {}
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
                    _Test(step.word, step.mask, step.code, step.operand, nodes[step.yes], nodes[step.no])
                )
            else:
                nodes[state] = graph.add(step)
            waiting.pop()
        return nodes[start]

    def _advance(self, state: _State, known: Mapping[int, int]) -> _Return | _Branch:
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
                        raise _NotUnderstoodError
                    self._count(at - begin)
                    return _Branch(
                        word, mask, code, value, _State(at + true, word, mask), _State(at + false, word, mask)
                    )
                at += true if _outcome(code, content & mask, value) else false
            elif code == _JUMP:
                at += value
            elif code == _LOAD:
                word, mask, content = value, _ALL_BITS, known.get(value)
            elif code == _AND:
                mask &= value
            else:
                self._count(at - begin)
                return _Return(value)

    def _count(self, steps: int) -> None:
        self._steps -= steps
        if self._steps < 0:
            raise _NotUnderstoodError


def pack(program: bytes) -> bytes:
    """Return a filter that answers every call as this one does, with fewer instructions if that can be had.

    Parameters
    ----------
    program: an array of struct sock_filter that the kernel would accept.
    """
    graph = _Graph()
    try:
        packed = _emit(graph, _tree(graph, _Program(program, _MAX_STEPS)))
    except _NotUnderstoodError:
        return program
    if not len(packed) < len(program) or len(packed) // _INSTRUCTION.size > _MAX_INSTRUCTIONS:
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


def _outcome(code: int, value: int, operand: int) -> bool:
    if code == _EQUAL:
        return value == operand
    if code == _GREATER:
        return value > operand
    if code == _GREATER_EQUAL:
        return value >= operand
    return value & operand != 0


def _cuts_of(branch: _Branch) -> set[int]:
    """Return the values at which the outcome of a test can differ from that of the value before."""
    if branch.mask != _ALL_BITS:
        raise _NotUnderstoodError
    if branch.code == _EQUAL:
        return {branch.operand, branch.operand + 1}
    if branch.code == _GREATER:
        return {branch.operand + 1}
    if branch.code == _GREATER_EQUAL:
        return {branch.operand}
    if branch.operand == 0:
        return set()
    block = branch.operand & -branch.operand  # the lowest bit: nothing changes within this many numbers
    if (1 << 32) // block > _MAX_BLOCKS:
        raise _NotUnderstoodError
    return set(range(block, 1 << 32, block))


def _same(graph: _Graph, original: bytes, packed: bytes) -> bool:
    """Say whether both programs leave the same of every call."""
    try:
        one, other = _Program(original), _Program(packed)
        for arch in (0, *(one.cuts(_ARCH, {}) | other.cuts(_ARCH, {}))):
            numbers = one.cuts(_NUMBER, {_ARCH: arch}) | other.cuts(_NUMBER, {_ARCH: arch})
            for number in (0, *numbers):
                known = {_ARCH: arch, _NUMBER: number}
                if one.residual(graph, known) != other.residual(graph, known):
                    return False
    except _NotUnderstoodError:
        return False
    return True


# ---- the tree -------------------------------------------------------------------------------------------------------


def _tree(graph: _Graph, program: _Program) -> int:
    """Add the whole program to the graph: which architecture, which number, which arguments."""
    arches: list[_Piece] = []
    for arch in (0, *sorted(program.cuts(_ARCH, {}))):
        numbers = (0, *sorted(program.cuts(_NUMBER, {_ARCH: arch})))
        pieces = _join(_Piece(low, program.residual(graph, {_ARCH: arch, _NUMBER: low})) for low in numbers)
        highs = [piece.low for piece in pieces[1:]] + [1 << 32]
        weights = [_RARE + max(0, min(high, _NUMBERS) - piece.low) for piece, high in zip(pieces, highs, strict=True)]
        arches.append(_Piece(arch, _Tree(graph, _NUMBER, pieces, weights).build()))
    arches = _join(arches)
    weights = [_RARE if isinstance(graph.nodes[piece.node], _Return) else _NUMBERS for piece in arches]
    return _Tree(graph, _ARCH, arches, weights).build()


def _join(pieces: Iterable[_Piece]) -> list[_Piece]:
    """Leave out the pieces that lead where the one before them does."""
    joined: list[_Piece] = []
    for piece in pieces:
        if not joined or joined[-1].node != piece.node:
            joined.append(piece)
    return joined


class _Tree:
    """Comparisons of one word that lead to the piece it is in.

    A single value between two pieces that lead to the same place is taken out with one test for equality, where
    dividing the range would take two.
    """

    def __init__(self, graph: _Graph, word: int, pieces: Sequence[_Piece], weights: Sequence[float]) -> None:
        self._graph = graph
        self._word = word
        self._pieces = pieces
        self._sums = [0.0]
        for weight in weights:
            self._sums.append(self._sums[-1] + weight)
        self._best: dict[tuple[int, int], tuple[float, int, int]] = {}

    def build(self) -> int:
        return self._divide(0, len(self._pieces) - 1)

    def _weight(self, first: int, last: int) -> float:
        return self._sums[last + 1] - self._sums[first]

    def _exception(self, at: int, first: int, last: int) -> bool:
        """Say whether a piece within first and last is a single value amid two pieces that lead to the same place."""
        pieces = self._pieces
        return (
            first < at < last
            and pieces[at + 1].low - pieces[at].low == 1
            and pieces[at - 1].node == pieces[at + 1].node
        )

    def _divide(self, first: int, last: int) -> int:
        """Divide a long range where the weights are even and no exception is cut through, a short one at its best."""
        if last - first < _MAX_EXACT:
            return self._write(first, last)
        tests = self._estimates(first, last)

        def cost(middle: int) -> float:
            sides = self._weight(first, middle), self._weight(middle + 1, last)
            return tests[middle - first] * _INSTRUCTION_COST + _STEP_COST * sum(
                side * math.log2(side) for side in sides
            )

        middle = min(range(first, last), key=cost)
        return self._split(middle, self._divide(first, middle), self._divide(middle + 1, last))

    def _estimates(self, first: int, last: int) -> list[int]:
        """Return the number of tests on both sides of each place at which the range can be divided."""
        from_first, from_last = [0], [0]
        for counts, order, step in (
            (from_first, range(first + 1, last), 1),
            (from_last, range(last - 1, first, -1), -1),
        ):
            taken = None
            for at in order:
                # Two neighbours cannot both be exceptions. The second test of one is counted where its end is.
                if taken != at - step and self._exception(at, first, last):
                    taken = at
                    counts.append(counts[-1] + 1)
                else:
                    counts.append(counts[-1] + (taken != at - step))
        return [left + right for left, right in zip(from_first, reversed(from_last), strict=True)]

    def _cheapest(self, first: int, last: int) -> tuple[float, int, int]:
        """Return the cost of the best tree, and the pieces before and after its first test.

        Either they are neighbours, to be divided, or one is the other's neighbour but one: what lies between is an
        exception at one end of the range, which goes on without it.
        """
        if first == last:
            return 0.0, first, last
        known = self._best.get((first, last))
        if known is not None:
            return known
        choices = [
            (self._cheapest(first, middle)[0] + self._cheapest(middle + 1, last)[0], middle, middle + 1)
            for middle in range(first, last)
        ]
        if self._exception(last - 1, first, last):
            choices.append((self._cheapest(first, last - 2)[0], last - 2, last))
        if last - first > 2 and self._exception(first + 1, first, last):
            choices.append((self._cheapest(first + 2, last)[0], first, first + 2))
        cost, before, after = min(choices)
        best = cost + _INSTRUCTION_COST + _STEP_COST * self._weight(first, last), before, after
        self._best[first, last] = best
        return best

    def _write(self, first: int, last: int) -> int:
        """Add the best tree to the graph."""
        if first == last:
            return self._pieces[first].node
        _, before, after = self._cheapest(first, last)
        if after == before + 1:
            return self._split(before, self._write(first, before), self._write(after, last))
        rest = self._write(first, before) if after == last else self._write(after, last)
        single = self._pieces[before + 1]
        return self._graph.add(_Test(self._word, _ALL_BITS, _EQUAL, single.low, single.node, rest))

    def _split(self, middle: int, low: int, high: int) -> int:
        return self._graph.add(_Test(self._word, _ALL_BITS, _GREATER_EQUAL, self._pieces[middle + 1].low, high, low))


# ---- writing --------------------------------------------------------------------------------------------------------


class _Entry(NamedTuple):
    """A way into a node: at its test, or before it at the mask or at the load."""

    node: int
    before: int


_AT_TEST, _AT_MASK, _AT_LOAD = range(3)


def _emit(graph: _Graph, root: int) -> bytes:
    """Write the program from its last instruction to its first, so that every jump leads to what is already there."""
    order = _children_first(graph, root)
    entries = {_Entry(root, _AT_LOAD)}
    for number in order:
        node = graph.nodes[number]
        if isinstance(node, _Test):
            entries |= {_entry(graph, node, node.yes), _entry(graph, node, node.no)}
    writer = _Writer(graph)
    for number in order:
        node = graph.nodes[number]
        if isinstance(node, _Test):
            writer.test(node, _entry(graph, node, node.yes), _entry(graph, node, node.no))
            writer.enter(_Entry(number, _AT_TEST))
            wanted = max(entry.before for entry in (_Entry(number, way) for way in range(3)) if entry in entries)
            if wanted >= _AT_MASK and node.mask != _ALL_BITS:
                writer.add(_AND, node.mask)
            writer.enter(_Entry(number, _AT_MASK))
            if wanted == _AT_LOAD:
                writer.add(_LOAD, node.word)
                writer.enter(_Entry(number, _AT_LOAD))
    if isinstance(graph.nodes[root], _Return):
        writer.reach(_Entry(root, _AT_LOAD))
    return writer.content()


def _children_first(graph: _Graph, root: int) -> list[int]:
    """Return the nodes of a graph, each after those that it leads to."""
    order: list[int] = []
    done: set[int] = set()
    waiting = [root]
    while waiting:
        number = waiting[-1]
        node = graph.nodes[number]
        open_ones = [] if isinstance(node, _Return) else [after for after in (node.yes, node.no) if after not in done]
        if number in done or not open_ones:
            waiting.pop()
            if number not in done:
                done.add(number)
                order.append(number)
        else:
            waiting += open_ones
    return order


def _entry(graph: _Graph, origin: _Test, target: int) -> _Entry:
    """Return where a test goes on, which depends on what it leaves in the accumulator."""
    node = graph.nodes[target]
    if isinstance(node, _Return):
        return _Entry(target, _AT_LOAD)
    if (origin.word, origin.mask) == (node.word, node.mask):
        return _Entry(target, _AT_TEST)
    if origin.word == node.word and origin.mask & node.mask == node.mask:
        return _Entry(target, _AT_MASK)
    return _Entry(target, _AT_LOAD)


class _Writer:
    """Instructions in reverse order, and where each entry can be reached: a later copy is a nearer one."""

    def __init__(self, graph: _Graph) -> None:
        self._graph = graph
        self._reversed: list[tuple[int, int, int, int]] = []
        self._positions: dict[_Entry, int] = {}

    def add(self, code: int, value: int, true: int = 0, false: int = 0) -> None:
        self._reversed.append((code, true, false, value))

    def enter(self, entry: _Entry) -> None:
        """Let the instruction added last be this entry."""
        self._positions[entry] = len(self._reversed) - 1

    def test(self, node: _Test, yes: _Entry, no: _Entry) -> None:
        """Add a comparison, and before it in this order a copy or a jump for what is too far away."""
        while not (self._is_near(yes) and self._is_near(no)):
            self.reach(no if self._is_near(yes) else yes)
        self.add(node.code, node.operand, self._offset(yes), self._offset(no))

    def reach(self, entry: _Entry) -> None:
        """Add an instruction that does what the entry does."""
        node = self._graph.nodes[entry.node]
        if isinstance(node, _Return):
            self.add(_RETURN, node.value)
        else:
            self.add(_JUMP, self._offset(entry))
        self.enter(entry)

    def content(self) -> bytes:
        return b"".join(_INSTRUCTION.pack(*instruction) for instruction in reversed(self._reversed))

    def _offset(self, entry: _Entry) -> int:
        return len(self._reversed) - 1 - self._positions[entry]

    def _is_near(self, entry: _Entry) -> bool:
        return entry in self._positions and self._offset(entry) <= _MAX_OFFSET
