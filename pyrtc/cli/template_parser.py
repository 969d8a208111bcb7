"""From the text of a template to a tree: actions, blocks, pipelines, operands."""

import json
import re
from collections.abc import Iterator
from typing import Any

from pyrtc.cli.template_functions import FUNCTIONS
from pyrtc.errors import UsageError

__all__ = ["Node", "parse", "parsing_error"]

_ACTION = re.compile(r"\{\{(- )?\s*(/\*.*?\*/|(?:\"(?:\\.|[^\"\\])*\"|`[^`]*`|[^\"`])*?)\s*( -)?\}\}", re.DOTALL)
_TOKEN = re.compile(
    r"\s*(?:(?P<string>\"(?:\\.|[^\"\\])*\"|`[^`]*`)|(?P<number>-?[0-9]+(?:\.[0-9]+)?)"
    r"|(?P<field>(?:\.[A-Za-z_][A-Za-z0-9_]*)+|\.)|(?P<variable>\$[A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)"
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_]*)|(?P<mark>:=|[()|,=]))"
)
_MAX_DEPTH = 100

Node = Any  # a tuple that begins with what kind of node it is
_Token = tuple[str, str]


def parsing_error(text: str) -> UsageError:
    """Return what is to be raised for a template that is none."""
    return UsageError(f"template parsing error: {text}")


def parse(template: str) -> list[Node]:
    """Return the nodes of a template; raises UsageError where it is none."""
    pieces = list(_pieces(template))
    body, rest = _block(pieces, 0, (), 0)
    if rest != len(pieces):
        raise parsing_error(f"unexpected {{{{{pieces[rest][1]}}}}}")
    return body


def _pieces(template: str) -> Iterator[tuple[str, str]]:
    """Yield ("text", ...) and ("action", ...), with white space trimmed where actions ask for it."""
    at, trim = 0, False
    for match in _ACTION.finditer(template):
        text = template[at : match.start()]
        if "{{" in text:
            raise parsing_error(f"unclosed action: {text[text.index('{{') :][:40]}")
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
        raise parsing_error(f"unclosed action: {rest[rest.index('{{') :][:40]}")
    if trim:
        rest = rest.lstrip()
    if rest:
        yield "text", rest


def _block(pieces: list[tuple[str, str]], at: int, ends: tuple[str, ...], depth: int) -> tuple[list[Node], int]:
    """Read until one of the words in ends; returns what was read and where that word is."""
    if depth > _MAX_DEPTH:
        raise parsing_error("blocks are nested too deep")
    body: list[Node] = []
    while at < len(pieces):
        kind, content = pieces[at]
        if kind == "text":
            body.append(("text", content))
            at += 1
            continue
        word, _, rest = content.partition(" ")
        if word in ("end", "else"):
            if word not in ends:
                raise parsing_error(f"unexpected {{{{{content}}}}}")
            return body, at
        if word in ("if", "range", "with"):
            node, at = _control(pieces, at, word, rest, depth)
            body.append(node)
            continue
        if word in ("define", "template", "block", "break", "continue"):
            raise parsing_error(f"{{{{{word}}}}} is not supported")
        body.append(_action(content))
        at += 1
    if ends:
        raise parsing_error("unexpected end of the template: {{end}} is missing")
    return body, at


def _control(pieces: list[tuple[str, str]], at: int, word: str, rest: str, depth: int) -> tuple[Node, int]:
    names: tuple[str, ...] = ()
    tokens = _tokens(rest)
    marks = [text for kind, text in tokens if kind == "mark"]
    if ":=" in marks:
        position = tokens.index(("mark", ":="))
        names = tuple(text for kind, text in tokens[:position] if kind == "variable")
        wanted = [("variable", name) for name in names]
        spelled = wanted if len(names) == 1 else [*wanted[:1], ("mark", ","), *wanted[1:]]
        if tokens[:position] != spelled or len(names) > (2 if word == "range" else 1):
            raise parsing_error(f"{{{{{word} {rest}}}}}")
        tokens = tokens[position + 1 :]
    value = _Pipeline(tokens, f"{word} {rest}").parse()
    body, at = _block(pieces, at + 1, ("end", "else"), depth + 1)
    other: list[Node] = []
    content = pieces[at][1]
    if content.startswith("else"):
        more = content[len("else") :].strip()
        if more:
            next_word, _, next_rest = more.partition(" ")
            if next_word != word or word == "range":
                raise parsing_error(f"unexpected {{{{{content}}}}}")
            # {{else if x}}...{{end}} is {{else}}{{if x}}...{{end}}{{end}}
            node, at = _control(pieces, at, next_word, next_rest, depth + 1)
            return (word, names, value, body, [node]), at
        other, at = _block(pieces, at + 1, ("end",), depth + 1)
    return (word, names, value, body, other), at + 1


def _action(content: str) -> Node:
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
            raise parsing_error(f"unexpected {text[at:].strip()[:20]!r} in {{{{{text}}}}}")
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

    def parse(self) -> Node:
        node = self._pipeline()
        if self._at != len(self._tokens):
            raise parsing_error(f"unexpected {self._tokens[self._at][1]!r} in {{{{{self._content}}}}}")
        return node

    def _pipeline(self) -> Node:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise parsing_error("parentheses are nested too deep")
        node = self._command(None)
        while self._peek() == ("mark", "|"):
            self._at += 1
            node = self._command(node)
        self._depth -= 1
        return node

    def _command(self, piped: Node) -> Node:
        head = self._peek()
        if head is not None and head[0] == "word" and head[1] not in ("true", "false", "nil"):
            self._at += 1
            if head[1] not in FUNCTIONS:
                raise parsing_error(f"function {head[1]!r} not defined; there are {', '.join(sorted(FUNCTIONS))}")
            arguments = []
            while (argument := self._operand()) is not None:
                arguments.append(argument)
            return "call", head[1], [*arguments, *([piped] if piped is not None else [])]
        node = self._operand()
        if node is None:
            raise parsing_error(f"missing value in {{{{{self._content}}}}}")
        if piped is not None:
            raise parsing_error(f"a value cannot take a value in {{{{{self._content}}}}}")
        extra = self._operand()
        if extra is not None:
            # {{.Label "name"}}: the only method that lists of containers and images have.
            if node[0] == "field" and node[1][-1] == "Label":
                return "call", "label", [("field", [*node[1][:-1], "Labels"]), extra]
            raise parsing_error(f"{self._content.split()[0]} is no function, and cannot take arguments")
        return node

    def _operand(self) -> Node | None:
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
                raise parsing_error(f"unclosed parenthesis in {{{{{self._content}}}}}")
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
        if name not in FUNCTIONS:
            raise parsing_error(f"function {name!r} not defined; there are {', '.join(sorted(FUNCTIONS))}")
        return name

    def _peek(self) -> _Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None


def _unquote(text: str) -> str:
    try:
        value = json.loads(text, strict=False)  # Go's escapes are JSON's, as far as people use them
    except ValueError:
        raise parsing_error(f"bad string {text}") from None
    return str(value)
