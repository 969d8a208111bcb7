"""`pyrtc run` with real containers: streams, exit codes, signals and terminals, on the pseudo-image `host`."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pty_session import PtySession

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-m", "pyrtc.cli.main"]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYRTC_ROOT": str(store)}


@pytest.fixture
def pyrtc(environment):
    """Run pyrtc with these words to its end."""

    def call(*words, **keywords):
        return subprocess.run(
            [*PROGRAM, *words],
            env=environment,
            capture_output="stdout" not in keywords,
            timeout=90,
            **({"stdin": subprocess.DEVNULL} if "input" not in keywords else {}),
            **keywords,
        )

    yield call
    assert call("ps", "-aq").stdout == b"", "a container is left"


@pytest.fixture
def run(pyrtc):
    """Run a command of the host in a container to its end."""
    return lambda *command, options=(), **keywords: pyrtc("run", "--rm", *options, "host", *command, **keywords)


@pytest.fixture
def start(environment, pyrtc):
    """Start a command of the host in a container; its output is a pipe."""
    processes = []

    def call(*command, options=()):
        words = [*PROGRAM, "run", "--rm", *options, "host", *command]
        process = subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        processes.append(process)
        return process

    yield call
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def terminal(environment, pyrtc):
    """Start a command of the host in a container that has a terminal."""
    sessions = []

    def call(*command, options=("-it",), **keywords):
        words = [*PROGRAM, "run", "--rm", *options, "host", *command]
        sessions.append(PtySession(words, env=environment, **keywords))
        return sessions[-1]

    yield call
    for session in sessions:
        session.__exit__()


# ---- streams and exit codes ----


def test_output_and_exit_code(run):
    done = run("sh", "-c", "echo out; echo err >&2; exit 42")
    assert (done.returncode, done.stdout, done.stderr) == (42, b"out\n", b"err\n")


def test_command_is_isolated(run):
    done = run("sh", "-c", "echo $$; hostname; ls /proc | grep -c '^[0-9]'")
    pid, hostname, processes = done.stdout.decode().split()
    assert pid == "1" and hostname != os.uname().nodename and int(processes) < 10


@pytest.mark.parametrize(
    ("command", "code", "text"),
    [
        (["no-such-program"], 127, b"executable file not found"),
        (["/no/such/program"], 127, b"no such file or directory"),
        (["/etc"], 126, b"permission denied"),
        (["/etc/hostname"], 126, b"permission denied"),
    ],
)
def test_command_that_cannot_be_executed(run, command, code, text):
    done = run(*command)
    assert done.returncode == code
    assert text in done.stderr.lower() and b"Traceback" not in done.stderr


def test_signal_that_ends_the_command(run):
    # Process 1 cannot kill itself; with --init the command is process 2 and can.
    assert run("sh", "-c", "kill -9 $$", options=["--init"]).returncode == 137


@pytest.mark.parametrize(
    "words",
    [
        ["--nope"],
        ["-m", "5q"],
        ["--network", "host", "--network", "none"],
        ["-v", "a:b:c:d"],
        ["-d", "--rm", "--restart", "always"],
    ],
)
def test_bad_option(pyrtc, words):
    done = pyrtc("run", *words, "host", "true")
    assert done.returncode == 125 and done.stderr.startswith(b"pyrtc: ") and b"Traceback" not in done.stderr


def test_unknown_image(pyrtc):
    done = pyrtc("run", "--rm", "nosuchimage", "true")
    assert done.returncode == 125 and b"nosuchimage" in done.stderr and b"Traceback" not in done.stderr


def test_input_is_passed_on_only_with_i(run):
    assert run("cat", input=b"hello").stdout == b""
    assert run("cat", input=b"hello", options=["-i"]).stdout == b"hello"


def test_large_data_through_both_pipes(run):
    data = os.urandom(1 << 20) * 16
    assert run("cat", input=data, options=["-i"]).stdout == data


def test_output_goes_to_a_file_directly(run, tmp_path):
    with open(tmp_path / "out", "wb") as file:
        run("sh", "-c", "readlink /proc/self/fd/1; echo hello", stdout=file, stderr=subprocess.DEVNULL)
    assert (tmp_path / "out").read_text().endswith("hello\n")


def test_reader_that_goes_away_ends_the_command(start):
    process = start("sh", "-c", "while echo x; do :; done 2>/dev/null; exit 9")
    assert process.stdout.read(2) == b"x\n"
    process.stdout.close()
    assert process.wait(30) == 9


def test_closed_standard_descriptors(environment):
    words = " ".join(f"'{word}'" for word in [*PROGRAM, "run", "--rm", "host", "sh", "-c", "echo x; exit 4"])
    done = subprocess.run(["sh", "-c", f"{words} <&- >&-"], env=environment, stderr=subprocess.PIPE, timeout=90)
    assert (done.returncode, done.stderr) == (4, b"")


def test_timeout(run):
    started = time.monotonic()
    done = run("sh", "-c", "trap '' TERM; sleep 100", options=["--timeout", "0.5"])
    assert done.returncode == 137 and b"--timeout" in done.stderr
    assert time.monotonic() - started < 20


def test_options_reach_the_container(run, tmp_path):
    (tmp_path / "env").write_text("# comment\nFILE=from file\n")
    (tmp_path / "data").mkdir()
    options = [
        *("-e", "WORD=from word", "--env-file", str(tmp_path / "env"), "-w", "/tmp", "-u", "1000:1001", "-h", "box"),
        *("-v", f"{tmp_path}/data:/mnt:ro", "--ulimit", "nofile=77:88", "--add-host", "db:10.1.2.3", "--read-only"),
        *("--tmpfs", "/run:size=1m,mode=755"),
    ]
    script = (
        'echo "$WORD,$FILE"; pwd; id -u; id -g; hostname; ulimit -n; ulimit -Hn; '
        "grep -c '10.1.2.3.*db' /etc/hosts; touch /mnt/x 2>/dev/null || echo ro; stat -f -c %T /run"
    )
    done = run("sh", "-c", script, options=options)
    assert not done.stderr, done.stderr
    assert done.stdout.decode().split("\n") == [
        *("from word,from file", "/tmp", "1000", "1001", "box", "77", "88", "1", "ro", "tmpfs", "")
    ]


def test_container_id_file_and_list(start, pyrtc, tmp_path):
    file = tmp_path / "id"
    process = start("sh", "-c", "echo ready; sleep 60", options=["--cidfile", str(file), "--name", "cli-listed"])
    assert process.stdout.readline() == b"ready\n"
    assert pyrtc("ps", "-q", "--no-trunc").stdout.decode().strip() == file.read_text()
    assert b"cli-listed" in pyrtc("ps").stdout
    refused = pyrtc("rm", "cli-listed")
    assert refused.returncode == 1 and b"running" in refused.stderr
    assert pyrtc("rm", "-f", "cli-listed").stdout == b"cli-listed\n"
    assert process.wait(30) == 137


def test_kept_container_is_listed_and_removed(pyrtc):
    assert pyrtc("run", "--name", "cli-kept", "host", "sh", "-c", "exit 3").returncode == 3
    listed = pyrtc("ps", "-a").stdout
    assert b"Exited (3)" in listed and b"cli-kept" in listed
    taken = pyrtc("run", "--name", "cli-kept", "host", "true")
    assert taken.returncode == 125 and b"already in use" in taken.stderr
    assert pyrtc("rm", "cli-kept").returncode == 0
    missing = pyrtc("rm", "cli-kept")
    assert missing.returncode == 1 and b"cli-kept" in missing.stderr


def test_plan_starts_nothing(pyrtc):
    done = pyrtc("run", "--plan", "-m", "64m", "host", "true")
    assert done.returncode == 0 and b"pivot" in done.stdout and b"67108864" in done.stdout


# ---- signals ----


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGRTMIN + 3])
def test_signal_is_forwarded(start, number):
    process = start("bash", "-c", f"trap 'echo got; exit 7' {int(number)}; echo ready; while :; do sleep 0.05; done")
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    assert process.stdout.readline() == b"got\n"
    assert process.wait(30) == 7


def test_third_interrupt_kills_a_process_1_that_does_not_listen(start):
    process = start("sh", "-c", "trap '' INT; echo ready; exec sleep 100")
    assert process.stdout.readline() == b"ready\n"
    for _ in range(3):
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    assert process.wait(30) == 137


def test_killed_caller_takes_the_container_along(start, pyrtc):
    process = start("sh", "-c", "echo ready; exec sleep 100")
    assert process.stdout.readline() == b"ready\n"
    process.kill()
    assert process.stdout.read() == b""  # the container held the other end of the pipe
    process.wait()


def test_stop_and_continue_take_process_1_along(start):
    process = start("sh", "-c", "while :; do echo x; sleep 0.01; done")
    assert process.stdout.readline() == b"x\n"
    process.send_signal(signal.SIGTSTP)
    wait_until(lambda: state(process.pid) == "T")
    os.set_blocking(process.stdout.fileno(), False)
    while process.stdout.read():
        pass
    time.sleep(0.3)
    assert not process.stdout.read()
    os.set_blocking(process.stdout.fileno(), True)
    process.send_signal(signal.SIGCONT)
    assert process.stdout.readline().endswith(b"x\n")


def wait_until(condition, timeout=30):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def state(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


# ---- terminals ----


def test_terminal_echoes_and_is_restored(terminal):
    session = terminal("sh", "-c", 'tty; read line; echo "[$line]"; exit 5')
    session.expect("/dev/pts/0\r\n")
    session.wait_until(session.is_raw)
    session.send("hello\r")
    session.expect("hello\r\n[hello]\r\n")
    assert session.wait() == 5
    assert session.modes() == session.modes_before


def test_interactive_shell_has_job_control(terminal):
    session = terminal("bash", "--norc", "-i")
    session.expect("# ")
    session.send("sleep 100\r")
    session.expect("sleep 100")
    time.sleep(0.3)
    session.send("\x1a")
    session.expect("Stopped")
    session.send("jobs\r")
    session.expect("sleep 100")
    session.send("fg\r")
    session.expect("sleep 100")
    time.sleep(0.3)
    session.send("\x03")
    session.expect("# ")
    session.send("exit 6\r")
    assert session.wait() == 6
    assert session.modes() == session.modes_before
    assert b"no job control" not in session.output


def test_interrupt_key_reaches_the_foreground_job(terminal):
    session = terminal("sh", "-c", "trap 'echo interrupted' INT; echo ready; while :; do sleep 0.05; done")
    session.expect("ready")
    for _ in range(4):
        session.send("\x03")
        session.expect("interrupted")
    session.send("\x1c")  # ^\: no handler, and process 1 does not die of it
    session.process.send_signal(signal.SIGKILL)
    session.process.wait()


def test_size_from_the_start_and_after_a_change(terminal):
    script = "trap 'stty size' WINCH; stty size; while :; do sleep 0.05; done"
    session = terminal("sh", "-c", script, rows=33, columns=111)
    session.expect("33 111")
    session.resize(44, 122)
    session.expect("44 122")
    session.resize(20, 60)
    session.expect("20 60")


def test_size_is_set_before_the_command_runs(terminal):
    session = terminal("stty", "size", rows=33, columns=111)
    session.expect("33 111\r\n")
    assert session.wait() == 0


def test_terminal_for_output_alone(run):
    done = run("sh", "-c", "test -t 1 && echo tty; head -c 2000000 /dev/zero | tr '\\0' x; echo end", options=["-t"])
    assert done.stdout == b"tty\r\n" + b"x" * 2_000_000 + b"end\r\n"


def test_terminal_is_needed(run):
    done = run("true", options=["-it"])
    assert done.returncode == 1 and b"the input device is not a TTY" in done.stderr


def test_failed_start_leaves_the_terminal_alone(terminal):
    session = terminal("no-such-program")
    assert session.wait() == 127
    session.expect("executable file not found")
    assert session.modes() == session.modes_before


def test_timeout_restores_the_terminal(terminal):
    session = terminal("sleep", "100", options=["-it", "--timeout", "0.5"])
    assert session.wait() == 137
    session.expect("(--timeout)")
    assert session.modes() == session.modes_before


def test_termination_restores_the_terminal(terminal):
    session = terminal("sh", "-c", "trap 'exit 8' TERM; echo ready; while :; do sleep 0.05; done")
    session.expect("ready")
    session.wait_until(session.is_raw)
    session.process.send_signal(signal.SIGTERM)
    assert session.wait() == 8
    assert session.modes() == session.modes_before


def test_terminal_that_goes_away_ends_the_container(terminal):
    session = terminal("sh", "-c", "echo ready; sleep 100", options=["-it", "--stop-timeout", "0.5"])
    session.expect("ready")
    session.wait_until(session.is_raw)
    os.close(session.slave)
    os.close(session.master)
    session.process.wait(30)


def test_stop_restores_the_terminal_until_continued(terminal):
    session = terminal("sh", "-c", 'echo ready; read line; echo "[$line]"')
    session.expect("ready")
    session.wait_until(session.is_raw)
    session.process.send_signal(signal.SIGTSTP)
    session.wait_until(lambda: session.state() == "T")
    assert session.modes() == session.modes_before
    session.process.send_signal(signal.SIGCONT)
    session.wait_until(session.is_raw)
    session.send("back\r")
    session.expect("[back]")
    assert session.wait() == 0
