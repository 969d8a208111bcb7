"""The part of Go's text/template that people type after --format.

Actions are ``{{.Field.Inner}}``, ``{{json .X}}`` and the other functions below, pipelines (``{{.X | json}}``),
parentheses, ``{{range .X}}...{{else}}...{{end}}``, ``{{if ...}}...{{else if ...}}...{{else}}...{{end}}``,
``{{with .X}}...{{end}}``, variables (``{{$x := .X}}``, ``{{range $key, $value := .X}}``), comments, and ``{{-``/``-}}``
that trim white space. What is missing here is an error that says so, never something else.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pyrtc.errors import UsageError

__all__ = ["render"]

_ACTION = re.compile(r"\{\{(- )?\s*(/\*.*?\*/|(?:\"(?:\\.|[^\"\\])*\"|`[^`]*`|[^\"`])*?)\s*( -)?\}\}", re.DOTALL)
_TOKEN = re.compile(
    r"\s*(?:(?P<string>\"(?:\\.|[^\"\\])*\"|`[^`]*`)|(?P<number>-?[0-9]+(?:\.[0-9]+)?)"
    r"|(?P<field>(?:\.[A-Za-z_][A-Za-z0-9_]*)+|\.)|(?P<variable>\$[A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)"
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_]*)|(?P<mark>:=|[()|,=]))"
)
_ESCAPES = {"\\t": "\t", "\\n": "\n"}
_MAX_OUTPUT = 64 << 20  # characters: a loop in a loop over a large value ends somewhere
_MAX_DEPTH = 100

Known = Sequence[str] | None
_Node = Any
_Token = tuple[str, str]


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
    return _Run(values, known).text(_parse(template))


# ---- from text to a tree --------------------------------------------------------------------------------------------


def _fail(text: str) -> UsageError:
    return UsageError(f"template parsing error: {text}")


def _parse(template: str) -> list[_Node]:
    pieces = list(_pieces(template))
    body, rest = _block(pieces, 0, (), 0)
    if rest != len(pieces):
        raise _fail(f"unexpected {{{{{pieces[rest][1]}}}}}")
    return body


def _pieces(template: str) -> Iterator[tuple[str, str]]:
    """Yield ("text", ...) and ("action", ...), with white space trimmed where actions ask for it."""
    at, trim = 0, False
    for match in _ACTION.finditer(template):
        text = template[at : match.start()]
        if "{{" in text:
            raise _fail(f"unclosed action: {text[text.index('{{') :][:40]}")
        text = text.lstrip() if trim else text
        if match[1]:
            text = text.rstrip()
        if text:
            yield "text", text
        if not match[2].startswith("/*"):
            yield "action", match[2]
        at, trim = match.end(), bool(match[3])
    rest = template[at:]
    if "{{" in rest:
        raise _fail(f"unclosed action: {rest[rest.index('{{') :][:40]}")
    if trim:
        rest = rest.lstrip()
    if rest:
        yield "text", rest


def _block(pieces: list[tuple[str, str]], at: int, ends: tuple[str, ...], depth: int) -> tuple[list[_Node], int]:
    """Read until one of the words in ends; returns what was read and where that word is."""
    if depth > _MAX_DEPTH:
        raise _fail("blocks are nested too deep")
    body: list[_Node] = []
    while at < len(pieces):
        kind, content = pieces[at]
        if kind == "text":
            body.append(("text", content))
            at += 1
            continue
        word, _, rest = content.partition(" ")
        if word in ("end", "else"):
            if word not in ends:
                raise _fail(f"unexpected {{{{{content}}}}}")
            return body, at
        if word in ("if", "range", "with"):
            node, at = _control(pieces, at, word, rest, depth)
            body.append(node)
            continue
        if word in ("define", "template", "block", "break", "continue"):
            raise _fail(f"{{{{{word}}}}} is not supported")
        body.append(_action(content))
        at += 1
    if ends:
        raise _fail("unexpected end of the template: {{end}} is missing")
    return body, at


def _control(pieces: list[tuple[str, str]], at: int, word: str, rest: str, depth: int) -> tuple[_Node, int]:
    names: tuple[str, ...] = ()
    tokens = _tokens(rest)
    marks = [text for kind, text in tokens if kind == "mark"]
    if ":=" in marks:
        position = tokens.index(("mark", ":="))
        names = tuple(text for kind, text in tokens[:position] if kind == "variable")
        wanted = [("variable", name) for name in names]
        spelled = wanted if len(names) == 1 else [*wanted[:1], ("mark", ","), *wanted[1:]]
        if tokens[:position] != spelled or len(names) > (2 if word == "range" else 1):
            raise _fail(f"{{{{{word} {rest}}}}}")
        tokens = tokens[position + 1 :]
    value = _Pipeline(tokens, f"{word} {rest}").parse()
    body, at = _block(pieces, at + 1, ("end", "else"), depth + 1)
    other: list[_Node] = []
    content = pieces[at][1]
    if content.startswith("else"):
        more = content[len("else") :].strip()
        if more:
            next_word, _, next_rest = more.partition(" ")
            if next_word != word or word == "range":
                raise _fail(f"unexpected {{{{{content}}}}}")
            # {{else if x}}...{{end}} is {{else}}{{if x}}...{{end}}{{end}}
            node, at = _control(pieces, at, next_word, next_rest, depth + 1)
            return (word, names, value, body, [node]), at
        other, at = _block(pieces, at + 1, ("end",), depth + 1)
    return (word, names, value, body, other), at + 1


def _action(content: str) -> _Node:
    tokens = _tokens(content)
    if len(tokens) > 2 and tokens[0][0] == "variable" and tokens[1] in (("mark", ":="), ("mark", "=")):
        return "set", tokens[0][1], _Pipeline(tokens[2:], content).parse()
    return "print", _Pipeline(tokens, content).parse()


def _tokens(text: str) -> list[_Token]:
    tokens = []
    at = 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise _fail(f"unexpected {text[at:].strip()[:20]!r} in {{{{{text}}}}}")
        tokens.append((match.lastgroup, match[match.lastgroup]))
        at = match.end()
    return tokens


class _Pipeline:
    """Reads the tokens of one action."""

    def __init__(self, tokens: list[_Token], content: str) -> None:
        self._tokens = tokens
        self._content = content
        self._at = 0
        self._depth = 0

    def parse(self) -> _Node:
        node = self._pipeline()
        if self._at != len(self._tokens):
            raise _fail(f"unexpected {self._tokens[self._at][1]!r} in {{{{{self._content}}}}}")
        return node

    def _pipeline(self) -> _Node:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise _fail("parentheses are nested too deep")
        node = self._command(None)
        while self._peek() == ("mark", "|"):
            self._at += 1
            node = self._command(node)
        self._depth -= 1
        return node

    def _command(self, piped: _Node) -> _Node:
        head = self._peek()
        if head is not None and head[0] == "word" and head[1] not in ("true", "false", "nil"):
            self._at += 1
            if head[1] not in _FUNCTIONS:
                raise _fail(f"function {head[1]!r} not defined; there are {', '.join(sorted(_FUNCTIONS))}")
            arguments = []
            while (argument := self._operand()) is not None:
                arguments.append(argument)
            return "call", head[1], [*arguments, *([piped] if piped is not None else [])]
        node = self._operand()
        if node is None:
            raise _fail(f"missing value in {{{{{self._content}}}}}")
        if piped is not None:
            raise _fail(f"a value cannot take a value in {{{{{self._content}}}}}")
        extra = self._operand()
        if extra is not None:
            # {{.Label "name"}}: the only method that lists of containers and images have.
            if node[0] == "field" and node[1][-1] == "Label":
                return "call", "label", [("field", [*node[1][:-1], "Labels"]), extra]
            raise _fail(f"{self._content.split()[0]} is no function, and cannot take arguments")
        return node

    def _operand(self) -> _Node | None:
        token = self._peek()
        if token is None:
            return None
        kind, text = token
        if kind == "mark" and text != "(":
            return None
        self._at += 1
        if kind == "mark":
            node = self._pipeline()
            if self._peek() != ("mark", ")"):
                raise _fail(f"unclosed parenthesis in {{{{{self._content}}}}}")
            self._at += 1
            following = self._peek()
            if following is not None and following[0] == "field" and following[1] != ".":
                self._at += 1
                return "of", node, following[1][1:].split(".")
            return node
        if kind == "field":
            return "field", text[1:].split(".") if text != "." else []
        if kind == "variable":
            name, *fields = text.split(".")
            return "of", ("variable", name), fields
        if kind == "string":
            return "value", text[1:-1] if text[0] == "`" else _unquote(text)
        if kind == "number":
            return "value", float(text) if "." in text else int(text)
        if text in ("true", "false", "nil"):
            return "value", {"true": True, "false": False, "nil": None}[text]
        return "call", self._function(text), []

    def _function(self, name: str) -> str:
        if name not in _FUNCTIONS:
            raise _fail(f"function {name!r} not defined; there are {', '.join(sorted(_FUNCTIONS))}")
        return name

    def _peek(self) -> _Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None


def _unquote(text: str) -> str:
    try:
        value = json.loads(text, strict=False)  # Go's escapes are JSON's, as far as people use them
    except ValueError:
        raise _fail(f"bad string {text}") from None
    return str(value)


# ---- from a tree to text --------------------------------------------------------------------------------------------


class _Run:
    """One run of a template over one value."""

    def __init__(self, values: Mapping[str, object], known: Known) -> None:
        self._values = values
        self._known = known
        self._variables: dict[str, object] = {"$": values}
        self._parts: list[str] = []
        self._size = 0

    def text(self, body: list[_Node]) -> str:
        self._body(body, self._values)
        return "".join(self._parts)

    def _write(self, text: str) -> None:
        self._size += len(text)
        if self._size > _MAX_OUTPUT:
            raise UsageError("template: the output is larger than 64 MiB")
        self._parts.append(text)

    def _body(self, body: list[_Node], dot: object) -> None:
        for node in body:
            kind = node[0]
            if kind == "text":
                self._write(node[1])
            elif kind == "print":
                self._write(_go(self._value(node[1], dot)))
            elif kind == "set":
                self._variables[node[1]] = self._value(node[2], dot)
            elif kind == "range":
                self._range(node, dot)
            else:
                _, names, condition, then, other = node
                value = self._value(condition, dot)
                if names:
                    self._variables[names[0]] = value
                if _truth(value):
                    self._body(then, value if kind == "with" else dot)
                else:
                    self._body(other, dot)

    def _range(self, node: _Node, dot: object) -> None:
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
            raise UsageError(f"template: range can't iterate over {_go(value)}")
        for key, item in pairs:
            for name, part in zip(names, (item,) if len(names) == 1 else (key, item), strict=False):
                self._variables[name] = part
            self._body(then, item)
        if not pairs:
            self._body(other, dot)

    def _value(self, node: _Node, dot: object) -> Any:  # noqa: ANN401  (a value of whatever shape the document has)
        kind = node[0]
        if kind == "value":
            return node[1]
        if kind == "field":
            return self._fields(dot, node[1])
        if kind == "variable":
            if node[1] not in self._variables:
                raise _fail(f"undefined variable {node[1]!r}")
            return self._variables[node[1]]
        if kind == "of":
            return self._fields(self._value(node[1], dot), node[2])
        _, name, arguments = node
        function = _FUNCTIONS[name]
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
                raise UsageError(f"template: can't evaluate field {name} in {_go(value)[:60]}")
            value = value.get(name) if value is not None else None
        return value


def _truth(value: object) -> bool:
    return bool(value)


def _go(value: object) -> str:
    """Write a value as Go's fmt does."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return f"map[{' '.join(f'{key}:{_go(value[key])}' for key in sorted(value))}]"
    if isinstance(value, (list, tuple)):
        return f"[{' '.join(map(_go, value))}]"
    return str(value)


def _index(value: Any, *keys: Any) -> object:  # noqa: ANN401
    for key in keys:
        if value is None:
            raise ValueError("index of untyped nil")
        if isinstance(value, Mapping):
            value = value.get(key)
            continue
        if not isinstance(value, (list, tuple, str)) or not isinstance(key, int) or isinstance(key, bool):
            raise TypeError(f"can't index {_go(value)[:40]} with {_go(key)}")
        if not 0 <= key < len(value):
            raise IndexError(f"index out of range: {key}")
        value = value[key]
    return value


def _label(labels: Any, name: str) -> object:  # noqa: ANN401
    """Return one label, out of a document's mapping or out of a list's ``a=b,c=d``; empty where there is none."""
    if isinstance(labels, str):
        labels = dict(pair.partition("=")[::2] for pair in labels.split(","))
    return (labels or {}).get(name, "")


def _slice(value: Any, start: int = 0, end: int | None = None) -> object:  # noqa: ANN401
    if not 0 <= start <= (len(value) if end is None else end) <= len(value):
        raise IndexError("slice index out of range")
    return value[start:end]


def _print(*values: object, end: str = "") -> str:
    """Go's Sprint puts a blank between two operands that are no strings, Sprintln between all."""
    if end:
        return " ".join(map(_go, values)) + end
    parts: list[str] = []
    for number, value in enumerate(values):
        if number and not isinstance(value, str) and not isinstance(values[number - 1], str):
            parts.append(" ")
        parts.append(_go(value))
    return "".join(parts)


def _printf(form: str, *values: object) -> str:
    left = list(values)

    def fill(match: re.Match[str]) -> str:
        if match[2] == "%":
            return "%"
        if not left:
            raise ValueError(f"missing value for {match[0]}")
        value = left.pop(0)
        if match[2] == "d" and not isinstance(value, int):
            raise ValueError(f"{match[0]} needs a whole number, not {_go(value)[:40]}")
        if match[2] == "q":
            return f"%{match[1]}s" % json.dumps(_go(value), ensure_ascii=False)
        return f"%{match[1]}{'s' if match[2] == 'v' else match[2]}" % (value if match[2] in "df" else _go(value))

    text = re.sub(r"%([-0-9.]*)([sdvqf%])", fill, form)
    if left:
        raise ValueError(f"{len(left)} values too many for {form!r}")
    return text


def _compare(test: Callable[[Any, Any], bool]) -> Callable[..., bool]:
    return lambda left, right: test(left, right)


def _and(*values: object) -> object:
    return next((value for value in values if not _truth(value)), values[-1])


def _or(*values: object) -> object:
    return next((value for value in values if _truth(value)), values[-1])


_FUNCTIONS: dict[str, Callable[..., object]] = {
    "and": _and,
    "eq": lambda first, *others: any(first == other for other in others),
    "ge": _compare(lambda left, right: left >= right),
    "gt": _compare(lambda left, right: left > right),
    "index": _index,
    "label": _label,
    "join": lambda values, separator: str(separator).join(map(_go, values or ())),
    "json": lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")),
    "le": _compare(lambda left, right: left <= right),
    "len": lambda value: len(value) if value is not None else 0,
    "lower": lambda value: str(value).lower(),
    "lt": _compare(lambda left, right: left < right),
    "ne": _compare(lambda left, right: left != right),
    "not": lambda value: not _truth(value),
    "or": _or,
    "pad": lambda text, before, after: " " * before + str(text) + " " * after if text else text,
    "print": _print,
    "printf": _printf,
    "println": lambda *values: _print(*values, end="\n"),
    "slice": _slice,
    "split": lambda text, separator: str(text).split(str(separator)),
    "title": lambda value: str(value).title(),
    "truncate": lambda text, size: str(text)[:size],
    "upper": lambda value: str(value).upper(),
}
