"""The part of Go's text/template that people type after --format.

Actions are ``{{.Field.Inner}}``, ``{{json .X}}`` and the other functions (template_functions.py), pipelines
(``{{.X | json}}``), parentheses, ``{{range .X}}...{{else}}...{{end}}``,
``{{if ...}}...{{else if ...}}...{{else}}...{{end}}``, ``{{with .X}}...{{end}}``, variables (``{{$x := .X}}``,
``{{range $key, $value := .X}}``), comments, and ``{{-``/``-}}`` that trim white space. What is missing here is an error
that says so, never something else.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pyrtc.cli.template_functions import FUNCTIONS, go_text
from pyrtc.cli.template_parser import Node, parse, parsing_error
from pyrtc.errors import UsageError

__all__ = ["render"]

_ESCAPES = {"\\t": "\t", "\\n": "\n"}
_MAX_OUTPUT = 64 << 20  # characters: a loop in a loop over a large value ends somewhere

Known = Sequence[str] | None


def render(template: str, values: Mapping[str, object], known: Known = None) -> str:
    """Fill a template from values.

    Parameters
    ----------
    known: the fields there may be, for things of one shape; None: whatever values hold, and what is missing has no
    value.

    Raises
    ------
    UsageError: the template is none, asks for a field that cannot be, or uses what this does not know.
    """
    for escape, character in _ESCAPES.items():
        template = template.replace(escape, character)
    return _Run(values, known).text(parse(template))


class _Run:
    """One run of a template over one value."""

    def __init__(self, values: Mapping[str, object], known: Known) -> None:
        self._values = values
        self._known = known
        self._variables: dict[str, object] = {"$": values}
        self._parts: list[str] = []
        self._size = 0

    def text(self, body: list[Node]) -> str:
        self._body(body, self._values)
        return "".join(self._parts)

    def _write(self, text: str) -> None:
        self._size += len(text)
        if self._size > _MAX_OUTPUT:
            raise UsageError("template: the output is larger than 64 MiB")
        self._parts.append(text)

    def _body(self, body: list[Node], dot: object) -> None:
        for node in body:
            kind = node[0]
            if kind == "text":
                self._write(node[1])
            elif kind == "print":
                self._write(go_text(self._value(node[1], dot)))
            elif kind == "set":
                self._variables[node[1]] = self._value(node[2], dot)
            elif kind == "range":
                self._range(node, dot)
            else:
                _, names, condition, then, other = node
                value = self._value(condition, dot)
                if names:
                    self._variables[names[0]] = value
                if value:
                    self._body(then, value if kind == "with" else dot)
                else:
                    self._body(other, dot)

    def _range(self, node: Node, dot: object) -> None:
        _, names, source, then, other = node
        value = self._value(source, dot)
        pairs: list[tuple[object, object]]
        if isinstance(value, Mapping):
            pairs = [(key, value[key]) for key in sorted(value)]
        elif isinstance(value, (list, tuple)):
            pairs = list(enumerate(value))
        elif value is None:
            pairs = []
        else:
            raise UsageError(f"template: range can't iterate over {go_text(value)}")
        for key, item in pairs:
            for name, part in zip(names, (item,) if len(names) == 1 else (key, item), strict=False):
                self._variables[name] = part
            self._body(then, item)
        if not pairs:
            self._body(other, dot)

    def _value(self, node: Node, dot: object) -> Any:  # noqa: ANN401  (a value of whatever shape the document has)
        kind = node[0]
        if kind == "value":
            return node[1]
        if kind == "field":
            return self._fields(dot, node[1])
        if kind == "variable":
            if node[1] not in self._variables:
                raise parsing_error(f"undefined variable {node[1]!r}")
            return self._variables[node[1]]
        if kind == "of":
            return self._fields(self._value(node[1], dot), node[2])
        _, name, arguments = node
        function = FUNCTIONS[name]
        values = [self._value(argument, dot) for argument in arguments]
        try:
            return function(*values)
        except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            raise UsageError(f"template: error calling {name}: {error}") from None

    def _fields(self, value: object, names: Sequence[str]) -> object:
        for name in names:
            if self._known is not None and value is self._values and name not in self._known:
                raise UsageError(f"template: can't evaluate field {name}; there are {', '.join(self._known)}")
            if value is not None and not isinstance(value, Mapping):
                raise UsageError(f"template: can't evaluate field {name} in {go_text(value)[:60]}")
            value = value.get(name) if value is not None else None
        return value
