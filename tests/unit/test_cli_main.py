"""Dispatch, global options, and what errors look like."""

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from pyrtc.cli import main as main_module
from pyrtc.cli.main import main
from pyrtc.errors import CommandNotFound, ImageNotFound

ROOT = Path(__file__).parents[2]


@pytest.fixture
def echo(monkeypatch):
    """Make `pyrtc echo` a command that does what the test says."""
    module = types.ModuleType("pyrtc_test_echo")
    module.calls = []
    module.result = 0

    def command(argv):
        module.calls.append(argv)
        if isinstance(module.result, BaseException):
            raise module.result
        return module.result

    module.echo = command
    monkeypatch.setitem(sys.modules, "pyrtc_test_echo", module)
    monkeypatch.setitem(main_module.COMMANDS["pyrtc"], "echo", ("pyrtc_test_echo", "echo", "Test"))
    monkeypatch.setenv("PYRTC_ROOT", "/before")
    return module


def test_command_gets_its_words_and_gives_the_exit_code(echo):
    echo.result = 9
    assert main(["echo", "a", "--root", "b"]) == 9
    assert echo.calls == [["a", "--root", "b"]]
    assert os.environ["PYRTC_ROOT"] == "/before"


@pytest.mark.parametrize("words", [["--root", "x/y"], ["--root=x/y"]])
def test_root(echo, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*words, "echo"]) == 0
    assert os.environ["PYRTC_ROOT"] == f"{tmp_path}/x/y"


@pytest.mark.parametrize("words", [["--root"], ["--root="], ["--rot", "x"], ["volume", "--nosuch"]])
def test_bad_words_exit_125(words, capsys):
    assert main(words) == 125
    error = capsys.readouterr().err
    assert error.startswith("pyrtc: ")
    assert "--help' for more information" in error


def test_unknown_commands_exit_1(capsys):
    assert [main(["nosuch"]), main(["volume", "nosuch"]), main(["container", "nosuch"])] == [1, 1, 1]
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("Run")] == [
        "Run 'pyrtc --help' for more information",
        "Run 'pyrtc volume --help' for more information",
        "Run 'pyrtc container --help' for more information",
    ]


@pytest.mark.parametrize("words", ["volume ls", "network create", "image ls", "container ls", "system df"])
def test_misuse_leads_to_the_help_of_both_words(words, capsys):
    assert main([*words.split(), "--nosuch"]) == 125
    assert f"Run 'pyrtc {words} --help' for more information" in capsys.readouterr().err
    assert main([*words.split(), "--help"]) == 0


# Each was compared with Docker's client, which needs no daemon to refuse it.
@pytest.mark.parametrize(
    ("line", "code"),
    [
        *(
            (line, 1)
            for line in ("run", "create", "exec", "exec x", "start", "logs a b", "rename a", "cp a", "version x")
        ),
        *((line, 1) for line in ("run", "create", "exec", "exec x", "start", "logs a b", "rename a", "cp a")),
        *((line, 1) for line in ("network create", "volume create a b", "ps x", "update x", "version x")),
        *((line, 1) for line in ("kill -s XX a", "logs --tail x a", "logs --since x a", "events --since x")),
        *((line, 1) for line in ("attach --detach-keys ctrl- a", "update --restart bad a")),
        *((line, 125) for line in ("run --nope x", "create --nope", "exec --nope x y", "start --nope")),
        *((line, 125) for line in ("version --nope", "network --nope", "rmi --force=x a", "login -u")),
        *((line, 125) for line in ("run --name", "run --memory=x a", "stop -t x a", "ps -n x", "logs --tail")),
        *((line, 125) for line in ("update --cpus x a", "history --human=x a", "volume create --label =x v")),
        *((line, 125) for line in ("ps -f x", "images -f x", "network ls -f x", "volume ls -f x", "events -f x")),
        *((line, 125) for line in ("system prune --filter x", "network create --label =x n")),
    ],
)
def test_misuse_ends_as_with_dockers_client(line, code, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("PYRTC_ROOT", str(tmp_path / "store"))
    assert main(line.split()) == code
    assert capsys.readouterr().err.startswith("pyrtc: ")


def test_near_misses(capsys):
    main(["imgaes"])
    main(["--rot"])
    error = capsys.readouterr().err
    assert "did you mean images?" in error and "did you mean --root?" in error


@pytest.mark.parametrize("words", [[], ["help"], ["--help"], ["-h"]])
def test_help_lists_every_command(words, capsys):
    assert main(words) == 0
    output = capsys.readouterr().out
    for commands in main_module.COMMANDS.values():
        for name, (_module, _function, summary) in commands.items():
            assert name in output and summary in output


def test_help_of_a_command(echo, capsys):
    assert main(["help", "echo"]) == 0
    assert echo.calls == [["--help"]]
    assert main(["help", "run"]) == 0
    assert "pyrtc run [OPTIONS] IMAGE" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["version"], ["--version"], ["-v"]])
def test_version(words, capsys):
    assert main(words) == 0
    assert capsys.readouterr().out.startswith("pyrtc version ")


def test_errors_have_their_exit_code_and_no_traceback(echo, capsys):
    for error, code in ((ImageNotFound("no image x"), 125), (CommandNotFound("no such program"), 127)):
        echo.result = error
        assert main(["echo"]) == code
        assert capsys.readouterr().err == f"pyrtc: {error}\n"


def test_unexpected_error_is_one_line_unless_asked_for(echo, capsys, monkeypatch):
    echo.result = RuntimeError("boom")
    assert main(["echo"]) == 125
    assert capsys.readouterr().err == "pyrtc: RuntimeError: boom (PYRTC_TRACEBACK=1 shows where)\n"
    monkeypatch.setenv("PYRTC_TRACEBACK", "1")
    with pytest.raises(RuntimeError):
        main(["echo"])


def test_text_from_an_image_cannot_steer_the_terminal(echo, capsys):
    echo.result = ImageNotFound("bad \x1b[2J\x07 name\nsecond line é")
    main(["echo"])
    assert capsys.readouterr().err == "pyrtc: bad \\x1b[2J\\x07 name\nsecond line é\n"


def program(*words, **keywords):
    return subprocess.run(
        [sys.executable, "-m", "pyrtc.cli.main", *words], cwd=ROOT, stderr=subprocess.PIPE, timeout=60, **keywords
    )


def test_reader_that_goes_away_is_no_error():
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = program("run", "--help", stdout=write_end)
    os.close(write_end)
    assert done.returncode == 141 and done.stderr == b""


def test_closed_standard_descriptors():
    done = subprocess.run(
        ["sh", "-c", f"'{sys.executable}' -m pyrtc.cli.main --help <&- >&-"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        timeout=60,
    )
    assert done.returncode == 0 and done.stderr == b""


def test_every_command_can_be_imported():
    for commands in main_module.COMMANDS.values():
        for name in commands:
            assert callable(main_module._command(name))


def test_a_signal_ends_the_program_as_it_ends_others():
    code = "import sys; from pyrtc.cli.main import _die_of; _die_of(15)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == -15


def test_main_imports_little():
    code = "import sys; before = set(sys.modules); import pyrtc.cli.main; print(*set(sys.modules) - before)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    assert not {"argparse", "json", "pathlib", "sqlite3", "inspect", "asyncio", "pyrtc._core"} & set(loaded.split())
