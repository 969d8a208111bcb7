import pytest

from pyrtc.cli.tables import one_line, print_rows, printable, table
from pyrtc.cli.templates import render
from pyrtc.errors import UsageError

VALUES = {
    "ID": "abc",
    "Config": {"Cmd": ["a", "b"], "Labels": {"y": 1, "x": True}, "None": None, "Listed": {"Labels": "a=1,b=2"}},
    "N": 3,
    "Ports": {"80/tcp": [{"HostPort": "8080"}]},
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.ID}}", "abc"),
        ("{{ .ID }}: {{.N}}", "abc: 3"),
        ("{{- .ID -}}", "abc"),
        ("{{json .ID}}", '"abc"'),
        ("{{json .Config.Cmd}}", '["a","b"]'),
        ("{{.Config.Cmd}}", "[a b]"),
        ("{{.Config.Labels}}", "map[x:true y:1]"),
        ("{{.Config.Missing}}", "<no value>"),
        (r"{{.ID}}\t{{.N}}\n", "abc\t3\n"),
        ("plain { } text", "plain { } text"),
        ("{{.ID | upper | json}}", '"ABC"'),
        ("{{if .ID}}x{{end}}", "x"),
        ("{{if .Missing}}x{{else if eq .N 3}}y{{else}}z{{end}}", "y"),
        ("{{if and .ID (gt .N 3)}}x{{else}}z{{end}}", "z"),
        ("{{if not .Missing}}x{{end}}", "x"),
        ("{{range .Config.Cmd}}<{{.}}>{{end}}", "<a><b>"),
        ("{{range $i, $x := .Config.Cmd}}{{$i}}={{$x}};{{end}}", "0=a;1=b;"),
        ("{{range $k, $v := .Config.Labels}}{{$k}}:{{$v}} {{end}}", "x:true y:1 "),
        ("{{range .Config.None}}x{{else}}none{{end}}", "none"),
        ("{{range .Config.Cmd}}{{$.ID}}{{end}}", "abcabc"),
        ("{{with .Config}}{{index .Cmd 1}}{{end}}", "b"),
        ("{{with $c := .Config}}{{$c.Labels.y}}{{end}}", "1"),
        ('{{index .Config.Labels "y"}}', "1"),
        ('{{(index .Ports "80/tcp" 0).HostPort}}', "8080"),
        ('{{(index (index .Ports "80/tcp") 0).HostPort}}', "8080"),
        ('{{join .Config.Cmd ", "}}', "a, b"),
        ("{{len .Config.Cmd}} {{len .ID}}", "2 3"),
        ('{{println "a" .N}}', "a 3\n"),
        ('{{printf "%s-%05d-%q-%%" .ID .N "x"}}', 'abc-00003-"x"-%'),
        ('{{$x := "v"}}{{$x}}{{`raw\\n`}}', "vraw\n"),
        ("a {{- /* nothing */ -}} b", "ab"),
        ("a {{- .N -}} b", "a3b"),
        ("{{slice .ID 1}}{{slice .ID 0 1}}", "bca"),
        ('{{.Config.Label "y"}}{{.Config.Label "none"}}', "1"),
        ('{{.Config.Listed.Label "b"}}', "2"),
        ("{{true}}{{1.5}}", "true1.5"),
    ],
)
def test_render(template: str, text: str) -> None:
    assert render(template, VALUES) == text


def test_a_whole_value() -> None:
    assert render("{{json .}}", {"a": 1}) == '{"a":1}'


@pytest.mark.parametrize(
    "template",
    [
        "{{range .Config}}",
        "{{ID}}",
        "{{}}",
        "{{.ID.}}",
        "{{.ID",
        "{{end}}",
        "{{else}}",
        "{{if .ID}}{{else range .ID}}{{end}}",
        "{{.Config.Cmd.Deep}}",
        "{{.ID.Deep}}",
        "{{index .Config.Cmd 2}}",
        "{{index .N 1}}",
        "{{range .N}}{{end}}",
        '{{template "x"}}',
        "{{(.ID}}",
        "{{.ID .N}}",
        "{{.ID | .N}}",
        "{{$x}}",
        "{{json}}",
        "{{json .ID .N}}",
        '{{printf "%d" .ID}}',
        '{{printf "%s"}}',
        '{{"unclosed}}',
        "{{gt .ID .N}}",
        "{{range $a, $b, $c := .ID}}{{end}}",
        "{{" + "(" * 200 + ".ID" + ")" * 200 + "}}",
        "{{if .ID}}" * 200 + "{{end}}" * 200,
    ],
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


def test_output_is_bounded() -> None:
    template = "{{range $.L}}" * 4 + "x" * 1000 + "{{end}}" * 4
    with pytest.raises(UsageError, match="64 MiB"):
        render(template, {"L": list(range(50))})


def test_one_thing_is_one_line(capsys):
    assert one_line("a\x1b[31mb\n\tü\u202e") == "a\\x1b[31mb\\n\\tü\\u202e"
    headings = {"Image": "IMAGE", "Name": "NAME"}
    print_rows([{"Image": "x\nreal-image", "Name": "a"}], "table", ("Image", "Name"), headings)
    assert capsys.readouterr().out.splitlines() == ["IMAGE           NAME", "x\\nreal-image   a"]


def test_a_path_of_a_container_cannot_look_like_two(capsys, monkeypatch):
    from contextlib import nullcontext
    from types import SimpleNamespace

    from pyrtc.cli import rw_layer

    changes = (SimpleNamespace(kind="A", path="/x\nC /etc/passwd"), SimpleNamespace(kind="D", path="/\x1b[2J"))
    container = SimpleNamespace(diff=lambda: changes)
    engine = SimpleNamespace(containers=SimpleNamespace(get=lambda _name: container))
    monkeypatch.setattr(rw_layer, "opened_engine", lambda: nullcontext(engine))
    assert rw_layer.diff(["c"]) == 0
    assert capsys.readouterr().out.splitlines() == ["A /x\\nC /etc/passwd", "D /\\x1b[2J"]
