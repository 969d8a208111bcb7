"""`pyrtc attach` and `pyrtc start -a`: a person's terminal, or pipes, at a container that has a monitor."""

import contextlib
import os
import signal
import subprocess
import sys
import termios
import time

import pytest
from pty_session import PtySession


@pytest.fixture
def run(engine):
    """Make a container of the host's files that is there until the end of the test."""
    made = []

    def make(script, *, start=True, **options):
        made.append(engine.containers.create("host", ["sh", "-c", script], **options))
        if start:
            made[-1].start()
        return made[-1]

    yield make
    for container in made:
        container.remove(force=True, volumes=True)


def argv(engine, *words):
    return [sys.executable, "-m", "pyrtc.cli.main", "--root", engine.store.path, *words]


def terminal(engine, *words, **keywords):
    return PtySession(argv(engine, *words), env={**os.environ, "TERM": "xterm"}, **keywords)


def test_typing_and_leaving(engine, run):
    container = run("while read line; do echo got:$line; done", tty=True, interactive=True)
    with terminal(engine, "attach", container.name) as session:
        session.wait_until(session.is_raw)
        session.send("hello\r")
        session.expect("got:hello")
        session.send("\x10\x11")
        assert session.wait() == 0
        assert session.modes() == session.modes_before
    assert container.status == "running"
    with terminal(engine, "attach", "--detach-keys", "ctrl-a,b", container.name) as session:
        session.wait_until(session.is_raw)
        session.send("\x10\x11again\r")
        session.expect("again")
        session.send("\x01b")
        assert session.wait() == 0
    assert container.status == "running"
    told = [event.action for event in engine.events(filters={"container": container.id})]
    assert told == ["create", "start", "attach", "detach", "attach", "detach"]


def test_the_exit_code_is_the_containers(engine, run):
    container = run("read line; exit 7", tty=True, interactive=True)
    with terminal(engine, "attach", container.name) as session:
        session.wait_until(session.is_raw)
        session.send("\r")
        assert session.wait() == 7
        assert session.modes() == session.modes_before


def test_the_window_size_is_passed_on(engine, run):
    container = run("while read line; do stty size; done", tty=True, interactive=True)
    with terminal(engine, "attach", container.name, rows=33, columns=101) as session:
        session.wait_until(session.is_raw)
        session.send("\r")
        session.expect("33 101")
        session.resize(44, 122)
        session.send("\r")
        session.wait_until(lambda: session.send("\r") or b"44 122" in session.output)
        session.send("\x10\x11")
        assert session.wait() == 0


# As a shell at its prompt does: drawing again where the size is another than the last one it saw.
DRAWING = """
draw() { size=$(stty size); [ "$size" = "$last" ] || echo "drawn:$size"; last=$size; }
last=$(stty size)
trap draw WINCH
echo ready
while :; do sleep 0.05 & wait $!; done
"""


def test_what_draws_does_so_again_for_who_comes_back(engine, run):
    container = run(DRAWING, tty=True, interactive=True)
    container.wait_for(log="ready", timeout=20)
    for _ in range(3):
        with terminal(engine, "attach", container.name, rows=33, columns=101) as session:
            session.expect("drawn:33 101")
            session.send("\x10\x11")
            assert session.wait() == 0


def test_who_leaves_at_once_leaves_the_windows_size(engine, run):
    container = run("while read line; do stty size; done", tty=True, interactive=True)
    with terminal(engine, "attach", container.name, rows=33, columns=101) as session:
        session.wait_until(session.is_raw)
        session.send("\x10\x11")
        assert session.wait() == 0
    with container.attach() as attachment:
        attachment.write(b"\r")
        said = b""
        while b"101" not in said and b"102" not in said:
            said += attachment.read(20)[1]
    assert b"33 101" in said


def test_leaving_what_was_started_attached_is_told(engine, run):
    container = run("sleep 60", start=False, tty=True, interactive=True)
    with terminal(engine, "start", "-ai", container.name) as session:
        session.wait_until(session.is_raw)
        session.send("\x10\x11")
        assert session.wait() == 0
    told = [event.action for event in engine.events(filters={"container": container.id})]
    assert told == ["create", "attach", "start", "detach"]


def test_what_was_started_attached_finds_the_windows_size(engine, run):
    container = run("sleep 0.05; stty size", start=False, tty=True, interactive=True)
    with terminal(engine, "start", "-ai", container.name, rows=33, columns=101) as session:
        session.expect("33 101")
        assert session.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_killed_client_leaves_the_terminal_as_it_was(engine, run, number):
    container = run("sleep 60", tty=True, interactive=True)
    with terminal(engine, "attach", "--sig-proxy=false", container.name) as session:
        session.wait_until(session.is_raw)
        session.process.send_signal(number)
        assert session.wait() == -number
        assert session.modes() == session.modes_before
    assert container.status == "running"


def test_signals_go_to_the_container(engine, run):
    container = run("trap 'echo caught; exit 5' TERM; echo waits; while :; do sleep 0.05; done")
    container.wait_for(log="waits", timeout=20)
    with subprocess.Popen(argv(engine, "attach", container.name), stdout=subprocess.PIPE) as attached:
        wait_for_client(attached)
        attached.send_signal(signal.SIGTERM)
        assert attached.communicate(timeout=20)[0] == b"caught\n"
        assert attached.returncode == 5


def wait_for_client(process):
    """Until a client is connected: it has no other socket."""
    deadline = time.monotonic() + 20
    while not any(link.startswith("socket:") for link in links(process.pid)):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)


def links(pid):
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            yield os.readlink(f"/proc/{pid}/fd/{fd}")


def test_pipes(engine, run):
    container = run("while read line; do echo out:$line; echo err:$line >&2; done; exit 3", interactive=True)
    done = subprocess.run(
        argv(engine, "attach", container.name), input=b"a\nb\n", capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, b"out:a\nout:b\n", b"err:a\nerr:b\n")


def test_a_large_input_comes_back_whole(engine, run):
    container = run("exec cat", interactive=True)
    data = os.urandom(3 << 20)
    done = subprocess.run(
        argv(engine, "attach", container.name), input=data, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0 and done.stdout == data


def test_starting_attached(engine, run):
    container = run("echo first; cat; exit 4", start=False, interactive=True)
    done = subprocess.run(
        argv(engine, "start", "-ai", container.name), input=b"typed\n", capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (4, b"first\ntyped\n")


def test_starting_attached_sees_the_first_byte_of_a_fast_writer(engine, run):
    ends = run("echo first; echo second", start=False)
    for _ in range(5):
        done = subprocess.run(argv(engine, "start", "-a", ends.name), capture_output=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (0, b"first\nsecond\n")
    endless = run("i=0; while :; do i=$((i+1)); echo $i; done", start=False)
    with subprocess.Popen(argv(engine, "start", "-a", endless.name), stdout=subprocess.PIPE) as attached:
        assert attached.stdout.readline() == b"1\n"
        attached.kill()
    endless.kill()


def test_what_cannot_be_attached_to(engine, run):
    container = run("sleep 60", start=False)

    def attach(*words):
        done = subprocess.run(argv(engine, "attach", *words), capture_output=True, timeout=60, check=False)
        assert done.returncode == 1
        return done.stderr.decode()

    assert "start it first" in attach(container.name)
    assert "No such container" in attach("nobody")
    assert "--detach-keys" in attach("--detach-keys", "ctrl-", container.name)
    assert "name one container" in attach()


def test_only_looking_on(engine, run):
    container = run("while read line; do echo got:$line; done; exit 6", interactive=True)
    with subprocess.Popen(
        argv(engine, "attach", "--no-stdin", container.name), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as attached:
        wait_for_client(attached)
        attached.stdin.write(b"never\n")
        attached.stdin.close()
        container.kill()
        attached.stdin = None
        out, _ = attached.communicate(timeout=20)
        assert (attached.returncode, out) == (137, b"")


def test_raw_mode_is_not_entered_without_a_terminal_inside(engine, run):
    container = run("read line; echo got:$line; exit 0", interactive=True)
    with terminal(engine, "attach", container.name) as session:
        wait_for_client(session.process)
        assert session.modes()[3] & termios.ICANON
        session.send("hello\r")
        session.expect("got:hello")
        assert session.wait() == 0
