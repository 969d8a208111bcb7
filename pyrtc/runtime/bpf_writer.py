"""Writing a graph of tests and answers as a program of the Berkeley packet filter."""

from typing import NamedTuple

from pyrtc.runtime.bpf_program import ALL_BITS, AND, INSTRUCTION, JUMP, LOAD, RETURN, Graph, Return, Test

__all__ = ["write_program"]

_MAX_OFFSET = 255  # of a conditional jump
_AT_TEST, _AT_MASK, _AT_LOAD = range(3)


class _Entry(NamedTuple):
    """A way into a node: at its test, or before it at the mask or at the load."""

    node: int
    before: int


def write_program(graph: Graph, root: int) -> bytes:
    """Write the program from its last instruction to its first, so that every jump leads to what is already there."""
    order = _children_first(graph, root)
    entries = {_Entry(root, _AT_LOAD)}
    for number in order:
        node = graph.nodes[number]
        if isinstance(node, Test):
            entries |= {_entry(graph, node, node.yes), _entry(graph, node, node.no)}
    writer = _Writer(graph)
    for number in order:
        node = graph.nodes[number]
        if isinstance(node, Test):
            writer.test(node, _entry(graph, node, node.yes), _entry(graph, node, node.no))
            writer.enter(_Entry(number, _AT_TEST))
            wanted = max(entry.before for entry in (_Entry(number, way) for way in range(3)) if entry in entries)
            if wanted >= _AT_MASK and node.mask != ALL_BITS:
                writer.add(AND, node.mask)
            writer.enter(_Entry(number, _AT_MASK))
            if wanted == _AT_LOAD:
                writer.add(LOAD, node.word)
                writer.enter(_Entry(number, _AT_LOAD))
    if isinstance(graph.nodes[root], Return):
        writer.reach(_Entry(root, _AT_LOAD))
    return writer.content()


def _children_first(graph: Graph, root: int) -> list[int]:
    """Return the nodes of a graph, each after those that it leads to."""
    order: list[int] = []
    done: set[int] = set()
    waiting = [root]
    while waiting:
        number = waiting[-1]
        node = graph.nodes[number]
        open_ones = [] if isinstance(node, Return) else [after for after in (node.yes, node.no) if after not in done]
        if number in done or not open_ones:
            waiting.pop()
            if number not in done:
                done.add(number)
                order.append(number)
        else:
            waiting += open_ones
    return order


def _entry(graph: Graph, origin: Test, target: int) -> _Entry:
    """Return where a test goes on, which depends on what it leaves in the accumulator."""
    node = graph.nodes[target]
    if isinstance(node, Return):
        return _Entry(target, _AT_LOAD)
    if (origin.word, origin.mask) == (node.word, node.mask):
        return _Entry(target, _AT_TEST)
    if origin.word == node.word and origin.mask & node.mask == node.mask:
        return _Entry(target, _AT_MASK)
    return _Entry(target, _AT_LOAD)


class _Writer:
    """Instructions in reverse order, and where each entry can be reached: a later copy is a nearer one."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._reversed: list[tuple[int, int, int, int]] = []
        self._positions: dict[_Entry, int] = {}

    def add(self, code: int, value: int, true: int = 0, false: int = 0) -> None:
        self._reversed.append((code, true, false, value))

    def enter(self, entry: _Entry) -> None:
        """Let the instruction added last be this entry."""
        self._positions[entry] = len(self._reversed) - 1

    def test(self, node: Test, yes: _Entry, no: _Entry) -> None:
        """Add a comparison, and before it in this order a copy or a jump for what is too far away."""
        while not (self._is_near(yes) and self._is_near(no)):
            self.reach(no if self._is_near(yes) else yes)
        self.add(node.code, node.operand, self._offset(yes), self._offset(no))

    def reach(self, entry: _Entry) -> None:
        """Add an instruction that does what the entry does."""
        node = self._graph.nodes[entry.node]
        if isinstance(node, Return):
            self.add(RETURN, node.value)
        else:
            self.add(JUMP, self._offset(entry))
        self.enter(entry)

    def content(self) -> bytes:
        return b"".join(INSTRUCTION.pack(*instruction) for instruction in reversed(self._reversed))

    def _offset(self, entry: _Entry) -> int:
        return len(self._reversed) - 1 - self._positions[entry]

    def _is_near(self, entry: _Entry) -> bool:
        return entry in self._positions and self._offset(entry) <= _MAX_OFFSET
