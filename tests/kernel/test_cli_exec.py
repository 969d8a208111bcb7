"""`pyrtc exec`, as a program."""

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyrtc.cli.exec import exec_

PROGRAM = [sys.executable, "-m", "pyrtc.cli.main"]


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a container that runs in a store of its own."""
    monkeypatch.setenv("PYRTC_ROOT", str(tmp_path / "store"))
    command = [*PROGRAM, "run", "--rm", "--name", "box", "-e", "HERE=1", "host", "sh", "-c", "echo up; exec sleep 1000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        try:
            yield "box"
        finally:
            subprocess.run([*PROGRAM, "rm", "-f", "box"], check=True, stdout=subprocess.DEVNULL)
            process.wait(20)


def run(*words: str, input: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, "exec", *words], input=input, capture_output=True, text=True, check=False)


def test_exit_codes(container: str) -> None:
    assert run(container, "sh", "-c", "exit 7").returncode == 7
    assert run(container, "sh", "-c", "kill -9 $$").returncode == 137
    missing = run(container, "nope")
    assert (missing.returncode, missing.stdout) == (127, "")
    assert 'exec: "nope": executable file not found in $PATH' in missing.stderr
    assert run(container, "/etc/hostname").returncode == 126
    assert run("nobody", "true").returncode == 1
    assert "No such container: nobody" in run("nobody", "true").stderr
    assert run(container).returncode == 1
    assert run("-w", "/nowhere", container, "true").returncode == 125
    refused = run("--detach-keys", "ctrl-a", container, "true")
    assert refused.returncode == 125 and "not available" in refused.stderr


def test_streams_and_options(container: str) -> None:
    assert run("-i", container, "cat", input="abc").stdout == "abc"
    assert run(container, "cat", input="abc").stdout == ""
    done = run("-e", "OWN=2", "-w", "/usr", container, "sh", "-c", 'echo "$HERE $OWN"; pwd; echo error >&2')
    assert (done.stdout, done.stderr) == ("1 2\n/usr\n", "error\n")
    if os.geteuid() == 0:
        assert run("-u", "daemon", container, "id", "-un").stdout == "daemon\n"
    assert "uid=0" in run("--privileged", container, "id").stdout


def test_detached(container: str) -> None:
    done = run("-d", container, "sh", "-c", "sleep 0.2; echo done >/tmp/file; echo nowhere")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    deadline = time.monotonic() + 10
    while run(container, "cat", "/tmp/file").stdout != "done\n":
        assert time.monotonic() < deadline
    assert run("-d", container, "nope").returncode == 127


def test_signals_go_to_the_command(container: str) -> None:
    script = "trap 'echo got; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    with subprocess.Popen([*PROGRAM, "exec", container, "sh", "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == b"got\n"
        assert process.wait(10) == 3


def test_a_terminal(container: str) -> None:
    pid, master = pty.fork()
    if pid == 0:
        words = [*PROGRAM, "exec", "-it", container, "sh", "-c", "tty; stty size; read x; echo got $x; exit 5"]
        os.execv(words[0], words)
    output = b""
    sent = False
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not select.select([master], [], [], 0.1)[0]:
            continue
        try:
            piece = os.read(master, 4096)
        except OSError:
            break
        output += piece
        if not sent and b"\n" in output:
            os.write(master, b"hello\r")
            sent = True
    os.close(master)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    assert b"/dev/pts/0" in output and b"got hello" in output


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert exec_(["--help"]) == 0
    assert "pyrtc exec [OPTIONS] CONTAINER COMMAND" in capsys.readouterr().out
