"""`pyrtc run` from its words to its exit code, and all of foreground.py, with plain processes for containers."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from local_engine import LocalEngine
from pty_session import PtySession

from pyrtc.cli.run import run
from pyrtc.errors import PyrtcError, StartError, UsageError

PROGRAM = [sys.executable, str(Path(__file__).with_name("local_engine.py"))]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def command(*words, **keywords):
    return subprocess.run(
        [*PROGRAM, *words],
        env=ENVIRONMENT,
        capture_output=True,
        timeout=60,
        **{"stdin": subprocess.DEVNULL, **keywords},
    )


def background(*words, **keywords):
    return subprocess.Popen([*PROGRAM, *words], env=ENVIRONMENT, stdout=subprocess.PIPE, **keywords)


def session(*words, **keywords):
    return PtySession([*PROGRAM, *words], env=ENVIRONMENT, **keywords)


# ---- without a terminal ----


def test_help(capsys):
    assert run(["--help"]) == 0
    assert "--memory SIZE" in capsys.readouterr().out


def test_exit_code_is_the_commands():
    assert run(["x", "sh", "-c", "exit 42"], LocalEngine) == 42


def test_exit_code_of_a_signal():
    assert run(["x", "sh", "-c", "kill -9 $$"], LocalEngine) == 137


def test_plan_is_printed_and_nothing_started(capsys):
    assert run(["--plan", "debian", "false"], LocalEngine) == 0
    assert capsys.readouterr().out == "plan of debian\n"


def test_terminal_is_needed_for_it(monkeypatch):
    monkeypatch.setattr(os, "isatty", lambda fd: False)
    with pytest.raises(UsageError, match="the input device is not a TTY"):
        run(["-it", "x", "true"], LocalEngine)


def test_start_error_passes_through(tmp_path):
    with pytest.raises(StartError) as caught:
        run(["--cidfile", str(tmp_path / "id"), "x", "/no/such/program"], LocalEngine)
    assert caught.value.exit_code == 127
    assert not (tmp_path / "id").exists()


def test_container_id_file(tmp_path):
    assert run(["--cidfile", str(tmp_path / "id"), "x", "true"], LocalEngine) == 0
    assert (tmp_path / "id").read_text() == "f" * 64
    with pytest.raises(UsageError, match="container ID file found"):
        run(["--cidfile", str(tmp_path / "id"), "x", "true"], LocalEngine)
    with pytest.raises(PyrtcError, match="cannot make the container ID file"):
        run(["--cidfile", str(tmp_path / "missing" / "id"), "x", "true"], LocalEngine)


def test_timeout_is_enforced_and_explained(capsys):
    started = time.monotonic()
    assert run(["--timeout", "0.2", "x", "sleep", "60"], LocalEngine) == 137
    assert time.monotonic() - started < 10
    assert "killed after 0.2 s (--timeout)" in capsys.readouterr().err


def test_stdin_only_with_i():
    assert command("x", "cat", stdin=None, input=b"hello").stdout == b""
    assert command("-i", "x", "cat", stdin=None, input=b"hello").stdout == b"hello"


def test_streams_are_apart():
    done = command("x", "sh", "-c", "echo out; echo err >&2")
    assert done.stdout == b"out\n" and done.stderr == b"err\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGRTMIN + 3])
def test_signal_is_forwarded(number):
    script = f"trap 'echo got; exit 7' {int(number)}; echo ready; while :; do sleep 0.05; done"
    with background("x", "sh", "-c", script) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == b"got\n"
        assert process.wait(20) == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_during_the_start_takes_it_back(tmp_path, number, monkeypatch):
    class SlowEngine(LocalEngine):
        def start(self, image, options, **streams):
            try:
                signal.raise_signal(number)
                time.sleep(20)
            except KeyboardInterrupt:
                (tmp_path / "undone").touch()
                raise

    with pytest.raises(KeyboardInterrupt) as caught:
        run(["--cidfile", str(tmp_path / "id"), "x", "true"], SlowEngine)
    assert caught.value.number == number
    assert (tmp_path / "undone").exists() and not (tmp_path / "id").exists()


def test_third_interrupt_kills():
    with background("x", "sh", "-c", "trap '' INT; echo ready; sleep 60") as process:
        assert process.stdout.readline() == b"ready\n"
        for _ in range(3):
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
            time.sleep(0.1)
        assert process.wait(20) == 137


def test_without_proxy_a_signal_ends_the_container():
    with background("--sig-proxy=false", "x", "sh", "-c", "trap 'exit 7' TERM; echo ready; sleep 60 & wait") as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 137


def test_stop_and_continue_take_the_container_along():
    with background("x", "sh", "-c", "echo $$; exec sleep 60") as process:
        inner = int(process.stdout.readline())
        process.send_signal(signal.SIGTSTP)
        wait_for_state(process.pid, "T")
        wait_for_state(inner, "T")
        process.send_signal(signal.SIGCONT)
        wait_for_state(process.pid, "S")
        wait_for_state(inner, "S")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143


def wait_for_state(pid, letter):
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != letter:
        assert time.monotonic() < deadline
        time.sleep(0.01)


# ---- with a terminal ----


def test_terminal_echoes_and_ends_lines():
    with session("-it", "x", "sh", "-c", 'read line; echo "[$line]"') as terminal:
        terminal.wait_until(terminal.is_raw)
        terminal.send("hello\r")
        terminal.expect("hello\r\n")
        terminal.expect("[hello]\r\n")
        assert terminal.wait() == 0
        assert terminal.modes() == terminal.modes_before


def test_exit_code_and_modes_after_a_failure():
    with session("-it", "x", "sh", "-c", "exit 3") as terminal:
        assert terminal.wait() == 3
        assert terminal.modes() == terminal.modes_before


def test_failed_start_leaves_the_terminal_alone():
    with session("-it", "x", "/no/such/program") as terminal:
        assert terminal.wait() == 127
        terminal.expect("no such program\r\n")
        assert terminal.modes() == terminal.modes_before


def test_interrupt_key_is_a_byte():
    with session(
        "-it", "x", "sh", "-c", "trap 'echo interrupted' INT; echo ready; while :; do sleep 0.05; done"
    ) as terminal:
        terminal.expect("ready")
        terminal.send("\x03")
        terminal.expect("^C")
        terminal.expect("interrupted")
        for _ in range(3):  # keys are not counted, however many
            terminal.send("\x03")
            terminal.expect("interrupted")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.wait() == 143
        assert terminal.modes() == terminal.modes_before


def test_size_is_there_from_the_start_and_follows():
    script = "trap 'stty size' WINCH; stty size; while :; do sleep 0.05; done"
    with session("-it", "x", "sh", "-c", script, rows=33, columns=111) as terminal:
        terminal.expect("33 111")
        terminal.resize(44, 122)
        terminal.expect("44 122")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.wait() == 143


def test_output_alone_needs_no_terminal():
    done = command("-t", "x", "sh", "-c", "echo hello; test -t 1 && echo tty")
    assert done.stdout == b"hello\r\ntty\r\n"


def test_large_output_is_whole():
    done = command("-t", "x", "sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x; echo end")
    assert done.returncode == 0
    assert done.stdout == b"x" * 3_000_000 + b"end\r\n"


def test_pasting_much_into_a_program_that_echoes_does_not_deadlock():
    with session("-it", "x", "sh", "-c", "stty raw -echo; echo ready; head -c 300000 | wc -c; echo done") as terminal:
        terminal.expect("ready")
        os.set_blocking(terminal.master, False)
        text, sent = "y" * 300_000, 0
        while sent < len(text):
            try:
                sent += os.write(terminal.master, text[sent : sent + 4096].encode())
            except BlockingIOError:
                terminal.read(0.01)
        terminal.expect("300000")
        assert terminal.wait() == 0


def test_reader_that_goes_away_ends_the_container():
    read_end, write_end = os.pipe()
    process = subprocess.Popen(
        [*PROGRAM, "-t", "x", "sh", "-c", "trap '' HUP; while :; do echo x; done"],
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=write_end,
    )
    os.close(write_end)
    assert os.read(read_end, 2)
    os.close(read_end)
    assert process.wait(20) == 137


def test_stop_restores_the_terminal_and_continue_takes_it_again():
    with session("-it", "x", "sh", "-c", 'echo ready; read line; echo "[$line]"') as terminal:
        terminal.expect("ready")
        terminal.wait_until(terminal.is_raw)
        terminal.process.send_signal(signal.SIGTSTP)
        terminal.wait_until(lambda: terminal.state() == "T")
        assert terminal.modes() == terminal.modes_before
        terminal.resize(50, 90)
        terminal.process.send_signal(signal.SIGCONT)
        terminal.wait_until(terminal.is_raw)
        terminal.send("back\r")
        terminal.expect("[back]")
        assert terminal.wait() == 0
        assert terminal.modes() == terminal.modes_before


def test_terminal_that_goes_away_hangs_the_container_up(tmp_path):
    mark = tmp_path / "mark"
    script = f"trap 'echo gone > {mark}; exit 0' HUP; echo ready; while :; do sleep 0.05; done"
    terminal = session("-it", "x", "sh", "-c", script)
    terminal.expect("ready")
    terminal.wait_until(terminal.is_raw)
    os.close(terminal.slave)
    os.close(terminal.master)
    terminal.process.wait(20)
    assert mark.read_text() == "gone\n"


def test_container_that_ignores_the_hangup_is_killed_after_its_stop_timeout():
    terminal = session("-it", "--stop-timeout", "0.3", "x", "sh", "-c", "trap '' HUP; echo $$; sleep 60")
    terminal.wait_until(lambda: b"\n" in terminal.output)
    inner = int(terminal.output)
    terminal.wait_until(terminal.is_raw)
    os.close(terminal.slave)
    os.close(terminal.master)
    terminal.process.wait(20)
    with pytest.raises(ProcessLookupError):
        os.kill(inner, 0)


def test_background_job_waits_for_the_foreground():
    """A job that a shell started with & must not take the terminal's modes from the shell."""
    shell = "set -m; " + " ".join(f"'{word}'" for word in PROGRAM) + " -it x sh -c 'echo ran' & wait; fg; echo over"
    with PtySession(["bash", "-c", shell], env=ENVIRONMENT) as terminal:
        terminal.expect("Stopped")
        terminal.expect("ran")
        terminal.expect("over")
        assert terminal.wait() == 0
