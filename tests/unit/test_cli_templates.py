import pytest

from pyrtc.cli.templates import printable, render, table
from pyrtc.errors import UsageError

VALUES = {"ID": "abc", "Config": {"Cmd": ["a", "b"], "Labels": {"y": 1, "x": True}, "None": None}, "N": 3}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.ID}}", "abc"),
        ("{{ .ID }}: {{.N}}", "abc: 3"),
        ("{{- .ID -}}", "abc"),
        ("{{json .ID}}", '"abc"'),
        ("{{json .Config.Cmd}}", '["a", "b"]'),
        ("{{.Config.Cmd}}", "[a b]"),
        ("{{.Config.Labels}}", "map[x:true y:1]"),
        ("{{.Config.Missing}}", "<no value>"),
        ("{{.Config.Cmd.Deep}}", "<no value>"),
        (r"{{.ID}}\t{{.N}}\n", "abc\t3\n"),
        ("plain { } text", "plain { } text"),
    ],
)
def test_render(template: str, text: str) -> None:
    assert render(template, VALUES) == text


def test_a_whole_value() -> None:
    assert render("{{json .}}", {"a": 1}) == '{"a": 1}'


@pytest.mark.parametrize(
    "template", ["{{range .Config}}", "{{.ID | upper}}", "{{ID}}", "{{}}", "{{if .ID}}x{{end}}", "{{.ID.}}"]
)
def test_what_is_not_understood_is_refused(template: str) -> None:
    with pytest.raises(UsageError, match="template"):
        render(template, VALUES)


def test_unknown_fields() -> None:
    with pytest.raises(UsageError, match="can't evaluate field Nope; there are ID"):
        render("{{.Nope}}", {}, ("ID",))


def test_table() -> None:
    assert table([("NAME", "SIZE"), ("a", "1"), ("longer", "22")]) == "NAME     SIZE\na        1\nlonger   22"


def test_nothing_steers_the_terminal() -> None:
    assert printable("a\x1b[31mb\n\tü") == "a\\x1b[31mb\n\tü"
