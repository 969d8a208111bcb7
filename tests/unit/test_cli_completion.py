"""Completion: what is offered, and that bash, zsh and fish really offer it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pty_session import PtySession

from pyrtc.cli import main
from pyrtc.cli.candidates import candidates
from pyrtc.cli.completion import SCRIPTS, completion
from pyrtc.cli.option_table import Answer, Question
from pyrtc.errors import UsageError
from pyrtc.store import Store
from pyrtc.store.networks import Network


def offered(*words):
    return [word for word, _ in candidates(words)]


@pytest.fixture
def store(tmp_path, monkeypatch):
    root = tmp_path / "store"
    monkeypatch.setenv("PYRTC_ROOT", str(root))
    with Store(root) as opened:
        opened.volumes.create("data")
        opened.volumes.create("")
        opened.networks.create(Network("ab" * 32, "webs", "bridge", 1.0, "pyrtc-abababab"))
        for name in ("web", "worker"):
            opened.containers.allocate(name=name, image_id="host", options_json=b"{}", directory=False)
        opened.containers.started(opened.containers.get("web").id, os.getpid(), 1)
        yield opened


def test_commands():
    assert "run" in offered("") and "__complete" not in offered("")
    assert offered("hist") == ["history"]
    assert offered("help", "vers") == ["version"]
    assert offered("image", "insp") == ["inspect"]
    assert offered("no-such-command", "") == [] and offered("image", "no-such", "") == []
    assert offered() == offered("")


def test_options_come_from_the_tables():
    assert offered("run", "--memory-s") == ["--memory-swap"]
    assert offered("image", "ls", "--no-t") == ["--no-trunc"]
    assert dict(candidates(["run", "--rm"]))["--rm"].startswith("remove the container")
    assert offered("run", "--rm", "--rm") == []
    assert offered("run", "-e", "A=1", "--env") == ["--env", "--env-file"]
    assert offered("--vers") == ["--version"]


def test_options_of_a_container_command_are_its_own():
    assert offered("run", "host", "ls", "--memory-s") == [":files"]
    assert offered("run", "--", "--memory-s") == []
    assert offered("logs", "web", "--fol") == ["--follow"]


def test_values():
    assert offered("run", "--network", "") == ["none", "host", "bridge"]
    assert offered("run", "--driver=c") == ["--driver=copy"]
    assert offered("run", "--rm=f") == ["--rm=false"]
    assert offered("run", "--cidfile", "x") == [":files"]
    assert offered("run", "-itv", "/") == [":files"]
    assert offered("run", "--memory", "") == []
    assert offered("--root", "") == [":directories"]


def test_names(store):
    assert offered("rm", "w") == ["worker", "web"]
    assert offered("stop", "") == ["web"]
    assert offered("network", "rm", "") == ["none", "host", "bridge", "webs"]
    assert offered("run", "--network", "w") == ["webs"] == offered("network", "inspect", "we")
    assert offered("run", "--network=w") == ["--network=webs"]
    assert offered("volume", "rm", "") == ["data"]
    assert offered("run", "-v", "d") == ["data", ":files"]
    assert offered("run", "--rm", "-m", "64m", "ho") == ["host"]
    web = store.containers.get("web").id
    assert offered("logs", web[:6]) == [web[:12]]
    other = os.path.dirname(store.path) + "/other"
    assert offered("--root", other, "rm", "w") == [] and not os.path.exists(other)


def test_looking_for_names_makes_no_store(tmp_path, monkeypatch):
    monkeypatch.setenv("PYRTC_ROOT", str(tmp_path / "none"))
    assert offered("rm", "") == [] and offered("run", "") == ["host"]
    assert os.listdir(tmp_path) == []


def every_command():
    for group in main.COMMANDS.values():
        for name, row in group.items():
            yield name, row
            try:
                call(row)
            except Answer as answer:
                yield from ((f"{name} {verb}", below) for verb, below in answer.verbs.items())


def call(row):
    from importlib import import_module

    return getattr(import_module(row[0]), row[1])(Question())


@pytest.mark.parametrize(
    ("name", "row"), list(every_command()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_command_says_what_it_takes(name, row, capsys):
    if name in ("version", "help"):
        return
    with pytest.raises(Answer) as raised:
        call(row)
    assert raised.value.verbs or any(
        option.key == "--help" for group in raised.value.groups for option in group.options
    )
    assert capsys.readouterr().out == ""


def test_errors_are_not_shown(tmp_path):
    (tmp_path / "pyrtc.db").write_text("no database")
    done = subprocess.run(
        [sys.executable, "-m", "pyrtc.cli.main", "--root", str(tmp_path), "__complete", "rm", ""],
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_the_command(capsys):
    for shell, script in SCRIPTS.items():
        assert completion([shell]) == 0
        assert capsys.readouterr().out == script
    with pytest.raises(UsageError, match="bash, zsh and fish"):
        completion(["tcsh"])
    with pytest.raises(UsageError, match="name one shell"):
        completion([])


@pytest.fixture
def session(tmp_path, store):
    """Start a shell with the completion loaded, where `pyrtc` is this pyrtc."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "somefile").touch()
    program = tmp_path / "bin" / "pyrtc"
    package = Path(main.__file__).parents[2]
    program.write_text(
        f'#!{sys.executable}\nimport sys\n\nsys.path.insert(0, "{package}")\nfrom pyrtc.cli.main import program\n\n'
        "program()\n"
    )
    program.chmod(0o755)
    opened = []

    def start(shell):
        path = shutil.which(shell)
        if path is None:
            pytest.skip(f"{shell} is not installed")
        options = {"bash": ["--norc", "--noprofile", "-i"], "zsh": ["-f", "-i"], "fish": ["--no-config", "-i"]}[shell]
        source = {
            "bash": "source <(pyrtc completion bash)",
            "zsh": "autoload -Uz compinit && compinit -u -D && source <(pyrtc completion zsh)",
            "fish": "pyrtc completion fish | source",
        }[shell]
        env = {
            "PATH": f"{tmp_path}/bin:/usr/bin:/bin",
            "HOME": str(tmp_path),
            "TERM": "xterm",
            "PYRTC_ROOT": os.environ["PYRTC_ROOT"],
            "LC_ALL": "C.UTF-8",
        }
        terminal = PtySession([path, *options], env=env, columns=200, rows=50)
        opened.append(terminal)
        terminal.send(f"cd {tmp_path}/work; {source}; echo lo''aded\r")
        terminal.expect("loaded")
        return terminal

    yield start
    for terminal in opened:
        terminal.__exit__()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("pyrtc hist", "history"),
        ("pyrtc image insp", "inspect"),
        ("pyrtc run --memory-sw", "--memory-swap"),
        ("pyrtc run --network=no", "--network=none"),
        ("pyrtc stop we", "web"),
        ("pyrtc load some", "somefile"),
        ("pyrtc run --cidfile some", "somefile"),
    ],
)
def test_shells_complete(session, shell, typed, completed):
    terminal = session(shell)
    # What the shell made of the line is shown by the program, not by its editor's drawing.
    terminal.send(f"{typed}\t")
    terminal.read(1.0)
    terminal.send("\x01printf '<%s>' \r")
    terminal.expect(f"<{completed}>")
