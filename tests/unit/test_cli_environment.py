"""Variables and labels, alone and in files."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrtc.cli.environment import label, label_file, parse_env_lines, variable, variable_file
from pyrtc.errors import UsageError

HOST = {"HOME": "/root", "EMPTY": ""}


def test_variable_has_its_value_or_the_hosts():
    assert variable("A=1", HOST) == ("A", "1")
    assert variable("A=", HOST) == ("A", "")
    assert variable("A=b=c", HOST) == ("A", "b=c")
    assert variable("HOME", HOST) == ("HOME", "/root")
    assert variable("EMPTY", HOST) == ("EMPTY", "")
    assert variable("MISSING", HOST) is None


@pytest.mark.parametrize("word", ["", "=x", "A=\0"])
def test_no_variable(word):
    with pytest.raises(UsageError):
        variable(word, HOST)


def test_label():
    assert label("a=b") == ("a", "b")
    assert label("a") == ("a", "")
    with pytest.raises(UsageError):
        label("=b")


def test_file_of_variables(tmp_path):
    file = tmp_path / "env"
    file.write_bytes(
        b"\xef\xbb\xbf# a comment\n"
        b"A=1\n"
        b"\n"
        b"   B=  spaces stay  \n"
        b'Q="quoted"\n'
        b"C=#no comment\r\n"
        b"   # indented comment\n"
        b"HOME\n"
        b"MISSING\n"
        b"LAST=no newline"
    )
    assert variable_file(str(file), HOST) == (
        ("A", "1"),
        ("B", "  spaces stay  "),
        ("Q", '"quoted"'),
        ("C", "#no comment"),
        ("HOME", "/root"),
        ("LAST", "no newline"),
    )


def test_file_of_labels(tmp_path):
    file = tmp_path / "labels"
    file.write_text("a=b\nHOME\n")
    assert label_file(str(file)) == (("a", "b"), ("HOME", ""))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"=x\n", "line 1 has no variable name"),
        (b"ok=1\nA B=x\n", "line 2: .*white space"),
        (b"A =x\n", "white space"),
        (b"A=\xff\n", "byte 2 is not UTF-8"),
        (b"A=\0\n", "NUL"),
    ],
)
def test_bad_files_are_refused_by_line(tmp_path, content, text):
    file = tmp_path / "env"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=text):
        variable_file(str(file), HOST)


def test_a_name_with_nul():
    with pytest.raises(UsageError, match="NUL"):
        label_file("a\0b")


def test_missing_file(tmp_path):
    with pytest.raises(UsageError, match="cannot read it: No such file"):
        variable_file(str(tmp_path / "nothing"), HOST)
    with pytest.raises(UsageError, match="directory"):
        variable_file(str(tmp_path), HOST)


@given(
    st.dictionaries(
        st.text(min_size=1).filter(
            lambda name: not any(c.isspace() or c in "=\0#" for c in name) and name == name.lstrip()
        ),
        st.text().filter(lambda value: not any(c in "\n\r\0" for c in value)),
    )
)
def test_written_variables_are_read_back(variables):
    lines = [f"{name}={value}" for name, value in variables.items()]
    assert dict(parse_env_lines(lines)) == variables
