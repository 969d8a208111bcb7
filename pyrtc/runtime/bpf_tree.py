"""A tree of comparisons over the ranges of call numbers, and of architectures, that a filter tells apart."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pyrtc.runtime.bpf_program import ALL_BITS, ARCH, EQUAL, GREATER_EQUAL, NUMBER, Graph, Program, Return, Test

__all__ = ["build_tree"]

# Nanoseconds at load, for choosing between trees: of an instruction in the program, and of one that is run ahead for
# one call number (measured on x86_64; between half and four times the ratio the trees differ by three instructions).
_INSTRUCTION_COST, _STEP_COST = 240.0, 3.4
_NUMBERS = 512  # what the kernel runs ahead of each architecture: a little more than it has calls
_RARE = 0.1  # the weight of what it does not run ahead, so that it is balanced as well
_MAX_EXACT = 20  # leaves of a tree for which the best is searched, in a time that grows with the third power


class _Piece(NamedTuple):
    """A range of values, up to the next piece, that leads to a node."""

    low: int
    node: int


def build_tree(graph: Graph, program: Program) -> int:
    """Add the whole program to the graph: which architecture, which number, which arguments."""
    arches: list[_Piece] = []
    for arch in (0, *sorted(program.cuts(ARCH, {}))):
        numbers = (0, *sorted(program.cuts(NUMBER, {ARCH: arch})))
        pieces = _join(_Piece(low, program.residual(graph, {ARCH: arch, NUMBER: low})) for low in numbers)
        highs = [piece.low for piece in pieces[1:]] + [1 << 32]
        weights = [_RARE + max(0, min(high, _NUMBERS) - piece.low) for piece, high in zip(pieces, highs, strict=True)]
        arches.append(_Piece(arch, _Tree(graph, NUMBER, pieces, weights).build()))
    arches = _join(arches)
    weights = [_RARE if isinstance(graph.nodes[piece.node], Return) else _NUMBERS for piece in arches]
    return _Tree(graph, ARCH, arches, weights).build()


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

    def __init__(self, graph: Graph, word: int, pieces: Sequence[_Piece], weights: Sequence[float]) -> None:
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
        return self._graph.add(Test(self._word, ALL_BITS, EQUAL, single.low, single.node, rest))

    def _split(self, middle: int, low: int, high: int) -> int:
        return self._graph.add(Test(self._word, ALL_BITS, GREATER_EQUAL, self._pieces[middle + 1].low, high, low))
